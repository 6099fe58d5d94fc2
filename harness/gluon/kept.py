"""What a learner keeps: its state, saved, restored, compared and given to other ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.checkpoint.matching import Matched
from harness.comm import World
from harness.data import GlobalBatch
from harness.gluon.average import WeightAverage
from harness.gluon.control import PendingUpdate
from harness.gluon.recompute import Recomputing
from harness.gluon.state import LearnerState
from harness.gluon.state_keeper import StateKeeper, settle_lost
from harness.gluon.weights import choose_weights, write_params
from harness.model.parameters import held


class KeepsState(ABC):
    """A learner as far as its state is concerned.

    Attributes:
        world: the ranks.
        parameters: the network's parameters by structural name.
    """

    world: World
    parameters: dict[str, Any]
    _contexts: list[Any]
    _keeper: StateKeeper
    _is_shared: bool
    _pending: PendingUpdate | None
    _average: WeightAverage | None
    _recomputing: Recomputing
    _is_updating: bool

    @abstractmethod
    def check_pending(self) -> None:
        """Check the last update where its check was put off; call it before the weights are used for anything."""

    @abstractmethod
    def _totals_of(self, batch: GlobalBatch) -> Mapping[str, float] | None:
        """Of a global batch, for a loss that is told them; then a collective."""

    @abstractmethod
    def describe_parameters(self) -> list[str]:
        """A sentence for each parameter, with name, shape and dtype: what must be the same on every rank."""

    def enter(self, world: World) -> None:
        """Share the shards with the ranks of another world; an update that was under way has not been.

        The network, its graphs and the state stay as they are. Ranks have yet to see to it that they have one state.
        """
        settle_lost()
        is_broken, self._is_updating, self._pending = self._is_updating, False, None
        self.world = world
        self._deal(world, is_broken=is_broken)

    @abstractmethod
    def _deal(self, world: World, *, is_broken: bool) -> None:
        """Take other shards; `is_broken` where sums of an update have been begun and not finished."""

    def check_weights(self, t: int) -> None:
        """Raise `DivergedError` if update `t` made anything of the state not finite, on every rank alike.

        Where state is carried this is a collective, and gathers it.
        """
        self.check_pending()
        self._keeper.gather()
        self._keeper.refuse_not_finite(t)

    def gather_state(self) -> None:
        """Let this rank know the states that the shards of others carry (`network.state`); a collective.

        After an update every rank calls it before any calls `snapshot` or `digest`. It does nothing where nothing is
        carried, or where one rank has all shards.
        """
        self._keeper.gather()

    def snapshot(self, reuse: LearnerState | None = None) -> LearnerState:
        """The whole state, on the host; written over an earlier snapshot that nobody needs any more."""
        self.check_pending()
        return self._keeper.snapshot(reuse)

    def numbers(self) -> dict[str, Any]:
        """Scalars that belong to the state."""
        return self._keeper.numbers()

    def mismatches(self, state: LearnerState) -> list[str]:
        """Every array by which a state does not fit, a sentence each."""
        return self._keeper.mismatches(state)

    def restore(self, state: LearnerState) -> None:
        """Put a state back, bit for bit."""
        if self.world.membership is not None:
            settle_lost()
        self._pending, self._is_updating = None, False
        self._keeper.restore(state)

    def digest(self) -> str:
        """sha256 of the whole state; equal on every rank."""
        self.check_pending()
        return self._keeper.digest()

    def checksums(self) -> dict[str, int]:
        """A CRC-32 of every parameter, running statistic and optimizer array by name; equal on every rank."""
        self.check_pending()
        return self._keeper.checksums()

    @property
    def has_average(self) -> bool:
        """Whether there is an average of the weights by now; the same on every rank."""
        return bool(self._keeper.averages)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The average in place of weights and statistics until the block ends; bit for bit what they were then."""
        self.check_pending()
        own = self._keeper.current()
        # copies, because MXNet takes an array over as it is, after which nobody may write to it
        self._keeper.write({name: array.copy() for name, array in self._keeper.averages.items()})
        try:
            yield
        finally:
            self._keeper.write(own)

    def recompute_statistics(
        self, stream: Callable[[int], GlobalBatch], count: int, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Recompute the running statistics of batch normalisations for the average; a collective.

        They become the mean over all shards of `count` global batches. It does nothing where `Averaging.statistics`
        does not ask for it, where it was done since the average's last update, and without batch normalisation.

        Args:
            stream: gives this rank's part of global batch t; those from 1 on are read, whatever was trained on.
            count: of global batches.
            stop: is asked with every batch.

        Returns:
            Whether the average has its statistics; if not, any rank was told to stop, and nothing has changed.

        Raises:
            DivergedError: on every rank, if they are not finite.
        """
        average = self._average
        if average is None or not average.wants_statistics:
            return True
        found: dict[str, Any] | None = {}
        if self._recomputing.shares:
            with self.averaged():
                found = self._recomputing(stream, count, self._totals_of, stop)
        if found is None:
            return False
        average.take_statistics(found)
        return True

    def save_weights(self, path: Path) -> None:
        """Write weights and running statistics as a Gluon `.params` file."""
        self.check_pending()
        write_params(path, {name: held(parameter, self._contexts[0]) for name, parameter in self.parameters.items()})

    def load_weights(self, path: str, policy: str = "all") -> Matched:
        """Take weights and statistics from a file or checkpoint (`find_weights`), if as much fits as `accept` wants.

        Raises:
            CheckpointError: if it cannot be read or does not fit; nothing has been changed then.
        """
        matched, arrays = choose_weights(path, self.parameters, self._contexts[0], policy)
        self._keeper.write(arrays)
        return matched

    def ensure_shared(self) -> None:
        """Compare the ranks' networks and give them rank 0's weights, unless that was done; called by every rank.

        The first update does it, as does whatever else needs equal weights: `predict`, `evaluate`, `find_lr`.

        Raises:
            DisagreementError: if the ranks' networks differ in names, shapes or dtypes.
        """
        if not self._is_shared:
            self.broadcast_weights()

    def broadcast_weights(self, *, compared: bool = False) -> None:
        """Give every rank the weights and running statistics of rank 0; the first time, compare the networks before.

        Args:
            compared: whether the caller has compared what `describe_parameters` says on the ranks.
        """
        self._compare_once(compared)
        if self.world.size > 1:
            self._keeper.share_parameters(self.world)

    def broadcast_state(self, *, compared: bool = False, root: int = 0) -> None:
        """Give every rank the whole state of one; the first time, compare the networks before.

        Args:
            compared: as for `broadcast_weights`.
            root: whose state.
        """
        self._compare_once(compared)
        if self.world.size > 1:
            self._keeper.share_state(self.world, root)

    def _compare_once(self, compared: bool) -> None:
        """Compare what broadcasts rely on: between different shapes a broadcast would hang, or give nonsense."""
        if not (self._is_shared or compared):
            facts = {"parameters": self.describe_parameters()}
            self.world.must_be_equal("parameters", facts, "build the same network on every rank")
        self._is_shared = True
