"""The MPIJob manifest, the image and the guide say the same (the schema: `tests/clusters/kubernetes.py`)."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from harness.config import load_config

ROOT = Path(__file__).parents[2]
DOCKERFILES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "Dockerfile.gpu")}
JOB, CLAIM, READER = (
    yaml.safe_load((ROOT / f"launch/kubernetes/{name}.yaml").read_text(encoding="utf-8"))
    for name in ("mpijob", "runs", "reader")
)
PODS = {name: replica["template"]["spec"] for name, replica in JOB["spec"]["mpiReplicaSpecs"].items()}
CONTAINERS = {name: pod["containers"][0] for name, pod in PODS.items()}


def parse(words: list[str]):
    """The options of `python launch/NAME.py ...`, by the command's own parser."""
    python, script, *arguments = words
    assert python == "python"
    assert (ROOT / script).is_file()
    return importlib.import_module(f"harness.cli.{Path(script).stem}").parse_arguments(arguments)


def instructions(dockerfile: str, name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)", dockerfile.replace("\\\n", ""), re.MULTILINE)


def test_the_launcher_starts_one_rank_for_each_slot_and_goes_on_where_it_was():
    mpirun, np, ranks, *command = CONTAINERS["Launcher"]["args"]
    replicas = sum(replica["replicas"] for replica in JOB["spec"]["mpiReplicaSpecs"].values())
    assert (mpirun, np, int(ranks)) == ("mpirun", "-np", replicas * JOB["spec"]["slotsPerWorker"])
    options = parse(command)
    assert options.resume == "auto"
    config = load_config(ROOT / options.config, options.set)
    cores = CONTAINERS["Launcher"]["resources"]["limits"]["cpu"]
    assert config.threads_per_rank * JOB["spec"]["slotsPerWorker"] == int(cores), "a limit is not seen by `auto`"


def test_the_volume_of_runs_is_where_rank_0_writes():
    assert JOB["spec"]["runLauncherAsWorker"], "rank 0 is in the first host of the list, which is then the launcher"
    [mount] = CONTAINERS["Launcher"]["volumeMounts"]
    [volume] = PODS["Launcher"]["volumes"]
    assert (mount["name"], volume["persistentVolumeClaim"]["claimName"]) == (volume["name"], CLAIM["metadata"]["name"])
    options = parse(CONTAINERS["Launcher"]["args"][3:])
    [workdir] = {instructions(text, "WORKDIR")[-1] for text in DOCKERFILES.values()}
    assert mount["mountPath"] == f"{workdir}/{load_config(ROOT / options.config, options.set).output}"


def test_the_reader_sees_the_volume_as_the_same_user():
    assert READER["spec"]["volumes"] == PODS["Launcher"]["volumes"]
    assert READER["spec"]["securityContext"] == PODS["Launcher"]["securityContext"]
    [container] = READER["spec"]["containers"]
    assert container["image"] == CONTAINERS["Launcher"]["image"]
    [mount] = container["volumeMounts"]
    guide = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    assert f"kubectl cp {READER['metadata']['name']}:{mount['mountPath']} ./runs" in guide


def test_what_fails_is_started_again():
    assert {replica["restartPolicy"] for replica in JOB["spec"]["mpiReplicaSpecs"].values()} == {"OnFailure"}
    assert JOB["spec"]["runPolicy"]["backoffLimit"] > 0
    assert JOB["spec"]["mpiImplementation"] == "MPICH", "that is the mpirun of the image"


def test_both_pods_are_alike_and_run_as_the_user_of_the_image():
    for key in ("image", "securityContext", "resources"):
        assert CONTAINERS["Launcher"][key] == CONTAINERS["Worker"][key]
    for name, text in DOCKERFILES.items():
        [user] = instructions(text, "USER")
        assert {f"{p['securityContext']['runAsUser']}:{p['securityContext']['fsGroup']}" for p in PODS.values()} == {
            user
        }
        assert f"useradd --uid {user.split(':')[0]} --create-home harness" in text, name


def test_ssh_finds_the_keys_and_the_port():
    folder = JOB["spec"]["sshAuthMountPath"]
    for name in ("sshd_config", "ssh_config"):
        text = (ROOT / "launch/kubernetes" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"/\S*\.ssh", text)) == {folder}
        assert re.findall(r"Port (\d+)", text) == [str(CONTAINERS["Worker"]["readinessProbe"]["tcpSocket"]["port"])]
    *_, path = CONTAINERS["Worker"]["args"]
    assert path == f"{instructions(DOCKERFILES['Dockerfile'], 'WORKDIR')[-1]}/launch/kubernetes/sshd_config"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_health_check_starts_no_ranks(name):
    [check] = instructions(DOCKERFILES[name], "HEALTHCHECK")
    assert parse(json.loads(check.partition(" CMD ")[2])).quick


def test_the_guide_builds_the_image_that_the_job_wants():
    guide = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    assert f"docker build -t {CONTAINERS['Launcher']['image']} ." in guide
