"""Ranks that `horovodrun` started: all sum by MPI if all can, else all by Horovod.

horovodrun tells MPI nothing of its ranks. So rank 0 starts a server of PMI-1 (`pmi_process.py`), MPICH's own way to let
ranks find each other, and every rank is told its address and its own number there. Before that, each rank offers what
it can do, and rank 0 chooses; both go through the launcher's key-value server (`launcher_store.py`). Where MPI is used,
Horovod is not initialised: nobody would need it, and its thread wakes up every millisecond.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.comm.addresses import LOOPBACK
from harness.comm.compare import name_ranks
from harness.comm.launcher import Launch
from harness.comm.launcher_store import LauncherStore, open_launcher_store
from harness.comm.mpi import MpiWorld, library_of, load_mpi
from harness.comm.pmi import MAX_ID, PmiJob, process_mapping
from harness.comm.pmi_process import PmiProcess
from harness.comm.routes import choose_route, interfaces, listen_at, reachable_addresses, routes_to
from harness.comm.world import World
from harness.errors import ConfigError, LostRankError
from harness.processes import memory_id

T = TypeVar("T")
WISHES = ("auto", "mpi", "horovod")
_SCOPE, _ROOT, _CHOICE = "harness-mpi", "root", "choice"
_MAX_BYTES = 10_000  # of what one rank says
_MAX_CHOICE_BYTES = 1 << 20  # a number and an address for each rank
_INFINIBAND = Path("/sys/class/infiniband")


@dataclass(frozen=True)
class Offer:
    """What a rank can do.

    Attributes:
        wish: what it was told to use, one of `WISHES`.
        library: its MPI library, such as `MPICH 5.0.2`.
        obstacle: why it cannot be in an MPI world; empty if it can.
        memory: the same for ranks that can share memory.
        routes: the addresses of rank 0 that it reaches, and its own address on the route to each.
    """

    wish: str
    library: str = ""
    obstacle: str = ""
    memory: str = ""
    routes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def decode(cls, text: bytes) -> Offer:
        """The offer that a rank has stored.

        Raises:
            LostRankError: if it is none.
        """

        def is_valid(offer: Offer) -> bool:
            texts = [offer.library, offer.obstacle, offer.memory, *offer.routes, *offer.routes.values()]
            return offer.wish in WISHES and all(isinstance(text, str) for text in texts)

        return _decode(text, lambda found: cls(**found), is_valid)


@dataclass(frozen=True)
class Choice:
    """What rank 0 has chosen for all.

    Attributes:
        obstacle: why it is not MPI; empty if it is.
        is_refused: whether all ranks were told to use MPI, and so cannot use Horovod instead.
        is_as_told: whether all ranks were told to use Horovod.
        ids: `PMI_ID` of each rank.
        ports: the server's address and port, as `PMI_PORT`, for each rank.
    """

    obstacle: str = ""
    is_refused: bool = False
    is_as_told: bool = False
    ids: Sequence[int] = ()
    ports: Sequence[str] = ()

    @classmethod
    def decode(cls, text: bytes, size: int) -> Choice:
        """The choice that rank 0 has stored for so many ranks.

        Raises:
            LostRankError: if it is none.
        """

        def is_valid(choice: Choice) -> bool:
            is_for_all = len(choice.ids) == len(choice.ports) == (0 if choice.obstacle else size)
            texts = [choice.obstacle, *choice.ports]
            return is_for_all and all(type(one) is int for one in choice.ids) and all(type(one) is str for one in texts)

        return _decode(text, lambda found: cls(**found), is_valid)


class HorovodrunWorld(MpiWorld):
    """The ranks that `horovodrun` started, as an MPI world."""

    def __init__(self, launch: Launch, server: PmiProcess | None) -> None:
        """Join the job; the server is rank 0's, and needed until the process ends."""
        super().__init__(launch)
        self._server = server
        self.kind += ", started by horovodrun"


def connect_ranks(launch: Launch, wish: str, use_horovod: Callable[[], World]) -> World:
    """Join the other ranks, by MPI if all can and none was told otherwise; a collective.

    Args:
        launch: of a rank that horovodrun started.
        wish: what this rank was told to use, one of `WISHES`; ranks may differ, because only ranks that are connected
            can find out that their configurations do.
        use_horovod: joins by Horovod.

    Raises:
        ConfigError: if all were told to use MPI, and it is impossible.
        LostRankError: if the ranks cannot be connected.
    """
    store = open_launcher_store(os.environ, _SCOPE)
    if launch.is_elastic or store is None:
        reason = "the job is elastic" if store else "HOROVOD_GLOO_RENDEZVOUS_ADDR does not name horovodrun's server"
        choice = Choice(reason, is_refused=wish == "mpi", is_as_told=wish == "horovod")
        return _without_mpi(choice, use_horovod)
    meeting = _Meeting(launch, store, wish)
    choice = meeting.agree()
    world: World | None = None
    if not choice.obstacle:
        try:
            world = meeting.connect(choice)
        except ConfigError as error:
            choice = Choice(str(error), is_refused=wish == "mpi")
    world = world or _without_mpi(choice, use_horovod)
    meeting.leave()
    return world


def find_obstacle(offers: Sequence[Offer]) -> str:
    """Why ranks with these offers cannot be an MPI world; empty if they can.

    >>> find_obstacle([Offer("auto", "MPICH 5.0.2"), Offer("mpi", "MPICH 5.0.2")])
    ''
    >>> find_obstacle([Offer("auto", "MPICH 5.0.2"), Offer("auto", obstacle="there is no MPI library")])
    'rank 1: there is no MPI library'
    """
    told = [rank for rank, offer in enumerate(offers) if offer.wish == "horovod"]
    if told:
        return f"{name_ranks(told)} {'use' if len(told) > 1 else 'uses'} Horovod"
    ranks_of: dict[str, list[int]] = {}
    for rank, offer in enumerate(offers):
        if offer.obstacle:
            ranks_of.setdefault(offer.obstacle, []).append(rank)
    if ranks_of:
        is_alike = len(ranks_of) == 1 and len(*ranks_of.values()) == len(offers)
        return "; ".join(text if is_alike else f"{name_ranks(ranks)}: {text}" for text, ranks in ranks_of.items())
    libraries = sorted({offer.library for offer in offers})
    return f"the ranks have different MPI libraries: {', '.join(libraries)}" if len(libraries) > 1 else ""


class _Meeting:
    """The ranks of one job while they agree on what to use."""

    def __init__(self, launch: Launch, store: LauncherStore, wish: str) -> None:
        self._launch, self._store, self._wish = launch, store, wish
        self._server: PmiProcess | None = None

    def agree(self) -> Choice:
        """Say what this rank can do, and learn what rank 0 has chosen."""
        launch, store = self._launch, self._store
        obstacle, library = ("", "") if self._wish == "horovod" else _find_library(launch)
        is_able = self._wish != "horovod" and not obstacle
        if launch.rank == 0:
            listeners = listen_at(_addresses(launch)) if is_able else {}
            ports = {address: listener.getsockname()[1] for address, listener in listeners.items()}
            if listeners:
                self._server = PmiProcess(list(listeners.values()))
            elif is_able:
                obstacle = "no address of its host can be listened at (HOROVOD_GLOO_IFACE names the interface)"
            store.put(_ROOT, json.dumps(ports).encode())
        else:
            ports = _decode(store.wait(_ROOT, _MAX_BYTES), dict, _are_ports)
        routes = routes_to(ports) if is_able else {}
        if is_able and ports and not routes:
            obstacle = f"rank 0 does not answer at {', '.join(f'{name}:{port}' for name, port in ports.items())}"
        offer = Offer(self._wish, library, obstacle, memory_id(), routes)
        store.put(f"rank-{launch.rank}", json.dumps(asdict(offer)).encode())
        if launch.rank > 0:
            return Choice.decode(store.wait(_CHOICE, _MAX_CHOICE_BYTES), launch.size)
        offers = [Offer.decode(store.wait(f"rank-{rank}", _MAX_BYTES)) for rank in range(launch.size)]
        choice = self._choose(offers, ports)
        store.put(_CHOICE, json.dumps(asdict(choice)).encode())
        return choice

    def connect(self, choice: Choice) -> MpiWorld:
        """Become an MPI world.

        Raises:
            ConfigError: if the library does not find the others.
            LostRankError: if it says that it failed.
        """
        rank = self._launch.rank
        try:
            with _environment(choice.ports[rank], choice.ids[rank], self._launch):
                return HorovodrunWorld(self._launch, self._server)
        except ConfigError:  # the library has not asked the server
            self._end_server()
            raise

    def leave(self) -> None:
        """Remove what this rank has stored: all ranks are connected, so they have read it."""
        for key in [f"rank-{self._launch.rank}", *([_ROOT, _CHOICE] if self._launch.rank == 0 else [])]:
            self._store.delete(key)

    def _choose(self, offers: Sequence[Offer], ports: dict[str, int]) -> Choice:
        obstacle = find_obstacle(offers)
        if obstacle or self._server is None:
            self._end_server()
            wishes = {offer.wish for offer in offers}
            return Choice(obstacle, is_refused=wishes == {"mpi"}, is_as_told=wishes == {"horovod"})
        routes = [offer.routes for offer in offers]
        chosen = [choose_route(list(ports), routes, rank) for rank in range(len(offers))]
        ids: dict[int, None] = {}
        while len(ids) < len(offers):
            ids[1 + secrets.randbelow(MAX_ID)] = None
        job = PmiJob(f"harness_{secrets.token_hex(8)}", tuple(ids), process_mapping([one.memory for one in offers]))
        self._server.serve(job, {own for _, own in chosen})
        return Choice(ids=job.ids, ports=[f"{address}:{ports[address]}" for address, _ in chosen])

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def _without_mpi(choice: Choice, use_horovod: Callable[[], World]) -> World:
    if choice.is_refused:
        raise ConfigError(
            f"comm: mpi, but horovodrun's ranks cannot be connected by MPI: {choice.obstacle}; set comm: auto"
        ).on_all_ranks()
    world = use_horovod()
    if not choice.is_as_told:
        world.remarks.append(f"gradients are summed by Horovod and not by MPI: {choice.obstacle}")
    return world


def _find_library(launch: Launch) -> tuple[str, str]:
    """Why this rank's MPI library cannot be used, empty if it can; and its name."""
    try:
        mpi = load_mpi(launch)
    except ConfigError as error:
        return f"mpi4py finds no MPI library ({' '.join(str(error.__cause__).split())})", ""
    name = library_of(mpi)
    if mpi.get_vendor()[0] != "MPICH":
        return f"{name} cannot be told of horovodrun's ranks, as MPICH can", name
    if mpi.Is_initialized():
        return "MPI was already initialised in this process, by `import mpi4py.MPI` or by an earlier world", name
    return "", name


def _addresses(launch: Launch) -> list[str]:
    return [LOOPBACK] if launch.local_size == launch.size else reachable_addresses()


@contextmanager
def _environment(port: str, number: int, launch: Launch) -> Iterator[None]:
    """The variables that MPICH reads in `MPI_Init`, and none of another launcher; afterwards all is as before."""
    changes: dict[str, str | None] = {name: None for name in os.environ if name.startswith("PMI")}
    changes |= {"PMI_PORT": port, "PMI_ID": str(number)}
    interface = _interface(launch)
    if interface is not None:
        changes |= {name: os.environ.get(name, interface) for name in ("UCX_NET_DEVICES", "FI_TCP_IFACE")}
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _are_ports(ports: dict[Any, Any]) -> bool:
    return all(type(port) is int and 0 < port < 1 << 16 for port in ports.values())


def _interface(launch: Launch) -> str | None:
    """The one at which MPICH's ranks listen for each other; `None` leaves that to MPICH.

    On one host they need none but the loopback interface. On several it is the one that joins the hosts, by
    horovodrun's finding or the user's word, unless there may be a faster network.
    """
    if launch.local_size == launch.size:
        return dict(interfaces()).get(LOOPBACK)
    return None if _INFINIBAND.exists() else os.environ.get("HOROVOD_GLOO_IFACE")


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _decode(text: bytes, build: Callable[[Any], T], is_valid: Callable[[T], bool]) -> T:
    """What a rank has stored at the launcher's server, where anybody can write.

    Raises:
        LostRankError: if no rank can have stored that.
    """
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        found = build(json.loads(text))
        if is_valid(found):
            return found
    raise LostRankError("horovodrun's server holds what no rank has stored there")
