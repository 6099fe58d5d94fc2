"""A run as the ranks of `torchrun` continue it: its plan, its order of samples and its data, the same on every rank.

Nothing in the run's folder is changed or locked. `opening.py` opens a run in one process, to compare networks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import distributed

from harness.bridge.opening import CONFIG, newest
from harness.checkpoint import Manifest, read_manifest
from harness.comm import Launch, SingleWorld, count_threads, read_launch
from harness.comm.compare import differences
from harness.comm.tree import assign
from harness.config import RunConfig, load_config
from harness.data import Augmentation, Order
from harness.errors import CheckpointError, ConfigError, DisagreementError
from harness.plan import LRPlan, Sizes

if TYPE_CHECKING:
    from harness.train.resume import ResumePoint
    from harness.train.samples import RunData

_CONFIGURATIONS = (".yaml", ".yml")


@dataclass(frozen=True, eq=False)
class Continued:
    """A run from one of its checkpoints on, or from its beginning, seen from one rank of `torchrun`.

    Attributes:
        config: definite, with shards as a number.
        launch: this rank among all.
        iteration: the last update that there has been, 0 before the first.
        sizes: samples, shards, iterations.
        plan: learning rate and momentum of every iteration, amended as the checkpoint has it.
        order: which samples each iteration sees.
        data: training samples, and those held out.
        augmentation: what is done to samples.
    """

    config: RunConfig
    launch: Launch
    iteration: int
    sizes: Sizes
    plan: LRPlan
    order: Order
    data: RunData
    augmentation: Augmentation
    _open: Callable[[], Continued]
    _process: int

    @property
    def own_shards(self) -> tuple[int, ...]:
        """The shards of this rank, as one of this harness's would process them."""
        return assign(self.sizes.shards, self.launch.size).shards[self.launch.rank]

    @property
    def is_here(self) -> bool:
        """Whether it was opened in this process, whose threads and workers read its samples."""
        return self._process == os.getpid()

    def opened_again(self) -> Continued:
        """The same run in another process, such as a worker of a `DataLoader`."""
        return self._open()

    def close(self) -> None:
        """End what reads samples; calling this again does nothing."""
        self.data.close()

    def __enter__(self) -> Continued:
        """The run itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Continued], tuple[()]]:
        """In another process it is opened again."""
        return self._open, ()


def open_run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    on_conflict: str = "checkpoint",
    launch: Launch | None = None,
) -> Continued:
    """Open a run on every rank of `torchrun`, or in one process, to continue it in PyTorch; close it at the end.

    Where `torch.distributed` has been initialised, the ranks compare data, plan and iteration.

    Args:
        path: a run's folder, of which the newest valid checkpoint counts, or one of its checkpoints; or a configuration
            (`.yaml`), for a run that begins here.
        overrides: of its configuration, as `--set` has them, such as where data lie now: `data.root=...`.
        on_conflict: where checkpoint and configuration differ: continue by the `checkpoint`, by `config` (from the
            checkpoint's iteration on), or `error`.
        launch: which rank this is; read from the environment by default.

    Raises:
        HarnessError: if there is no checkpoint, configuration and data do not fit it, or there are fewer shards than
            ranks.
        DisagreementError: if the ranks have not opened the same.
    """
    launch = launch or read_launch()
    found = _open(_Opening(str(path), tuple(overrides), on_conflict, launch))
    try:
        _compare(found)
    except BaseException:
        found.close()
        raise
    return found


@dataclass(frozen=True)
class _Opening:
    """The arguments of `open_run`; in a worker process there are no ranks to compare with."""

    path: str
    overrides: tuple[str, ...]
    on_conflict: str
    launch: Launch

    def __call__(self) -> Continued:
        return _open(self)


def _open(how: _Opening) -> Continued:
    # not at the top, because they import MXNet
    from harness.train.prepare import initial_state, read_base, read_run, resolve_config
    from harness.train.resume import StartOptions

    world, launch = SingleWorld(), how.launch
    point, config = _resume_point(how)
    threads = count_threads(config.threads_per_rank, launch)
    config, _ = read_base(config, world)
    start = StartOptions(on_conflict=how.on_conflict)
    config, resolved = resolve_config(config, world, point, launch.size, threads, start)
    state = initial_state(config, point, resolved)
    data, sizes, plan, undecided, order, augmentation = read_run(config, world, threads, state, point, resolved)
    if undecided is not None:
        data.close()
        raise CheckpointError(undecided)
    return Continued(config, launch, state.iteration, sizes, plan, order, data, augmentation, how, os.getpid())


def _resume_point(how: _Opening) -> tuple[ResumePoint | None, RunConfig]:
    from harness.train.resume import ResumePoint

    path = Path(how.path)
    if path.suffix in _CONFIGURATIONS and path.is_file():
        return None, load_config(path, list(how.overrides))
    checkpoint = newest(path)
    folder = checkpoint.parent.parent
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: has no {CONFIG}; give the folder of a run that launch/train.py has written")
    manifest = Manifest.of(read_manifest(checkpoint), checkpoint)
    here = [f"output={folder.parent}", f"name={folder.name}"]
    config = load_config(folder / CONFIG, [*here, *how.overrides])
    return ResumePoint(str(checkpoint), manifest, True, [], []), config


def _compare(run: Continued) -> None:
    """Compare the ranks; a collective of `torch.distributed`, where that has been initialised.

    Raises:
        ConfigError: if it has other ranks than the launcher started.
        DisagreementError: on every rank, naming every difference.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    launch, own = run.launch, (distributed.get_rank(), distributed.get_world_size())
    if own != (launch.rank, launch.size):
        raise ConfigError(
            f"open_run: torch.distributed has rank {own[0]} of {own[1]}, but this is rank {launch.rank} of "
            f"{launch.size} by its launcher ({launch.launcher or 'plain python'}); start with torchrun, or give "
            "launch=Launch(rank=..., size=...)"
        )
    facts = {
        "iteration": run.iteration,
        "plan": run.plan.fingerprint(),
        "training data": run.data.fingerprint,
        "items": run.data.items_digest,
        "sizes": run.sizes.to_json(),
        "seed": run.config.seed,
    }
    everyone: list[Mapping[str, Any]] = [{} for _ in range(launch.size)]
    distributed.all_gather_object(everyone, facts)
    found = differences(everyone)
    if found:
        raise DisagreementError(
            "open_run: the ranks do not agree:\n  " + "\n  ".join(found) + "\ngive every rank the same run and data"
        ).on_all_ranks()
