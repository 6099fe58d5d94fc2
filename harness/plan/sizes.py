"""The numbers that durations, shards and learning rates are measured by, once the configuration meets the data."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from harness.config import Problem, RunConfig, TrainConfig, config_error
from harness.config.values import MOST
from harness.data.batching import Batching
from harness.errors import ConfigError, DataError
from harness.schedules import Frame
from harness.units import Duration, round_position


@dataclass(frozen=True)
class Sizes:
    """The numbers that durations are measured by.

    Attributes:
        batching: the geometry of the batches: samples, shards, iterations in an epoch.
        num_iterations: updates in the run.
        tokens_per_sample: tokens in every sample, where the configuration says so.
    """

    batching: Batching
    num_iterations: int
    tokens_per_sample: int | None = None

    @property
    def num_samples(self) -> int:
        """Training samples."""
        return self.batching.num_samples

    @property
    def shards(self) -> int:
        """S, shards in a global batch."""
        return self.batching.shards

    @property
    def batch_size(self) -> int:
        """b, samples in a shard."""
        return self.batching.batch_size

    @property
    def global_batch(self) -> int:
        """Samples in a global batch."""
        return self.batching.global_batch

    @property
    def iterations_per_epoch(self) -> int:
        """Updates in an epoch."""
        return self.batching.iterations_per_epoch

    @classmethod
    def of(
        cls,
        train: TrainConfig,
        *,
        num_samples: int,
        shards: int,
        batch_size: int,
        num_batches: int | None = None,
        source: str = "config",
    ) -> Sizes:
        """Count the iterations; an epoch's remainder is dropped, or kept as one smaller batch.

        Args:
            train: the length of the run.
            num_samples: training samples.
            shards: of a global batch.
            batch_size: samples of a shard.
            num_batches: global batches in an epoch, where `data.batches` says which they are.
            source: the configuration's file, for messages.

        Raises:
            ConfigError: if there are fewer samples than one global batch, or more iterations than can be counted.
        """
        try:
            batching = Batching(num_samples, shards, batch_size, train.last_batch, num_batches)
        except DataError as error:
            raise config_error(source, [Problem(("batch",), str(error))]) from None
        per_epoch = batching.iterations_per_epoch
        total = train.iterations if train.iterations is not None else (train.epochs or 0) * per_epoch
        if total > MOST:
            found = f"{train.epochs} epochs of {per_epoch} iterations are {total:,} iterations"
            message = f"{found}; at most {MOST:,} are possible; lower train.epochs"
            raise config_error(source, [Problem(("train", "epochs"), message)])
        return cls(batching, total, train.tokens_per_sample)

    def with_train(self, train: TrainConfig, source: str) -> Sizes:
        """The sizes of the same data, shards and batches for another section `train`.

        Raises:
            ConfigError: as `of` does.
        """
        return Sizes.of(
            train,
            num_samples=self.num_samples,
            shards=self.shards,
            batch_size=self.batch_size,
            num_batches=self.batching.num_batches,
            source=source,
        )

    def to_json(self) -> dict[str, int]:
        """The five numbers, by name, as manifests, `plan.json` and fingerprints hold them; a sixth for own batches."""
        own = self.batching.num_batches
        return {
            "num_samples": self.num_samples,
            "shards": self.shards,
            "batch_size": self.batch_size,
            "iterations_per_epoch": self.iterations_per_epoch,
            "num_iterations": self.num_iterations,
            **({} if own is None else {"own_batches": own}),
        }

    def epoch(self, t: int) -> int:
        """The epoch of iteration `t`; both count from 1, and before the first update both are 0."""
        return self.batching.epoch(t) if t else 0

    @property
    def samples_per_iteration(self) -> Fraction | None:
        """Samples in an update, on the average of an epoch; `None` for batches of the user's own."""
        batching = self.batching
        if batching.num_batches is not None:
            return None
        dropped = batching.num_samples % batching.global_batch if batching.last_batch == "drop" else 0
        return Fraction(batching.num_samples - dropped, batching.iterations_per_epoch)

    @property
    def tokens_per_iteration(self) -> Fraction | None:
        """Tokens in an update, likewise; `None` where a sample has no fixed number of them."""
        samples = self.samples_per_iteration
        return None if samples is None or self.tokens_per_sample is None else samples * self.tokens_per_sample

    def frame(self, span: int, x: float, stretch: Fraction = Fraction(1)) -> Frame:
        """What a schedule of this run is built with; see `Frame`."""
        samples, tokens = self.samples_per_iteration, self.tokens_per_iteration
        return Frame(self.iterations_per_epoch, span, x, stretch, samples, tokens)

    def iterations(self, duration: Duration, stretch: Fraction = Fraction(1)) -> int:
        """A duration of the run in whole iterations.

        Args:
            duration: as it was written.
            stretch: what it is multiplied by, unless it is a part of the run.
        """
        return round_position(self.frame(self.num_iterations, 1.0, stretch).exact(duration))


def count_workers(config: RunConfig, ranks: int) -> int:
    """How many workers process shards: the ranks, or the devices of one process.

    Raises:
        ConfigError: if several ranks were given the same devices.
    """
    if config.devices is None:
        return ranks
    if ranks > 1:
        raise (
            ConfigError(
                f"devices: [{', '.join(config.devices)}] is for one process, but there are {ranks} ranks, "
                "each of which takes the device of its number on its host; remove devices, or start one process"
            )
            .found_in(config.source)
            .on_all_ranks()
        )
    return len(config.devices)


def resolve_shards(config: RunConfig, workers: int) -> int:
    """S for a new run: `batch.shards`, or the number of workers where it is null.

    Raises:
        ConfigError: if there are fewer shards than workers.
    """
    shards = config.batch.shards or workers
    if shards < workers:
        raise ConfigError(
            f"batch.shards: {shards} shards are too few for {workers} workers, each of which processes at least one; "
            f"start {at_most(shards)}, or set batch.shards to {workers} or more"
        ).found_in(config.source)
    return shards


def at_most(workers: int) -> str:
    """A number of workers to start, in words.

    >>> at_most(1), at_most(3)
    ('one worker', 'at most 3 workers')
    """
    return "one worker" if workers == 1 else f"at most {workers} workers"


def imbalance(shards: int, workers: int) -> list[str]:
    """What it costs that the workers do not divide the shards, in a sentence; nothing where they do.

    >>> imbalance(8, 4)
    []
    >>> imbalance(8, 3)
    ['8 shards on 3 workers: an update waits for the largest share, 3 shards, so workers compute 89% of the time']
    """
    largest = -(-shards // workers)
    as_fast = -(-shards // largest)
    if shards % workers == 0:
        return []
    sentence = (
        f"{shards} shards on {workers} workers: an update waits for the largest share, {largest} shards, so workers "
        f"compute {shards / (workers * largest):.0%} of the time"
    )
    return [sentence + (f"; {as_fast} workers are as fast" if as_fast < workers else "")]
