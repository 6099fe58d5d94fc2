"""An elastic job over hosts joined by ssh: hosts that come, go, are cut off and come back, and a driver that is lost.

`python tests/clusters/elastic.py [CASE ...]`, as root, with Debian's openssh-server and iproute2; some minutes. The
hosts are namespaces of this machine (`network.py`) that share `runs/`, as they would by a shared disk, and horovodrun
is typed on `host1`. A run that is to end, ends with the bits of one process that nothing happened to.
"""

from __future__ import annotations

import json
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from following import Followed
from network import Network
from stage import check, digest

HOSTS = ("host1", "host2", "host3", "host4")
TRAIN = "python launch/train.py"
STALL_S = 10
OPTIONS = (
    "--config configs/digits.yaml --set batch.shards=4 --set 'train={iterations: 5000}' --set evaluation.every=null "
    f"--set checkpoint.every=1000it --set log.every=100it --set guard.stall_after_s={STALL_S}"
)
# what a host that vanishes without a word has to be noticed by, see docs/elastic.md
KEEP_ALIVE = " ServerAliveInterval 3\n ServerAliveCountMax 2\n"


class Job(Followed):
    """An elastic job, started on `host1`."""

    def __init__(self, network: Network, name: str, hosts: Sequence[str], more: str = "") -> None:
        """Start it with one worker on each of these hosts."""
        self.network, self.name = network, name
        self._hosts = network.folder / f"{name}.hosts"
        script = network.folder / f"{name}.sh"
        script.write_text(f"#!/bin/sh\nexec cat {self._hosts}\n", encoding="utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        self.find(*hosts)
        driver = f"horovodrun -np {len(hosts)} --min-np 1 --max-np 4 --network-interface eth0"
        driver += f" --host-discovery-script {script} --elastic-timeout 30"
        self.process = network.start("host1", f"{driver} {TRAIN} --set name={name} {OPTIONS} {more}")
        super().__init__(network.runs("host1") / name, lambda: self.process.poll() is not None, self._end)

    def find(self, *hosts: str) -> None:
        """Let the discovery script find these hosts."""
        fresh = self._hosts.with_suffix(".new")
        fresh.write_text("".join(f"{host}:1\n" for host in hosts), encoding="utf-8")
        fresh.replace(self._hosts)
        print(f"# there are {', '.join(hosts)}", flush=True)

    def host_of_rank_0(self) -> str:
        """Which host holds rank 0 of the first world: Horovod takes hosts in no particular order."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and f"name={self.name}\0".encode() in (entry / "cmdline").read_bytes():
                    environ = (entry / "environ").read_bytes().split(b"\0")
                    if b"HOROVOD_RANK=0" in environ:
                        return next(one for one in self.network.names if f"HOROVOD_HOSTNAME={one}".encode() in environ)
        raise SystemExit("FAILED: there is no rank 0")

    def ends(self, unbroken: str) -> None:
        """Wait for its end, and compare it with a run that nothing happened to."""
        said = self.network.finish(self.process)
        check("its digest is the unbroken run's", digest(said) == unbroken)
        self.has_metrics_of(self.folder.with_name("unbroken"))

    def _end(self) -> str:
        self.process.kill()
        return self.process.communicate()[0]


def ranks_left(network: Network, host: str) -> list[str]:
    """Workers that live on a host."""
    return [line for line in network.processes(host) if line.startswith(TRAIN)]


def wait_until_no_rank(network: Network, host: str, limit_s: float = 120.0) -> float:
    """Wait until no worker is left on a host; returns how long that took."""
    began_s = time.monotonic()
    while ranks_left(network, host):
        if time.monotonic() - began_s > limit_s:
            raise SystemExit(f"FAILED: after {limit_s:g} s there is still {ranks_left(network, host)} on {host}")
        time.sleep(0.1)
    return time.monotonic() - began_s


def hosts_come_and_go(network: Network, unbroken: str) -> None:
    job = Job(network, "come-and-go", ["host1", "host2"])
    job.wait_until(500)
    job.find("host1", "host2", "host3")
    job.wait_for_change(1, 3)
    job.find("host1", "host3")
    job.wait_for_change(2, 2)
    wait_until_no_rank(network, "host2", 10)
    job.find("host1", "host3", "host4")
    job.wait_for_change(3, 3)
    job.ends(unbroken)


def a_host_is_cut_off(network: Network, unbroken: str) -> None:
    """For good, and it is neither the driver's nor that of rank 0; another one takes its place."""
    job = Job(network, "cut", ["host1", "host2", "host3"])
    job.wait_until(200)
    victim = next(host for host in ("host2", "host3") if host != job.host_of_rank_0())
    network.cut(victim)
    job.wait_for_change(1, 2)
    print(f"# {wait_until_no_rank(network, victim):.1f} s later no rank is left on {victim}", flush=True)
    job.find(*{"host1", "host2", "host3", "host4"} - {victim})
    job.wait_for_change(2, 3)
    job.ends(unbroken)
    network.join(victim)


def the_host_of_rank_0_is_cut_off(network: Network, unbroken: str) -> None:
    """The driver is on another one; and then the link is back."""
    job = Job(network, "cut-0", ["host2", "host3"])
    job.wait_until(200)
    victim = job.host_of_rank_0()
    network.cut(victim)
    job.wait_for_change(1, 1)
    network.join(victim)
    print(f"# {wait_until_no_rank(network, victim):.1f} s after the link was back {victim} has no rank", flush=True)
    job.ends(unbroken)


def the_drivers_host_is_cut_off(network: Network, unbroken: str) -> None:
    """Its worker goes on alone; those of the other hosts end."""
    job = Job(network, "cut-driver", ["host1", "host2", "host3"])
    job.wait_until(200)
    network.cut("host1")
    job.wait_for_change(1, 1)
    for host in ("host2", "host3"):
        print(f"# {wait_until_no_rank(network, host):.1f} s later no rank is left on {host}", flush=True)
    network.join("host1")
    job.ends(unbroken)


def the_driver_is_killed(network: Network, unbroken: str) -> None:
    """Then no worker goes on, and another start resumes what they have saved."""
    job = Job(network, "no-driver", ["host2", "host3"])
    job.wait_until(200)
    network.run("host1", "pkill -KILL -f 'bin/[h]orovodrun'", expect=None, quiet=True)
    for host in ("host2", "host3"):
        print(f"# {wait_until_no_rank(network, host):.1f} s later no rank is left on {host}", flush=True)
    print(job.process.communicate(timeout=60)[0])
    outcome = json.loads((job.folder / "outcome.json").read_text(encoding="utf-8"))
    print(f"# {outcome['cause']}")
    check("they have saved, and ended with 75", outcome["exit_code"] == 75)
    again = Job(network, "no-driver", ["host1", "host4"], "--resume auto")
    again.ends(unbroken)


def ssh_that_does_not_notice(network: Network, unbroken: str) -> None:
    """Without `KEEP_ALIVE` a host is cut off, and the link is back only when the others are done."""
    config = network.folder / "ssh_config"
    config.write_text(config.read_text(encoding="utf-8").replace(KEEP_ALIVE, ""), encoding="utf-8")
    job = Job(network, "unnoticed", ["host1", "host2", "host3"])
    job.wait_until(200)
    victim = next(host for host in ("host2", "host3") if host != job.host_of_rank_0())
    network.cut(victim)
    job.wait_for_change(1, 2)
    job.wait_until(5000)
    time.sleep(30)
    check("horovodrun waits for the one that is cut off", job.process.poll() is None)
    network.join(victim)
    job.ends(unbroken)
    config.write_text(f"{config.read_text(encoding='utf-8')}{KEEP_ALIVE}", encoding="utf-8")


CASES = {
    case.__name__: case
    for case in (
        hosts_come_and_go,
        a_host_is_cut_off,
        the_host_of_rank_0_is_cut_off,
        the_drivers_host_is_cut_off,
        the_driver_is_killed,
        ssh_that_does_not_notice,
    )
}


def main(names: Sequence[str]) -> None:
    with Network(*HOSTS, shares_runs=True, ssh_options=KEEP_ALIVE) as network:
        unbroken = digest(network.run("host1", f"{TRAIN} --set name=unbroken {OPTIONS}"))
        for name in names or CASES:
            print(f"# {name.replace('_', ' ')}", flush=True)
            CASES[name](network, unbroken)
            for host in network.names:
                check(f"nothing is left running on {host}", not network.wait_until_idle(host, 30)[1])
    print(f"{len(names or CASES)} passed, 0 failed")


if __name__ == "__main__":
    main(sys.argv[1:])
