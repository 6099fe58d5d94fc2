"""Hosts on one machine: each has a name, an address, processes, an sshd and a folder `runs/` of its own.

A host is a set of namespaces (network, mounts, processes, name, shared memory) whose first process reads from this
one: when this one ends, however it ends, that one does, and the kernel ends every other process of the host with it.
The hosts' cables, veth pairs, lead to a switch, a bridge in a namespace of its own, and go when it goes.
Shaped links lead to `wire.py` instead.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import stage

_NETWORK = "10.77.0"
_MINE = ("sh -c", "/usr/sbin/sshd -f", "ps -e")  # what a host runs when it has nothing to do, and what asks it


class Network:
    """Hosts that reach each other by name, over ssh too; `with` makes them and removes them.

    Attributes:
        folder: for what belongs to no host; removed at the end.
    """

    def __init__(
        self,
        *names: str,
        link: tuple[float, float] | None = None,
        cores: Sequence[int] | None = None,
        shares_runs: bool = False,
        ssh_options: str = "",
    ) -> None:
        """Nothing is made yet.

        Args:
            names: of the hosts.
            link: bytes a second and seconds of delay on the way to each host; neither is limited if not given.
            cores: the one that each host computes on; all of the machine's if not given.
            shares_runs: whether `runs/` is one folder of all hosts, as on a shared disk (which no cut cable cuts off).
            ssh_options: more lines of `ssh_config`.
        """
        self.names = names
        self._shares_runs, self._ssh_options = shares_runs, ssh_options
        self.folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self._link = link
        self._cores = dict(zip(names, cores or (), strict=cores is not None))
        self._first: dict[str, subprocess.Popen[str]] = {}
        self._made_runs = not (stage.ROOT / "runs").exists()

    def __enter__(self) -> Network:
        stage.require(sshd="openssh-server", ip="iproute2", nsenter="util-linux")
        (stage.ROOT / "runs").mkdir(exist_ok=True)
        try:
            self._write_files()
            for name in self.names:
                self._begin(name)
            if self._link is None:
                self._join_by_bridge()
            else:
                hosts = [str(self._first[name].pid) for name in self.names]
                wire = [sys.executable, str(Path(__file__).with_name("wire.py"))]
                self._keep("wire", [*wire, *map(str, self._link), *hosts])
            for number, name in enumerate(self.names, start=1):
                address = (
                    f"ip link set eth0 address 02:00:00:00:00:{number:02x}; ip addr add {_NETWORK}.{number}/24 dev eth0"
                )
                _quietly(self.inside(name, f"{address}; ip link set eth0 up"))
                _quietly(self.inside(name, f"/usr/sbin/sshd -f {self.folder}/{name}/sshd_config"))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for first in self._first.values():
            first.communicate()  # closes what it reads from
        if self._made_runs:
            (stage.ROOT / "runs").rmdir()
        shutil.rmtree(self.folder)

    def inside(self, name: str, command: str) -> list[str]:
        """The words that run a shell command on a host, in the project's folder and with this Python first in PATH."""
        pid = (
            Path("/proc") / str(self._first[name].pid) / "task" / str(self._first[name].pid) / "children"
        ).read_text()
        environment = {
            "HOME": str(self.folder / name),
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(stage.ROOT),
            "OMP_NUM_THREADS": "1",
        }
        words = ["env", "-i", *(f"{key}={value}" for key, value in environment.items()), "sh", "-c", command]
        core = ["taskset", "--cpu-list", str(self._cores[name])] if name in self._cores else []
        return [*core, "nsenter", "--all", "--target", pid.strip(), f"--wdns={stage.ROOT}", *words]

    def run(self, name: str, command: str, *, expect: int | None = 0, quiet: bool = False) -> str:
        """Run a command on a host, show it and what it said, and return that; `expect=None` takes any exit code."""
        return self.finish(self.start(name, command, quiet=quiet), expect=expect, quiet=quiet)

    def start(self, name: str, command: str, *, quiet: bool = False) -> subprocess.Popen[str]:
        """Begin a command on a host."""
        if not quiet:
            print(f"{name}$ {command}", flush=True)
        how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(self.inside(name, command), text=True, cwd=stage.ROOT, **how)

    def finish(self, process: subprocess.Popen[str], *, expect: int | None = 0, quiet: bool = False) -> str:
        """What a command said, once it has ended."""
        said = process.communicate(timeout=600)[0]
        if not quiet:
            print(said, end="", flush=True)
            print(f"(exit code {process.returncode})" if process.returncode else "", flush=True)
        if expect is not None and process.returncode != expect:
            raise SystemExit(f"FAILED: exit code {process.returncode} instead of {expect}\n{said}")
        return said

    def runs(self, name: str) -> Path:
        """A host's folder `runs`, as it is seen from outside."""
        return self.folder / "runs" if self._shares_runs else self.folder / name / "runs"

    def cut(self, name: str) -> None:
        """Pull a host's cable: nobody is told, packets go nowhere."""
        _quietly(self.inside("switch", f"ip link set {name} down"))
        print(f"# the link of {name} is cut", flush=True)

    def join(self, name: str) -> None:
        """Put the cable back."""
        _quietly(self.inside("switch", f"ip link set {name} up"))
        print(f"# the link of {name} is back", flush=True)

    def processes(self, name: str) -> list[str]:
        """The command lines of what runs on a host and was not there from the start."""
        said = _quietly(self.inside(name, "ps -e -o stat=,args="))
        found = [line.split(maxsplit=1)[1] for line in said.splitlines() if not line.startswith("Z")]
        return [line for line in found if not any(own in line for own in _MINE)]

    def wait_until_idle(self, name: str, timeout_s: float) -> tuple[float, list[str]]:
        """How long it took until a host had nothing left to do, and what it still does after the time limit."""
        began_s = time.monotonic()
        while self.processes(name) and time.monotonic() - began_s < timeout_s:
            time.sleep(0.25)
        return time.monotonic() - began_s, self.processes(name)

    def _begin(self, name: str) -> None:
        """Make a host that has no network yet."""
        mounts = {
            "/etc/hosts": self.folder / "hosts",
            "/etc/ssh/ssh_config": self.folder / "ssh_config",
            str(stage.ROOT / "runs"): self.runs(name),
        }
        steps = [f"mount --bind {source} {shlex.quote(target)}" for target, source in mounts.items()]
        steps += ["mount -t tmpfs none /dev/shm", "mount -t tmpfs none /run", "mkdir /run/sshd", "ip link set lo up"]
        self._keep(name, _apart(f"hostname {name}; {'; '.join(steps)}"))

    def _join_by_bridge(self) -> None:
        self._keep("switch", _apart("ip link add bridge type bridge; ip link set bridge up"))
        for name in self.names:
            host, switch = (str(self._first[one].pid) for one in (name, "switch"))
            _quietly(["ip", "link", "add", name, "netns", switch, "type", "veth", "peer", "eth0", "netns", host])
            _quietly(self.inside("switch", f"ip link set {name} master bridge; ip link set {name} up"))

    def _keep(self, name: str, words: list[str]) -> None:
        """Start a program that says when it is ready, and ends when what it reads from does."""
        first = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._first[name] = first
        if first.stdout is None or first.stdout.readline() != "ready\n":
            raise SystemExit(f"FAILED: {name} does not come up; is the kernel without namespaces, or /dev/net/tun?")

    def _write_files(self) -> None:
        """Names, keys that only these hosts know, and what ssh and sshd need to use them."""
        folder = self.folder
        addresses = [(f"{_NETWORK}.{number}", name) for number, name in enumerate(self.names, start=1)]
        lines = [f"{address} {name}\n" for address, name in [("127.0.0.1", "localhost"), *addresses]]
        (folder / "hosts").write_text("".join(lines), encoding="utf-8")
        for name in ("user", *self.names):
            (folder / name).mkdir()
            _quietly(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name / "key")])
        known = [f"{name},{address} {(folder / name / 'key.pub').read_text()}" for address, name in addresses]
        (folder / "known_hosts").write_text("".join(known), encoding="utf-8")
        (folder / "ssh_config").write_text(
            f"Host *\n IdentityFile {folder}/user/key\n GlobalKnownHostsFile {folder}/known_hosts\n"
            f" UserKnownHostsFile none\n StrictHostKeyChecking yes\n BatchMode yes\n{self._ssh_options}",
            encoding="utf-8",
        )
        for name in self.names:
            self.runs(name).mkdir(exist_ok=True)
            (folder / name / "sshd_config").write_text(
                f"HostKey {folder}/{name}/key\nAuthorizedKeysFile {folder}/user/key.pub\nPermitRootLogin yes\n"
                f"StrictModes no\nPasswordAuthentication no\nUsePAM no\nPidFile none\n",
                encoding="utf-8",
            )


def _apart(script: str) -> list[str]:
    """The words that run a script in namespaces of its own, in which it then stays until its standard input ends."""
    spaces = ["--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *spaces, "sh", "-c", f"set -e; {script}; echo ready; while read -r _; do :; done"]


def _quietly(words: list[str]) -> str:
    """Run a command that is no part of what is shown."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"FAILED: {shlex.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout
