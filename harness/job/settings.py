"""The plain values that a program gives to a `Job`, checked all at once, as a configuration's are."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from harness.comm import World
from harness.config import LRConfig, Problem, config_error
from harness.config.lr import OWN_PLATEAU
from harness.config.messages import explain
from harness.config.sections import DataConfig, Section
from harness.config.values import Count, PathText, Positive, RefusedError, Seconds
from harness.data import Augmentation, GroupBy
from harness.data.functions import CollateFunction, TransformFunction
from harness.data.grouping import BatchesFunction
from harness.errors import ConfigError
from harness.hooks import Hook
from harness.model.calls import ForwardFunction
from harness.model.carried import StateFunction
from harness.named import brief, kind_of, with_article
from harness.parsing import plain_numbers
from harness.versions import versions

T = TypeVar("T")

WHERE = "Job"  # how messages begin


class JobOptions(TypedDict, total=False):
    """The options of a `Job`, which explains them."""

    forward: ForwardFunction | None
    transform: TransformFunction | None
    collate: CollateFunction | str | Mapping[str, Any] | None
    state: StateFunction | None
    bucket: Mapping[str, Any] | None
    batches: BatchesFunction | None
    last_batch: Literal["drop", "keep"]
    augmentation: Augmentation | None
    clip_norm: float | None
    compression: Literal["none", "fp16"]
    seed: int
    stall_after_s: float
    hooks: Sequence[Hook] | Hook | None
    hooks_fail: Literal["warn", "stop"]
    log_every: int
    world: World | None


def _read_folder(value: str) -> str:
    if Path(value).name in ("", ".."):
        raise ValueError("must be a folder with a name of its own, such as runs/my-job")
    return value


class JobSettings(Section):
    """How long, how large, how fast, with which seed, and where checkpoints go."""

    batch: Count
    """Samples of a shard."""
    shards: Count | None = None
    """Shards of a global batch; null means one for each worker."""
    epochs: Count | None = None
    """The job's length in epochs."""
    iterations: Count | None = None
    """The job's length in updates."""
    last_batch: Literal["drop", "keep"] = "drop"
    """What becomes of an epoch's remainder."""
    lr: LRConfig
    """The learning rate of every iteration."""
    clip_norm: Positive | None = None
    """The largest Euclidean norm of the mean gradient."""
    compression: Literal["none", "fp16"] = "none"
    """What ranks send of gradients: float32, or 16 bits."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed for shuffling, augmentation and dropout."""
    stall_after_s: Seconds = 1800.0
    """Seconds without progress after which ranks that wait for each other end."""
    hooks_fail: Literal["warn", "stop"] = "warn"
    """What an error in a hook means."""
    log_every: Count = 10
    """Every how many updates hooks are told the loss."""
    folder: Annotated[PathText, AfterValidator(_read_folder)]
    """The folder of the checkpoints."""

    @model_validator(mode="after")
    def _fit_together(self) -> JobSettings:
        problems = []
        if (self.epochs is None) == (self.iterations is None):
            found = "neither" if self.epochs is None else "both"
            problems.append(Problem((), f"found {found} of epochs and iterations; give one of them"))
        if self.lr.plateau is not None:
            problems.append(Problem(("lr", "plateau"), OWN_PLATEAU))
        if problems:
            raise RefusedError(problems)
        return self


def read_settings(lr: object, **values: Any) -> JobSettings:
    """Check the values of all arguments that are plain.

    Args:
        lr: a number, a schedule, or what the section `lr` of a configuration holds.
        **values: the other arguments by name.

    Raises:
        ConfigError: with every problem, a line each.
    """
    plain = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else plain_numbers(value)
        for name, value in values.items()
    }
    section = lr if isinstance(lr, LRConfig) else plain_numbers(lr if isinstance(lr, Mapping) else {"schedule": lr})
    try:
        return JobSettings.model_validate({**plain, "lr": section})
    except ValidationError as error:
        raise config_error(WHERE, explain(error, JobSettings)) from None


def environment_of_job() -> dict[str, str]:
    """What the last bits of a result depend on besides the arguments."""
    return {**versions(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set")}


def read_group_by(bucket: object, batches: Any, last_batch: object, *, has_state: bool) -> GroupBy | None:
    """Which samples are to come together in a batch.

    Args:
        bucket: as the section `data.bucket`, where `by` may be a function too, or None.
        batches: a function, or None.
        last_batch: of the job.
        has_state: whether its network carries state.

    Raises:
        ConfigError: with every problem, a line each.
    """
    if bucket is None and batches is None:
        return None
    if has_state:
        raise ConfigError(
            f"{WHERE}: bucket, batches: are not possible with state, whose rows read consecutive samples; remove them"
        )
    given = dict(bucket) if isinstance(bucket, Mapping) else bucket
    name = None if batches is None else f"Job:{getattr(batches, '__name__', type(batches).__name__)}"
    by = given.get("by") if isinstance(given, dict) else None
    plain = {**given, "by": "data"} if isinstance(given, dict) and callable(by) else given
    try:
        read = DataConfig.model_validate({"bucket": plain_numbers(plain), "batches": name})
    except ValidationError as error:
        raise config_error(WHERE, explain(error, DataConfig)) from None
    if batches is not None and last_batch == "keep":
        raise ConfigError(
            f"{WHERE}: last_batch: keep has no effect beside batches, which say what is in each; remove it"
        )
    section = None if read.bucket is None else {**read.bucket.model_dump(), **({"by": by} if callable(by) else {})}
    return GroupBy.of(section, batches, f"{WHERE}: ")


def whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """An integer of Python, NumPy's included: JSON and file names take no other.

    Raises:
        ConfigError: for anything else, and for a number below `least` or above `most`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ConfigError(f"{WHERE}: {name}: found {brief(value)}; must be a whole number")
    if number < least or (most is not None and number > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        raise ConfigError(f"{WHERE}: {name}: found {brief(number)}; must be {allowed}")
    return number


def of_kind(name: str, value: T | None, kind: type[Any]) -> T | None:
    """An object that an option holds; `None` stands for the default.

    Raises:
        ConfigError: if it is of another kind.
    """
    if value is not None and not isinstance(value, kind):
        wanted = with_article(kind.__name__)
        raise ConfigError(f"{WHERE}: {name}: found {kind_of(value)}; give {wanted} of the harness")
    return value
