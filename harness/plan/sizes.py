"""The numbers that durations, shards and learning rates are measured by, once the configuration meets the data."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config import Problem, RunConfig, TrainConfig, config_error
from harness.config.values import MOST
from harness.errors import ConfigError
from harness.units import Duration, round_position


@dataclass(frozen=True)
class Sizes:
    """The numbers that durations are measured by.

    Attributes:
        num_samples: training samples.
        shards: S, shards in a global batch.
        batch_size: b, samples in a shard.
        iterations_per_epoch: updates in an epoch.
        num_iterations: updates in the run.
    """

    num_samples: int
    shards: int
    batch_size: int
    iterations_per_epoch: int
    num_iterations: int

    @property
    def global_batch(self) -> int:
        """Samples in a global batch."""
        return self.shards * self.batch_size

    @classmethod
    def of(cls, train: TrainConfig, *, num_samples: int, shards: int, batch_size: int, source: str = "config") -> Sizes:
        """Count the iterations; an epoch's remainder is dropped, or kept as one smaller batch.

        Raises:
            ConfigError: if there are fewer samples than one global batch, or more iterations than can be counted.
        """
        global_batch = shards * batch_size
        if num_samples < global_batch:
            raise config_error(
                source,
                [
                    Problem(
                        ("batch",),
                        f"a global batch is {shards} shards x {batch_size} = {global_batch} samples, but there are "
                        f"only {num_samples} training samples; lower batch.size, or use fewer shards or workers",
                    )
                ],
            )
        full, rest = divmod(num_samples, global_batch)
        per_epoch = full + (1 if rest and train.last_batch == "keep" else 0)
        total = train.iterations if train.iterations is not None else (train.epochs or 0) * per_epoch
        if total > MOST:
            found = f"{train.epochs} epochs of {per_epoch} iterations are {total:,} iterations"
            message = f"{found}; at most {MOST:,} are possible; lower train.epochs"
            raise config_error(source, [Problem(("train", "epochs"), message)])
        return cls(num_samples, shards, batch_size, per_epoch, total)

    def with_train(self, train: TrainConfig, source: str) -> Sizes:
        """The sizes of the same data, shards and batches for another section `train`.

        Raises:
            ConfigError: as `of` does.
        """
        return Sizes.of(
            train, num_samples=self.num_samples, shards=self.shards, batch_size=self.batch_size, source=source
        )

    def epoch(self, t: int) -> int:
        """The epoch of iteration `t`; both count from 1."""
        return (t - 1) // self.iterations_per_epoch + 1

    def iterations(self, duration: Duration) -> int:
        """A duration of the run in whole iterations."""
        return round_position(duration.iterations(self.iterations_per_epoch, self.num_iterations))


def count_workers(config: RunConfig, ranks: int) -> int:
    """How many play shards: the ranks, or the devices of one process.

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
        ConfigError: if the workers could not share the shards evenly.
    """
    shards = config.batch.shards or workers
    if shards % workers:
        fitting = ", ".join(str(n) for n in range(1, min(shards, 1024) + 1) if shards % n == 0)
        raise ConfigError(
            f"batch.shards: {shards} shards cannot be dealt evenly to {workers} workers; start as "
            f"many as divide {shards} ({fitting}), or make batch.shards a multiple of {workers}"
        ).found_in(config.source)
    return shards
