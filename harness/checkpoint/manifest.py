"""What a checkpoint's manifest says: read within limits, typed, and every number within bounds, whoever sealed it.

A seal (`manifest.sha256`) proves that nothing was damaged, and not who wrote it: another program, another version or a
stranger may have. Whatever stands there, reading it ends in checked values or in one `CheckpointError` that names the
key, what was found and what is allowed. It knows neither arrays nor what a configuration means.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.checkpoint.consistency import LARGEST_RATE, check_init, check_updates, sum_of
from harness.checkpoint.places import iteration_of
from harness.checkpoint.replaced import NONE_REPLACED, Replaced
from harness.errors import CheckpointError
from harness.files import must_be_regular
from harness.folder import Fields, RecordError, described, parse_json
from harness.folder.reading import whole

T = TypeVar("T")

FORMAT = 1
ARRAY_FILES = {"parameters": "params.safetensors", "slots": "optimizer.safetensors"}
OPTIONAL_FILES = {
    "carried": "carried.safetensors",
    "averages": "averages.safetensors",
}  # of kinds that only some checkpoints have
LARGEST_MANIFEST = 8 << 20  # bytes; a network of 100,000 parameters has a manifest of two million
NUMBERS = ("applied_lr", "num_update", "update_counts", "scalars")
_AVERAGES = {"kind": ("ema", "swa"), "statistics": ("averaged", "latest", "recomputed")}
_SEAL = 65  # bytes of manifest.sha256
_DEEPEST = 100
_MOST = 10**9  # of shards and samples in one, as in a configuration
CHANGED_BY_ANOTHER = "another program has written or changed it; resume from another checkpoint (--resume PATH)"


@dataclass(frozen=True)
class Best:
    """The best evaluation so far.

    Attributes:
        iteration: after which update.
        metric: split and name, such as `test.accuracy`.
        value: of the metric; infinite where a loss was.
    """

    iteration: int
    metric: str
    value: float

    def to_json(self) -> dict[str, Any]:
        """As manifests and `best.json` hold it."""
        return dict(vars(self))


@dataclass(frozen=True)
class SavedState:
    """The state that a checkpoint holds besides its arrays.

    The amendments of the plan are not part of it: this room knows no plan. `harness.train.plans` reads them.

    Attributes:
        iteration: the last update that it contains.
        numbers: of the learner: applied learning rate, update counts, scalars of the optimizer, as they were written.
        best: the best evaluation so far.
        evaluation_due: whether the last evaluation was left to the run that resumes.
        skipped: updates that were left out because they were not finite.
        weightless: updates that changed nothing because every weight of the loss was 0.
        replaced: damaged samples that others have replaced.
    """

    iteration: int
    numbers: dict[str, Any]
    best: Best | None = None
    evaluation_due: bool = False
    skipped: int = 0
    weightless: int = 0
    replaced: Replaced = NONE_REPLACED

    @classmethod
    def read(cls, fields: Fields, iteration: int, optimizer: str, planned: float | None) -> SavedState:
        """From the section `state` of a run's manifest.

        Args:
            fields: the section.
            iteration: of the manifest.
            optimizer: its name, by which updates are counted.
            planned: the learning rate of that iteration.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        numbers = numbers_of(fields, iteration)
        skipped, weightless = check_updates(fields, iteration, numbers["update_counts"], optimizer, planned)
        return cls(
            iteration=iteration,
            numbers=numbers,
            best=_best(fields.inner("best"), iteration) if fields.has("best") else None,
            evaluation_due=fields.has("evaluation_due") and _flag(fields, "evaluation_due"),
            skipped=skipped,
            weightless=weightless,
            replaced=Replaced.read(fields.inner("replaced")) if fields.has("replaced") else NONE_REPLACED,
        )


@dataclass(frozen=True)
class Manifest:
    """What a run's checkpoint says of the run.

    Attributes:
        iteration: the last update that the state contains.
        state: what is not an array.
        shards: S.
        batch_size: b, samples in a shard.
        num_samples: training samples.
        iterations_per_epoch: updates in an epoch.
        num_iterations: updates in the run.
        data: fingerprint of the training data.
        items: digest of a few training items; `None` for arrays, and where an earlier version wrote.
        config: the whole configuration as plain data, which nobody has checked yet.
        environment: versions and threads, by name.
        sum_by: what added up the ranks' gradients: `tree`, `engine`, or an earlier version's order.
        init: which weights the run began with; `None` for the initializer's.
        content: all of it, as JSON holds it.
    """

    iteration: int
    state: SavedState
    shards: int
    batch_size: int
    num_samples: int
    iterations_per_epoch: int
    num_iterations: int
    data: str
    items: str | None
    config: dict[str, Any]
    environment: dict[str, str | int]
    sum_by: str
    init: dict[str, Any] | None
    content: dict[str, Any]

    @classmethod
    def of(cls, content: dict[str, Any], path: str | Path) -> Manifest:
        """A run's manifest, typed.

        Args:
            content: what `read_manifest` returns.
            path: of the checkpoint, for messages.

        Raises:
            CheckpointError: naming the key that is missing, of another kind, impossible, or contradicts another.
        """
        try:
            return cls._of(Fields(content), content)
        except RecordError as error:
            raise CheckpointError(f"{path}: manifest.json: {error}; {CHANGED_BY_ANOTHER}") from None

    @classmethod
    def _of(cls, fields: Fields, content: dict[str, Any]) -> Manifest:
        iteration = fields.whole("iteration")
        sizes, plan, world = fields.inner("sizes"), fields.inner("plan"), fields.inner("world")
        shards, batch_size = fields.whole("shards", 1, _MOST), fields.whole("batch_size", 1, _MOST)
        has_own = sizes.has("own_batches")  # of any number and size, as a function of the user's own says
        num_samples = sizes.whole("num_samples", 1 if has_own else shards * batch_size)
        full, rest = divmod(num_samples, shards * batch_size)
        fewest, most = (sizes.whole("own_batches", 1),) * 2 if has_own else (full, full + bool(rest))
        rates, environment = plan.inner("lr"), fields.inner("environment")
        world.whole("size", 1, _MOST)
        for key in ("described", "fingerprint"):
            plan.text(key)
        lr = _each(rates, rates.number)
        config = _object(fields, "config")
        optimizer = str(Fields(config, "config").inner("optimizer").text("name")).lower()
        num_iterations = sizes.whole("num_iterations", max(1, iteration))
        around = [str(t) for t in (iteration - 1, iteration, iteration + 1) if 1 <= t <= num_iterations]
        if set(lr) != set(around):
            raise RecordError(
                f"plan.lr holds iterations {', '.join(sorted(lr)[:5]) or 'none'}; allowed: {', '.join(around)}"
            )
        if fields.has("init"):
            check_init(fields.inner("init"))
        return cls(
            iteration=iteration,
            state=SavedState.read(fields.inner("state"), iteration, optimizer, lr.get(str(iteration))),
            shards=shards,
            batch_size=batch_size,
            num_samples=num_samples,
            iterations_per_epoch=sizes.whole("iterations_per_epoch", fewest, most),
            num_iterations=num_iterations,
            data=fields.text("data"),
            items=fields.maybe(fields.text, "items"),
            config=config,
            environment=_each(environment, lambda key: _text_or_whole(environment, key)),
            sum_by=sum_of(world, shards),
            init=_object(fields, "init") if fields.has("init") else None,
            content=content,
        )


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint as plain data, itself verified; arrays and meaning are not looked at.

    Raises:
        CheckpointError: if it is missing, cut, changed, too large, or of an unknown format.
    """
    text, seal = _read(path / "manifest.json", LARGEST_MANIFEST), _read(path / "manifest.sha256", _SEAL)
    if seal != f"{hashlib.sha256(text).hexdigest()}\n".encode():
        raise CheckpointError(
            f"{path}: manifest.json and manifest.sha256 do not fit together; one of them was changed or cut"
        )
    try:
        content = parse_json(text, may_be_nan=True)  # which this version once wrote for a metric without bounds
        fields = Fields(content)
        version, iteration, files = fields.whole("format"), fields.whole("iteration"), fields.inner("files")
        _refuse_deep(content)
    except RecordError as error:
        raise CheckpointError(f"{path}: manifest.json is not the manifest of a checkpoint ({error})") from None
    if version != FORMAT:
        raise CheckpointError(f"{path}: is of format {version}, this version reads format {FORMAT}")
    listed = _each(files, files.value)
    names = set(listed) - set(OPTIONAL_FILES.values())
    complete = names == set(ARRAY_FILES.values()) and iteration_of(path) == iteration
    if not complete or not all(isinstance(file, dict) for file in listed.values()):
        raise CheckpointError(f"{path}: manifest.json belongs to another iteration or lists other files")
    return dict(content)


def read_numbers(path: Path) -> dict[str, Any] | None:
    """The numbers of a learner's state in a checkpoint, for `LearnerState`; `None` where it holds weights alone.

    Raises:
        CheckpointError: naming the key that is missing, of another kind or impossible.
    """
    content = read_manifest(path)
    if "state" not in content:
        return None
    try:
        state = Fields(content).inner("state")
        if not state.has("learners"):
            return numbers_of(state, content["iteration"])
        state.whole("iteration", content["iteration"], content["iteration"])
        learners = state.inner("learners")
        return {"learners": _each(learners, lambda name: _numbers_of(learners.inner(name)))}
    except RecordError as error:
        raise CheckpointError(f"{path}: manifest.json: {error}; {CHANGED_BY_ANOTHER}") from None


def numbers_of(state: Fields, iteration: int) -> dict[str, Any]:
    """The numbers of a learner's state, as they were written: the digest looks at each.

    Raises:
        RecordError: naming the field that is missing, of another kind or impossible.
    """
    state.whole("iteration", iteration, iteration)
    return _numbers_of(state)


def _numbers_of(state: Fields) -> dict[str, Any]:
    state.maybe(state.number, "applied_lr", 0.0, LARGEST_RATE)
    most = state.whole("num_update")
    counts, scalars = state.items("update_counts"), state.inner("scalars")
    for index, count in enumerate(counts):
        whole(count, f"{state.place('update_counts')}[{index}]", 0, most)
    _each(scalars, scalars.number)
    if not state.has("average"):
        return {key: state.value(key) for key in NUMBERS}
    average = state.inner("average")
    average.whole("num_updates", 1)
    for key, allowed in _AVERAGES.items():
        found = average.text(key)
        if found not in allowed:
            raise RecordError(f"{average.place(key)} is {described(found)}; allowed: {', '.join(allowed)}")
    return {key: state.value(key) for key in (*NUMBERS, "average")}


def _best(fields: Fields, iteration: int) -> Best:
    metric = fields.text("metric")
    if not all(metric.partition(".")):
        raise RecordError(f"{fields.place('metric')} is {described(metric)}; allowed: a split and a name (test.loss)")
    value = fields.value("value")
    if not (isinstance(value, float) and math.isinf(value)):
        value = fields.number("value")
    return Best(fields.whole("iteration", 1, iteration), metric, value)


def _each(fields: Fields, take: Callable[[str], T]) -> dict[str, T]:
    """Every field of an object that may have any names, as `take` has it."""
    names = fields.keys()
    return {name: take(name) for name in names}


def _flag(fields: Fields, key: str) -> bool:
    value = fields.value(key)
    if not isinstance(value, bool):
        raise RecordError(f"{fields.place(key)} is {described(value)}, not true or false")
    return value


def _text_or_whole(fields: Fields, key: str) -> str | int:
    value = fields.value(key)
    return value if isinstance(value, str) else fields.whole(key)


def _object(fields: Fields, key: str) -> dict[str, Any]:
    fields.inner(key)
    value: dict[str, Any] = fields.value(key)
    return value


def _refuse_deep(content: object) -> None:
    """Refuse what Python's writer, which calls itself at every level, could not show."""
    level, depth = [content], 0
    while level:
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [item for items in inner for item in items], depth + 1
        if depth > _DEEPEST:
            raise RecordError(f"is nested more than {_DEEPEST} levels deep")


def _read(path: Path, most: int) -> bytes:
    try:
        must_be_regular(path)
        size = path.stat().st_size
        if size > most:
            raise CheckpointError(f"{path.parent}: {path.name} has {size:,} bytes; at most {most:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.parent}: {path.name} cannot be read ({error.strerror})") from None
