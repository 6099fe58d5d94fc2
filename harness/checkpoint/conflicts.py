"""What a run may change when it goes on from a set, and what it may not. Pure: it compares two configurations.

Every setting is of one of four kinds:

- *free*: does not touch the result (where data lie, logging, what is kept), or only its rounding (threads);
- *fixed*: decides which samples an update sees, so that no set could be gone on with: seed, batch, data;
- *another optimizer*: its slots mean something else, even where their shapes agree;
- *plan*: everything else. The arrays can be used, but the run is no longer the one that was begun: the run's length,
  the learning rate, the optimizer's parameters, the network's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from harness.config import RunConfig, parse_config
from harness.errors import CheckpointError
from harness.plan import LRPlan
from harness.sizes import Sizes

_FREE = (
    "name",
    "output",
    "comm",
    "device",
    "devices",
    "kvstore",
    "update_on_kvstore",
    "threads_per_rank",
    "log",
    "checkpoint",
    "finder",
    "guard",
    "evaluation",
    "init",
    "data.root",
    "data.download",
    "network.hybridize",
)
_FIXED = ("seed", "batch", "data", "train.last_batch")
_OPTIMIZER = ("optimizer.name",)


class Difference(NamedTuple):
    """One setting that the set and the run have in different ways.

    Attributes:
        path: its keys; one may hold dots, such as a pattern of `optimizer.lr_mult`.
        saved: what the set has.
        wanted: what the run has.
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
        return f"{self.key}: {self.saved} -> {self.wanted}"


class Conflicts(NamedTuple):
    """The differences that matter, by what follows from them."""

    fixed: list[Difference]
    optimizer: list[Difference]
    plan: list[Difference]


def saved_config(manifest: Mapping[str, Any], path: str) -> RunConfig:
    """The configuration that a set was trained with.

    Raises:
        CheckpointError: if this version cannot read it.
    """
    try:
        return parse_config(manifest["config"], f"{path}/manifest.json: config")
    except Exception as error:
        raise CheckpointError(f"{path}: its configuration cannot be used by this version: {error}") from None


def compare(saved: RunConfig, wanted: RunConfig) -> Conflicts:
    """Compare field by field; what may change freely is left out."""
    conflicts = Conflicts([], [], [])
    for difference in _differences((), saved.plain(), wanted.plain()):
        if _is_of(difference.key, _FREE):
            continue
        kind = 0 if _is_of(difference.key, _FIXED) else 1 if _is_of(difference.key, _OPTIMIZER) else 2
        conflicts[kind].append(difference)
    return conflicts


def refuse_fixed(path: str, conflicts: Conflicts, source: str) -> None:
    """Refuse what no policy can allow.

    Raises:
        CheckpointError: naming all of it.
    """
    if conflicts.fixed:
        lines = "\n  ".join(map(str, conflicts.fixed))
        raise CheckpointError(
            f"{source}: {path} was trained with other data, seed or batch, which are fixed for the life of a run "
            f"(saved -> now):\n  {lines}\nset them back, or start a new run from its weights: --set init.from={path} "
            "--set name=..."
        )
    if conflicts.optimizer:
        raise CheckpointError(
            f"{source}: {path} holds the state of another optimizer (saved -> now):\n  {conflicts.optimizer[0]}\n"
            f"set it back, go on as saved (--on-conflict checkpoint), or start a new run from its weights: --set "
            f"init.from={path} --set name=..."
        )


def take_saved(conflicts: Conflicts, wanted: RunConfig) -> RunConfig:
    """The wanted configuration, with the optimizer and everything of the plan as they were saved."""
    plain = wanted.plain()
    for difference in (*conflicts.optimizer, *conflicts.plan):
        _put(plain, difference.path, difference.saved)
    return parse_config(plain, wanted.source)


def explain_plan(path: str, conflicts: Conflicts, n: int, saved: LRPlan, wanted: LRPlan, source: str) -> str:
    """What differs, and the learning rate around the iteration resumed from, before and after."""
    lines = [f"{source}: {path} was trained by another plan (saved -> now):", *(f"  {d}" for d in conflicts.plan)]
    lines += ["  " + line for line in learning_rates(n, saved, wanted)]
    lines.append(
        "go on by the new one with --on-conflict config (recorded in the set as an amendment), by the saved one with "
        f"--on-conflict checkpoint, or start a new run from its weights: --set init.from={path} --set name=..."
    )
    return "\n".join(lines)


def learning_rates(n: int, saved: LRPlan, wanted: LRPlan) -> list[str]:
    """A small table: the learning rate at n - 1, n and n + 1 by both plans."""
    iterations = [t for t in (n - 1, n, n + 1) if t >= 1]
    table = [["learning rate at iteration", *map(str, iterations)]]
    for title, plan in (("by the saved plan", saved), ("by this configuration", wanted)):
        total = plan.sizes.num_iterations
        table.append([title, *(f"{plan.lr(t):.6g}" if t <= total else "ended" for t in iterations)])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]


def plan_of(config: RunConfig, sizes: Sizes, amendments: list[dict[str, Any]]) -> LRPlan:
    """The plan of a run whose plan was changed on the way: each amendment keeps what held up to its iteration.

    Args:
        config: what holds now.
        sizes: of the run, by `config`.
        amendments: as in the state; those without a plan of their own (the saved one was kept) change nothing, and
            a rewind multiplies what comes after it.
    """
    earlier: list[tuple[int, LRPlan]] = []
    cuts: list[tuple[int, float]] = []
    for amendment in amendments:
        if amendment["choice"] == "rewind":
            cuts.append((int(amendment["iteration"]), float(amendment["lr_factor"])))
        if "lr" in amendment:
            old = parse_config({**config.plain(), "lr": amendment["lr"], "train": amendment["train"]}, config.source)
            old_sizes = Sizes.of(
                old.train,
                num_samples=sizes.num_samples,
                shards=sizes.shards,
                batch_size=sizes.batch_size,
                source=config.source,
            )
            earlier.append((int(amendment["iteration"]), LRPlan(old.lr, old_sizes, config.source, cuts=cuts)))
    return LRPlan(config.lr, sizes, config.source, earlier=earlier, cuts=cuts)


def amend(
    amendments: list[dict[str, Any]], n: int, choice: str, conflicts: Conflicts, saved: RunConfig
) -> list[dict[str, Any]]:
    """The amendments with one more: what was chosen at iteration `n`, and the plan that held until then."""
    changes = {d.key: [d.saved, d.wanted] for d in (*conflicts.optimizer, *conflicts.plan)}
    record: dict[str, Any] = {"iteration": n, "choice": choice, "changes": changes}
    if choice == "config":
        plain = saved.plain()
        record.update(lr=plain["lr"], train=plain["train"])
    elif amendments and (amendments[-1]["choice"], amendments[-1].get("changes")) == (choice, changes):
        return amendments  # the same start script once more
    return [*amendments, record]


def _differences(path: tuple[str, ...], saved: Any, wanted: Any) -> Iterator[Difference]:
    if saved == wanted and type(saved) is type(wanted):
        return
    if isinstance(saved, dict) and isinstance(wanted, dict) and (not path or saved.keys() == wanted.keys()):
        for name in saved:
            yield from _differences((*path, name), saved[name], wanted[name])
    else:
        yield Difference(path, saved, wanted)


def _is_of(key: str, kinds: tuple[str, ...]) -> bool:
    return any(key == kind or key.startswith(f"{kind}.") for kind in kinds)


def _put(plain: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        plain = plain[key]
    plain[keys[-1]] = value
