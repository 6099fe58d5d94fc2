"""The manifests against the schema that the MPI Operator publishes: `python tests/clusters/kubernetes.py`.

Kubernetes drops fields that it does not know without a word, so here they are refused. Needs neither root nor a
cluster; the schema is downloaded, or read from `--crd FILE`.
"""

from __future__ import annotations

import argparse
import copy
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from stage import ROOT, check

MANIFESTS = ROOT / "launch/kubernetes"
RELEASE = "v0.8.0"
CRD = f"https://raw.githubusercontent.com/kubeflow/mpi-operator/{RELEASE}/manifests/base/kubeflow.org_mpijobs.yaml"
LAUNCHER = ("spec", "mpiReplicaSpecs", "Launcher")
FAULTS = {  # where a value is planted, the value, and what the refusal says
    ("spec", "runLauncherAsWorkers"): (True, "'runLauncherAsWorkers' was unexpected"),
    ("spec", "mpiImplementation"): ("mpich", "'mpich' is not one of"),
    ("spec", "runPolicy", "backoffLimit"): ("ten", "'ten' is not of type 'integer'"),
    (*LAUNCHER, "template", "spec", "securityContext", "runAsNonroot"): (True, "'runAsNonroot' was unexpected"),
    (*LAUNCHER, "template", "spec", "containers", 0, "volumeMounts", 0, "path"): ("/runs", "'path' was unexpected"),
}


def strict(schema: Any) -> Any:
    """The schema without room for fields that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def read_schema(path: Path | None) -> dict[str, Any]:
    """The schema of version v2beta1."""
    if path is None:
        with urllib.request.urlopen(CRD, timeout=60) as answer:
            text = answer.read().decode()
    else:
        text = path.read_text(encoding="utf-8")
    versions = yaml.safe_load(text)["spec"]["versions"]
    return strict(next(v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v2beta1"))


def of_pod(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a pod's specification."""
    replica = schema["properties"]["spec"]["properties"]["mpiReplicaSpecs"]["additionalProperties"]
    return replica["properties"]["template"]["properties"]["spec"]


def of_claim(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a volume claim's specification, which stands inside that of a pod."""
    ephemeral = of_pod(schema)["properties"]["volumes"]["items"]["properties"]["ephemeral"]
    return ephemeral["properties"]["volumeClaimTemplate"]["properties"]["spec"]


def mistakes(value: Any, schema: dict[str, Any]) -> list[str]:
    return [f"{e.json_path}: {e.message}" for e in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def planted(job: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy of the job with another value in one place."""
    faulty = part = copy.deepcopy(job)
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return faulty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--crd", type=Path, metavar="FILE", help=f"instead of {CRD}")
    schema = read_schema(parser.parse_args().crd)
    job, elastic, claim, reader = (
        yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("mpijob", "elastic", "runs", "reader")
    )
    parts = {"MPIJob": (job, schema), "elastic MPIJob": (elastic, schema)}
    parts["volume claim"] = (claim["spec"], of_claim(schema))
    parts["reader"] = (reader["spec"], of_pod(schema))
    for name, (value, part) in parts.items():
        found = mistakes(value, part)
        check(f"the {name} fits the schema of v2beta1, every field of it" + "".join(f"\n{m}" for m in found), not found)
    for place, (value, said) in FAULTS.items():
        found = mistakes(planted(job, place, value), schema)
        check(f"refused: {'; '.join(found)}", bool(found) and all(said in mistake for mistake in found))


if __name__ == "__main__":
    main()
