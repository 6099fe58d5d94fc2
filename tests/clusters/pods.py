"""Pods on one machine: an image's file system in namespaces, with what the kubelet and the MPI Operator add to it.

A pod here is a process with a host name, a network, mounts and process ids of its own, that has no privileges, runs as
the user of the manifest and sees the job's keys and list of hosts where the operator (v0.8.0) mounts them.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from stage import run

ADDRESSES = {"Launcher": "10.77.0.1", "Worker": "10.77.0.2"}
OPERATOR = {"HYDRA_HOST_FILE": "/etc/mpi/hostfile", "HYDRA_LAUNCH_EXTRA_ARGS": "-o ConnectionAttempts=10"}
LIMIT_S = 120.0


class Pods:
    """The launcher and the one worker of an MPIJob; `with` joins them by a network and removes it.

    Attributes:
        runs: the volume of runs, as a folder.
    """

    def __init__(self, job: dict[str, Any], roots: dict[str, Path], env: dict[str, str], folder: Path) -> None:
        """Nothing is made yet.

        Args:
            job: the manifest.
            roots: the file system of each pod.
            env: of the image.
            folder: for keys, hosts and the volume of runs.
        """
        self.runs = folder / "runs"
        self._job, self._roots, self._env, self._folder = job, roots, env, folder
        self._specs = {role: replica["template"]["spec"] for role, replica in job["spec"]["mpiReplicaSpecs"].items()}
        self._hosts = {role: f"{job['metadata']['name']}-{role.lower()}" for role in roots}
        self._hosts["Worker"] += "-0"
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Pods:
        self._write()
        for role in ADDRESSES:
            run(["ip", "netns", "add", self._hosts[role]])
        launcher, worker = (self._hosts[role] for role in ADDRESSES)
        run(f"ip link add eth0 netns {launcher} type veth peer name eth0 netns {worker}")
        for role, address in ADDRESSES.items():
            for command in ("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up"):
                run(f"ip -netns {self._hosts[role]} {command}")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        for host in self._hosts.values():
            run(["ip", "netns", "delete", host])

    def start(self, role: str) -> subprocess.Popen[str]:
        """Start a pod's container with the command of the manifest."""
        container = self._specs[role]["containers"][0]
        print(f"# {self._hosts[role]}: {shlex.join(container['args'])}", flush=True)
        mounts = {self._job["spec"]["sshAuthMountPath"]: "ssh", "/etc/hosts": "hosts"}
        if role == "Launcher":
            mounts |= {"/etc/mpi": "mpi", container["volumeMounts"][0]["mountPath"]: "runs"}
        root = self._roots[role]
        (root / "dev/shm").mkdir(exist_ok=True)
        steps = [
            f"hostname {self._hosts[role]}",
            f"mount -t proc proc {root}/proc",
            f"mount -t sysfs -o ro sysfs {root}/sys",
        ]
        steps += [f"mount -t tmpfs -o size=64m,mode=1777 shm {root}/dev/shm"]
        for target, name in mounts.items():
            source, place = self._folder / name, root / target.lstrip("/")
            place.mkdir(exist_ok=True) if source.is_dir() else place.touch()
            steps += [f"mount --bind {source} {place}"]
        apart = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-euc"]
        script = "; ".join([*steps, f"exec {shlex.join(self._as_user(role, container['args']))}"])
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._hosts[role], *apart, script],
            stdout=(self._folder / f"{role}.log").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def log(self, role: str) -> str:
        """What the pod's last container said."""
        return (self._folder / f"{role}.log").read_text(encoding="utf-8")

    def wait_until_ready(self) -> None:
        """Wait for the worker's readiness probe, as `WaitForWorkersReady` does."""
        port = self._specs["Worker"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"]
        probe = f"until true 2>/dev/null </dev/tcp/{ADDRESSES['Worker']}/{port}; do sleep 0.2; done"
        run(["ip", "netns", "exec", self._hosts["Launcher"], "timeout", "30", "bash", "-c", probe])

    def stop(self, role: str, process: subprocess.Popen[str]) -> None:
        """Delete a pod as the kubelet does: first the hook of the manifest, if there is one, and then SIGTERM."""
        children = Path("/proc") / str(process.pid) / "task" / str(process.pid) / "children"
        first = int(children.read_text())
        hook = self._specs[role]["containers"][0].get("lifecycle", {}).get("preStop")
        if hook:
            words = self._as_user(role, hook["exec"]["command"])
            run(["nsenter", f"--target={first}", "--mount", "--pid", "--net", *words])
        print(f"# SIGTERM to {self._hosts[role]}", flush=True)
        os.kill(first, signal.SIGTERM)

    def wait_for(self, pattern: str, process: subprocess.Popen[str]) -> None:
        """Wait until a file appears in the volume of runs."""
        deadline = time.monotonic() + LIMIT_S
        while not any(self.runs.glob(pattern)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"FAILED: no {pattern} in the volume of runs\n{self.log('Launcher')}")
            time.sleep(0.02)

    def _as_user(self, role: str, words: list[str]) -> list[str]:
        """A command in a pod's file system, without privileges and with the environment that a container gets."""
        security = self._specs[role]["securityContext"]
        user = f"--userspec={security['runAsUser']}:{security['runAsGroup']}"
        env = {**self._env, "HOME": str(Path(self._job["spec"]["sshAuthMountPath"]).parent)}
        env |= OPERATOR if role == "Launcher" else {}
        pairs = [f"{key}={value}" for key, value in env.items()]
        alone = ["env", "--ignore-environment", "--chdir=/opt/harness", *pairs, "setpriv", "--no-new-privs"]
        return ["chroot", user, str(self._roots[role]), *alone, *words]

    def _write(self) -> None:
        """Keys and the list of hosts as the operator writes them, and names as the cluster's DNS has them."""
        domain = f"{self._job['metadata']['name']}.default.svc"
        names = [f"{ADDRESSES[role]} {host}.{domain} {host}\n" for role, host in self._hosts.items()]
        (self._folder / "hosts").write_text("".join(["127.0.0.1 localhost\n", *names]))
        slots = self._job["spec"]["slotsPerWorker"]
        (self._folder / "mpi").mkdir()
        hostfile = "".join(f"{host}.{domain}:{slots}\n" for host in self._hosts.values())
        (self._folder / "mpi/hostfile").write_text(hostfile)
        keys = self._folder / "ssh"
        keys.mkdir()
        run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-f", str(keys / "id_rsa")])
        (keys / "authorized_keys").write_text((keys / "id_rsa.pub").read_text())
        for key in keys.iterdir():
            key.chmod(0o644)  # a secret's files are root's, and readable
        self.runs.mkdir()
        run(["chown", f"root:{self._specs['Launcher']['securityContext']['fsGroup']}", str(self.runs)])
        self.runs.chmod(0o2775)
