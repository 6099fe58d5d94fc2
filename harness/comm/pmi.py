"""The manager's side of PMI-1, by which MPICH's ranks find each other. Pure: lines in, lines out; it knows no sockets.

A rank connects to the address in `PMI_PORT`, and each line that it sends is answered by one or more lines
(`cmd=get key=a kvsname=b`, `cmd=get_result rc=0 value=c`). First it says which rank it is: `pmiid` is the number in its
`PMI_ID`, and what that means is the manager's own affair. Here it is a random number, drawn for each rank of each job,
so that a client that knows none is not taken for a rank.

Standard library alone, because `pmi_server.py` loads this file by its path.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Client = TypeVar("Client", bound=Hashable)

MAX_LINE_BYTES = 4096  # of a rank's; MPICH itself sends up to about 1400
MAX_ID = (1 << 31) - 1  # MPICH reads PMI_ID as a C int
_MAX_NAME, _MAX_KEY, _MAX_VALUE = 256, 64, 1024  # what MPICH's own manager allows
_MAX_KEYS_PER_RANK = 256
_PREDEFINED = "PMI_process_mapping"


class RefusedError(ValueError):
    """A client that is to be disconnected, without an answer."""


@dataclass(frozen=True)
class PmiJob:
    """What the manager has to know of a job.

    Attributes:
        name: of its key-value space, new for every job: MPICH derives the names of shared memory from it.
        ids: `PMI_ID` of each rank.
        mapping: which rank is on which host, as `process_mapping` writes it; `None` lets MPICH compare host names.
    """

    name: str
    ids: tuple[int, ...]
    mapping: str | None

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.ids)


class PmiManager:
    """Answers the ranks of one job."""

    def __init__(self, job: PmiJob) -> None:
        """Nobody has connected yet."""
        self._job = job
        self._values = {} if job.mapping is None else {_PREDEFINED: job.mapping}
        self._ranks: dict[Hashable, int] = {}  # of each client that has identified itself
        self._waiting: list[Hashable] = []  # clients at the barrier
        self._finalized: set[Hashable] = set()

    @property
    def is_complete(self) -> bool:
        """Whether every rank has connected."""
        return len(self._ranks) == self._job.size

    @property
    def is_finalized(self) -> bool:
        """Whether every rank has finished."""
        return len(self._finalized) == self._job.size

    def is_rank(self, client: Hashable) -> bool:
        """Whether a client has identified itself."""
        return client in self._ranks

    def answer(self, client: Client, line: str) -> list[tuple[Hashable, str]]:
        """What to send after a client has sent a line: pairs of a client and a line.

        Raises:
            RefusedError: if the client is no rank of this job, or does not speak PMI-1.
        """
        words = _parse(line)
        command = words.get("cmd", "")
        if client not in self._ranks:
            if command != "initack":
                raise RefusedError("it has not identified itself")
            return [(client, answer) for answer in self._identify(client, words)]
        if command == "barrier_in":
            return self._wait(client)
        return [(client, self._reply(client, command, words))]

    def _identify(self, client: Hashable, words: dict[str, str]) -> list[str]:
        text = words.get("pmiid", "")
        ids = [str(number) for number in self._job.ids]
        if text not in ids or ids.index(text) in self._ranks.values():
            raise RefusedError("it has the number of no rank, or of one that is already connected")
        rank = self._ranks[client] = ids.index(text)
        return ["cmd=initack rc=0", f"cmd=set size={self._job.size}", f"cmd=set rank={rank}", "cmd=set debug=0"]

    def _wait(self, client: Hashable) -> list[tuple[Hashable, str]]:
        if client in self._waiting:
            raise RefusedError("it is already at the barrier")
        self._waiting.append(client)
        if len(self._waiting) < self._job.size:
            return []
        released, self._waiting = self._waiting, []
        return [(one, "cmd=barrier_out rc=0") for one in released]

    def _reply(self, client: Hashable, command: str, words: dict[str, str]) -> str:
        match command:
            case "init":
                return "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0"
            case "get_maxes":
                return f"cmd=maxes rc=0 kvsname_max={_MAX_NAME} keylen_max={_MAX_KEY} vallen_max={_MAX_VALUE}"
            case "get_appnum":
                return "cmd=appnum rc=0 appnum=0"
            case "get_my_kvsname":
                return f"cmd=my_kvsname rc=0 kvsname={self._job.name}"
            case "get_universe_size":
                return f"cmd=universe_size rc=0 size={self._job.size}"
            case "put":
                return f"cmd=put_result {self._put(words)}"
            case "get":
                value = self._values.get(words.get("key", ""))
                return "cmd=get_result " + (f"rc=0 msg=success value={value}" if value else "rc=-1 msg=key_not_found")
            case "finalize":
                self._finalized.add(client)
                return "cmd=finalize_ack rc=0"
        raise RefusedError("it does not speak PMI-1, or wants what is not served (spawn, publish_name)")

    def _put(self, words: dict[str, str]) -> str:
        key, value = words.get("key", ""), words.get("value", "")
        is_full = len(self._values) >= _MAX_KEYS_PER_RANK * self._job.size
        if words.get("kvsname") != self._job.name or key in self._values or is_full:
            return "rc=-1 msg=refused"
        if not 0 < len(key) <= _MAX_KEY or not 0 < len(value) <= _MAX_VALUE:
            return "rc=-1 msg=too_long"
        self._values[key] = value
        return "rc=0 msg=success"


def process_mapping(hosts: Sequence[str]) -> str | None:
    """Which rank is on which host, as MPICH's `PMI_process_mapping`; `None` if that is too long for a value.

    Args:
        hosts: of each rank, in any words that are the same for the ranks of one host.

    >>> process_mapping(["a", "a", "b", "b", "c"])  # from host 0 on, 2 hosts of 2 ranks; from host 2 on, 1 of 1
    '(vector,(0,2,2),(2,1,1))'
    """
    numbers = {host: number for number, host in enumerate(dict.fromkeys(hosts))}
    blocks: list[list[int]] = []  # first host, number of hosts, ranks on each
    runs: list[list[int]] = []  # host, ranks that stand beside each other
    for host in hosts:
        if runs and runs[-1][0] == numbers[host]:
            runs[-1][1] += 1
        else:
            runs.append([numbers[host], 1])
    for host_number, count in runs:
        if blocks and host_number == blocks[-1][0] + blocks[-1][1] and count == blocks[-1][2]:
            blocks[-1][1] += 1
        else:
            blocks.append([host_number, 1, count])
    text = f"(vector,{','.join('({},{},{})'.format(*block) for block in blocks)})"
    return text if len(text) < _MAX_VALUE else None


def shared_memory_pattern(name: str) -> str:
    """The files in /dev/shm that MPICH makes for the ranks of a job: named after the FNV-1a hash of its name.

    >>> shared_memory_pattern("hello")
    'mpich_shm_4f9f2cab_*'
    """
    number = 2166136261
    for byte in name.encode():
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    return f"mpich_shm_{number:x}_*"


def _parse(line: str) -> dict[str, str]:
    """The words of a line by their names; the last one may contain spaces.

    Raises:
        RefusedError: if there are words without a name.
    """
    words = {}
    pairs = line.split(" ")
    while pairs:
        name, found, value = pairs.pop(0).partition("=")
        if name == "value":  # MPICH puts it last
            value, pairs = " ".join([value, *pairs]), []
        if name and not found:
            raise RefusedError("words without a name")
        if name:
            words[name] = value
    return words
