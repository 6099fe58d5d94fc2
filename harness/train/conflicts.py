"""What a run may change when it resumes from a checkpoint, and what it may not. Pure: it compares two configurations.

Every setting is of one of four kinds:

- *free*: does not affect the result (location of the data, logging, what is kept), or only its rounding (threads);
  so are evaluations, unless `lr.plateau` or `train.early_stop` decides from them;
- *fixed*: determines which samples an update sees, or what the optimizer holds, so that no checkpoint would fit: seed,
  batch, data, frozen parameters, carried state;
- *another optimizer*: its state has another meaning, even where the shapes agree;
- *plan*: everything else. The arrays can be used, but the run is no longer the one that was started: the run's length,
  the learning rate, the parameters of the optimizer and the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from harness.checkpoint.manifest import Manifest
from harness.config import RunConfig, deciding, parse_config
from harness.config.sections import HOW_READ
from harness.errors import CheckpointError
from harness.named import code_in, name_and_params
from harness.plan import Amendment, LRPlan, Replace, Sizes, rates_around

_FREE = (
    "name",
    "output",
    "comm",
    "sum",
    "device",
    "devices",
    "kvstore",
    "update_on_kvstore",
    "threads_per_rank",
    "log",
    "checkpoint",
    "finder",
    "guard",
    "elastic",
    "hooks",
    "hooks_fail",
    "init.from",
    "init.match",
    "data.root",
    "data.download",
    "data.pictures.train",
    "data.pictures.validation",
    "data.pictures.test",
    *(f"data.{name}" for name in HOW_READ),
    "network.hybridize",
)
_FIXED = ("seed", "batch", "data", "train.last_batch", "init.freeze", "network.state")
_OPTIMIZER = ("optimizer.name",)
_LONGEST_SHOWN = 200


class Difference(NamedTuple):
    """One setting that differs between the checkpoint and the run.

    Attributes:
        path: its keys; one may hold dots, such as a pattern of `optimizer.lr_mult`.
        saved: the checkpoint's value.
        wanted: the run's value.
    """

    path: tuple[str, ...]
    saved: Any
    wanted: Any

    @property
    def key(self) -> str:
        """The keys as one text, for messages."""
        return ".".join(self.path)

    def __str__(self) -> str:
        """`key: saved -> wanted`."""
        return f"{self.key}: {_cut(self.saved)} -> {_cut(self.wanted)}"


class Conflicts(NamedTuple):
    """The differences that matter, by what follows from them."""

    fixed: list[Difference]
    optimizer: list[Difference]
    plan: list[Difference]

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """By setting the saved and the wanted value, of those between which the user may choose."""
        return {one.key: (one.saved, one.wanted) for one in (*self.optimizer, *self.plan)}


def saved_config(manifest: Manifest, path: str) -> RunConfig:
    """The configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: if this version cannot read it, or the rest of the manifest contradicts it.
    """
    try:
        saved = parse_config(manifest.config, f"{path}/manifest.json: config")
        counted = Sizes.of(
            saved.train,
            num_samples=manifest.num_samples,
            shards=manifest.shards,
            batch_size=manifest.batch_size,
            num_batches=None if saved.data.batches is None else manifest.iterations_per_epoch,
        )
    except Exception as error:
        raise CheckpointError(
            f"{path}: its configuration cannot be used by this version: {str(error)[:2000]}"
        ) from None
    stated: list[tuple[str, Any, str, Any]] = [
        ("shards", manifest.shards, "config.batch.shards", saved.batch.shards),
        ("batch_size", manifest.batch_size, "config.batch.size", saved.batch.size),
        ("sizes.iterations_per_epoch", manifest.iterations_per_epoch, "config.train", counted.iterations_per_epoch),
        ("sizes.num_iterations", manifest.num_iterations, "config.train", counted.num_iterations),
    ]
    if saved.lr.is_found:
        stated.append(("config.lr.base", saved.lr.base, "a run's base", "a number"))
    for key, one, other, two in stated:
        if one != two:
            raise CheckpointError(
                f"{path}: manifest.json contradicts itself: {key} is {one}, but by {other} it is {two}; another "
                "program has changed it; resume from another checkpoint (--resume PATH)"
            )
    return saved


def refuse_foreign_code(manifest: Manifest, amendments: Sequence[Amendment], config: RunConfig, path: str) -> None:
    """Refuse a checkpoint of another folder that would run code which the configuration does not name.

    Args:
        manifest: of the checkpoint.
        amendments: of its plan.
        config: of this run.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: naming the code.
    """
    replaced = [amendment.lr for amendment in amendments if isinstance(amendment, Replace)]
    theirs = {*code_in(deciding(manifest.config)), *code_in(replaced)}
    foreign = sorted(theirs - set(code_in(config.plain())))
    if foreign:
        raise CheckpointError(
            f"{path}: its configuration names code that {config.source} does not: {', '.join(map(_cut, foreign[:5]))}; "
            "resume it with the configuration that it was trained with, or, if you trust it, put it into the folder of "
            "this run"
        )


def refuse_other_data(
    manifest: Manifest, path: str, num_samples: int, data: str, items: str | None, source: str
) -> None:
    """Refuse other training data than those that the checkpoint was trained with.

    Args:
        manifest: of the checkpoint.
        path: of the checkpoint, for messages.
        num_samples: of the training data.
        data: their fingerprint.
        items: digest of the probed items, if the data are read item by item.
        source: the configuration's file, for messages.

    Raises:
        CheckpointError: if number, shape, labels or one of those items differ.
    """
    if (data, num_samples) != (manifest.data, manifest.num_samples):
        found = f"{manifest.num_samples} samples then, {num_samples} now; number, shape or labels differ"
    elif None not in (items, manifest.items) and items != manifest.items:
        found = (
            "the first, the last, or an item between has other values, or data.transform or data.collate gives others: "
            "files that were created again, values drawn at random before the first reading, a function that was "
            "changed, or another version of a library; hash() of text differs in every process"
        )
    else:
        return
    raise CheckpointError(
        f"{source}: the training data are not those that {path} was trained with ({found}); give the same data, or "
        f"start a new run from its weights: --set init.from={path} --set name=..."
    )


def compare(saved: RunConfig, wanted: RunConfig) -> Conflicts:
    """Compare field by field; settings that may change freely are left out."""
    conflicts = Conflicts([], [], [])
    free = _free_evaluation(saved, wanted)
    for difference in _differences((), saved.plain(), wanted.plain()):
        if _is_of(difference.key, _FREE) or _is_of(difference.key, free):
            continue
        kind = 0 if _is_of(difference.key, _FIXED) else 1 if _is_of(difference.key, _OPTIMIZER) else 2
        conflicts[kind].append(difference)
    return conflicts


def _free_evaluation(saved: RunConfig, wanted: RunConfig) -> tuple[str, ...]:
    """What of the evaluations may change: all of it, unless something of the plan is decided from them."""
    monitors = [_monitored(config) for config in (saved, wanted)]
    if not any(monitors):
        return ("evaluation",)
    return ("evaluation.metrics",) if monitors[0] == monitors[1] else ()


def _monitored(config: RunConfig) -> dict[str, Any]:
    """By the names of values that decide something of the plan, the metrics that may report them."""
    names = [name for key, name in config.monitors.items() if key != "checkpoint.best"]
    metrics = [
        (str(params.get("name", name)), name, params)
        for name, params in map(name_and_params, config.evaluation.metrics)
    ]
    return {
        monitor: [one for one in metrics if monitor == one[0] or monitor.startswith(f"{one[0]}.")] for monitor in names
    }


def refuse_fixed(path: str, conflicts: Conflicts, source: str) -> None:
    """Refuse differences that no policy allows.

    Raises:
        CheckpointError: naming all of them.
    """
    if conflicts.fixed:
        lines = "\n  ".join(map(str, conflicts.fixed))
        raise CheckpointError(
            f"{source}: {path} was trained with other data, seed, batch, frozen parameters or carried state, which are "
            f"fixed for the life of a run (saved -> now):\n  {lines}\nset them back, or start a new run from its "
            f"weights: --set init.from={path} --set name=..."
        )
    if conflicts.optimizer:
        raise CheckpointError(
            f"{source}: {path} holds the state of another optimizer (saved -> now):\n  {conflicts.optimizer[0]}\n"
            f"set it back, resume as saved (--on-conflict checkpoint), or start a new run from its weights: --set "
            f"init.from={path} --set name=..."
        )


def take_saved(conflicts: Conflicts, wanted: RunConfig) -> RunConfig:
    """The wanted configuration, with the optimizer and everything of the plan as they were saved."""
    plain = wanted.plain()
    for difference in (*conflicts.optimizer, *conflicts.plan):
        _put(plain, difference.path, difference.saved)
    return parse_config(plain, wanted.source)


def explain_plan(path: str, conflicts: Conflicts, n: int, saved: LRPlan, wanted: LRPlan, source: str) -> str:
    """What differs, and the learning rates around the checkpoint's iteration, before and after."""
    lines = [f"{source}: {path} was trained with another plan (saved -> now):", *(f"  {d}" for d in conflicts.plan)]
    lines += ["  " + line for line in rates_around(n, saved, wanted)]
    lines.append(
        "resume with the new plan by --on-conflict config (checkpoints record it as an amendment), with the saved plan "
        f"by --on-conflict checkpoint, or start a new run from its weights: --set init.from={path} --set name=..."
    )
    return "\n".join(lines)


def _differences(path: tuple[str, ...], saved: Any, wanted: Any) -> Iterator[Difference]:
    if saved == wanted and type(saved) is type(wanted):
        return
    if isinstance(saved, dict) and isinstance(wanted, dict) and (not path or saved.keys() == wanted.keys()):
        for name in saved:
            yield from _differences((*path, name), saved[name], wanted[name])
    else:
        yield Difference(path, saved, wanted)


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _is_of(key: str, kinds: tuple[str, ...]) -> bool:
    return any(key == kind or key.startswith(f"{kind}.") for kind in kinds)


def _put(plain: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        plain = plain[key]
    plain[keys[-1]] = value
