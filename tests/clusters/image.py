"""The CPU image, built and used: `python tests/clusters/image.py [OPTIONS of buildah bud]`.

The base is Debian 13 by debootstrap, tagged as the image that the Dockerfile names. The image is checked up, trained
in, and played through as the pods of the MPIJob manifest: stopped twice, started again, ended with the same bits.
Where packages come through a mirror, options such as `--volume /etc/pip.conf:/etc/pip.conf:ro` say so.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pods import Pods
from stage import ROOT, check, digest, require, run

IMAGE = "localhost/mxnet-horovod-harness"
TOOLS = ("gcc", "g++", "cc", "c++", "ld", "as", "make", "cmake")
LEFTOVERS = ("root/.cache/*", "home/*/.cache", "var/lib/apt/lists/*", "etc/ssh/ssh_host_*", "opt/harness/.venv/include")
# what the official image keeps away too
SLIM = {
    "etc/dpkg/dpkg.cfg.d/slim": "path-exclude /usr/share/doc/*\npath-exclude /usr/share/man/*\n",
    "etc/apt/apt.conf.d/slim": 'APT::Keep-Downloaded-Packages "false";\nDir::Cache { pkgcache ""; srcpkgcache ""; };\n',
}


class Builder:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        settings = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(settings)
        self._environ = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "BUILDAH_ISOLATION": "chroot",
        }
        self._folder = folder

    def run(self, *words: str, **how: Any) -> str:
        return run(["buildah", *words], env=self._environ, timeout=1800, **how)

    def container(self, image: str) -> str:
        """The name of a new container."""
        return self.run("from", "--pull-never", image).strip()

    def mount(self, container: str) -> Path:
        """The container's files."""
        return Path(self.run("mount", container).strip())

    def inside(self, container: str, command: str, **how: Any) -> str:
        """Run a shell command as the image's user, in its folder."""
        return self.run("run", "--uts", "host", container, "--", "sh", "-c", command, **how)

    def base(self, name: str, root: Path) -> None:
        """Make an image of a folder, which is then gone."""
        container = self.run("from", "scratch").strip()
        self.run("add", "--quiet", container, str(root), "/")
        self.run("commit", "--quiet", "--rm", container, name)
        shutil.rmtree(root)

    def build(self, *options: str) -> None:
        """Build an image from a Dockerfile; Gloo, which is tried in it, wants a host name that can be looked up."""
        self.run("bud", "--format", "docker", "--pull-never", "--uts", "host", *options, *sys.argv[1:], ".")

    def describe(self) -> dict[str, Any]:
        """Show the size of each layer as it is pulled, and return the image's configuration."""
        pushed = self._folder / "pushed"
        self.run("images", IMAGE)
        self.run("push", "--quiet", IMAGE, f"dir:{pushed}")
        manifest = json.loads((pushed / "manifest.json").read_text())
        described = json.loads((pushed / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
        layers = iter(manifest["layers"])
        for step in described["history"]:
            if not step.get("empty_layer"):
                made_by = re.sub(r"\s+", " ", step["created_by"].removeprefix("/bin/sh -c "))
                print(f"{next(layers)['size'] / 1e6:7.1f} MB  {made_by[:100]}")
        print(f"{sum(layer['size'] for layer in manifest['layers']) / 1e6:7.1f} MB  in all, compressed")
        shutil.rmtree(pushed)
        return described["config"]


@contextmanager
def workplace() -> Iterator[tuple[Builder, Path]]:
    """A folder, and buildah in it; nothing of either is left."""
    folder = Path(tempfile.mkdtemp(prefix="image-", dir="/var/tmp"))
    builder = Builder(folder)
    try:
        yield builder, folder
    finally:
        builder.run("umount", "--all")
        shutil.rmtree(folder)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def debian_like(root: Path, suite: str, *mirror: str) -> Path:
    """Debian or Ubuntu in a folder, without what the official images leave out too."""
    run(["debootstrap", "--variant=minbase", suite, str(root), *mirror], timeout=1200)
    for pattern in ("var/lib/apt/lists/*", "var/cache/apt/*", "usr/share/doc/*", "usr/share/man/*"):
        for path in root.glob(pattern):
            remove(path)
    for name, text in SLIM.items():
        (root / name).write_text(text)
    return root


def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.partition(";")[0] for line in lines if "==" in line]  # of any Python
    return {pin.lower().replace("_", "-") for pin in pins}


def look_inside(builder: Builder, container: str) -> None:
    """No root, no compilers, no caches, no keys; every package at the version of constraints.txt."""
    check("the user is not root", builder.inside(container, "id -u").strip() == "1000")
    tools = builder.inside(container, f"for tool in {' '.join(TOOLS)}; do command -v $tool; done; true")
    check("there is no compiler and no make", not tools.strip())
    root = builder.mount(container)
    left = [str(path) for pattern in LEFTOVERS for path in root.glob(pattern)]
    check(f"there are no caches, headers or keys of hosts {' '.join(left)}", not left)
    said = builder.inside(container, "pip list --format freeze --exclude-editable --exclude pip")
    others = {line.lower().replace("_", "-") for line in said.split()} - pinned()
    check(f"every package is one of constraints.txt {' '.join(others)}", not others)


def train(builder: Builder, container: str, expected: str) -> None:
    """The digits by both launchers."""
    for launcher in ("horovodrun", "mpirun"):
        said = builder.inside(
            container, f"{launcher} -np 2 python launch/train.py --overwrite --set threads_per_rank=1"
        )
        check(f"{launcher} -np 2 inside ends with the bits of this machine", digest(said) == expected)


def play(pods: Pods, expected: str) -> None:
    """The life of the job: its launcher is deleted, then its worker, and each time the operator starts it again."""
    worker = pods.start("Worker")
    for stopped, pattern in (("Launcher", "*/checkpoints/*"), ("Worker", "*/checkpoints/*1??")):
        pods.wait_until_ready()
        launcher = pods.start("Launcher")
        pods.wait_for(pattern, launcher)
        pods.stop(stopped, launcher if stopped == "Launcher" else worker)
        code = launcher.wait(timeout=120)
        print(pods.log("Launcher"), end="")
        check(f"when the {stopped.lower()}'s pod is deleted, all is saved and mpirun ends with 75", code == 75)
    pods.start("Worker")
    pods.wait_until_ready()
    launcher = pods.start("Launcher")
    code = launcher.wait(timeout=300)
    print(pods.log("Launcher"), end="")
    check("started once more, mpirun ends with 0", code == 0)
    check(
        "and the run has the bits of this machine, where nothing broke it off", digest(pods.log("Launcher")) == expected
    )
    [outcome] = pods.runs.glob("*/outcome.json")
    check(
        "the run is in the volume, and not root's",
        (outcome.stat().st_uid, json.loads(outcome.read_text())["exit_code"]) == (1000, 0),
    )


def main() -> None:
    require(buildah="buildah", debootstrap="debootstrap", ip="iproute2", nsenter="util-linux")
    job = yaml.safe_load((ROOT / "launch/kubernetes/mpijob.yaml").read_text())
    with workplace() as (builder, folder):
        command = "launch/train.py --emulate-np 2 --set threads_per_rank=1"
        expected = digest(run([sys.executable, *shlex.split(command), "--set", f"output={folder}/here"]))
        builder.base("docker.io/library/debian:trixie-slim", debian_like(folder / "debian", "trixie"))
        builder.build("--layers", "--tag", IMAGE)
        config = builder.describe()
        container = builder.container(IMAGE)
        look_inside(builder, container)
        builder.inside(container, "python launch/doctor.py")
        builder.inside(container, shlex.join(config["Healthcheck"]["Test"][1:]))
        train(builder, container, expected)
        roots = {role: builder.mount(builder.container(IMAGE)) for role in ("Launcher", "Worker")}
        (folder / "pods").mkdir()
        with Pods(job, roots, dict(pair.split("=", 1) for pair in config["Env"]), folder / "pods") as pods:
            play(pods, expected)


if __name__ == "__main__":
    main()
