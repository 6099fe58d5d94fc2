"""A hook that writes a run's newest numbers as a textfile of Prometheus' node exporter.

`hooks: [{harness.hooks.prometheus:textfile: {folder: /var/lib/node_exporter}}]`, where the node exporter was started
with `--collector.textfile.directory` of that folder. The file is replaced as a whole, so it is never read half written,
and is its own memory: a hook has none.

Source: node_exporter, README, "Textfile Collector"; Prometheus, "Exposition formats", text-based format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.files import make_folder, replace_file
from harness.folder import MetricsLine
from harness.hooks.events import Ended, Evaluated, Event, Logged, Opened, Saved, WorldChanged

_HELP = {
    "harness_begun_timestamp_seconds": "When the attempt began.",
    "harness_checkpoint_iteration": "The iteration of the newest checkpoint.",
    "harness_exit_code": "How the attempt ended; missing while it runs.",
    "harness_iteration": "The last iteration that was logged.",
    "harness_iterations": "The iterations of the whole run.",
    "harness_learning_rate": "The learning rate of the last iteration that was logged.",
    "harness_updated_timestamp_seconds": "When these numbers were written.",
    "harness_value": "What was measured last, by split and name.",
    "harness_workers": "The number of workers.",
}


def textfile(event: Event, folder: str | None = None) -> None:
    """Write what an event says into `harness_NAME.prom`, beside what earlier ones have said.

    Args:
        event: of a run.
        folder: of the file; by default the run's own.
    """
    path = Path(folder or event.folder) / f"harness_{event.folder.name}.prom"
    make_folder(path.parent)
    samples = {} if isinstance(event, Opened) else _read(path)
    said = {(name, labels): value for name, labels, value in _said(event)}
    if said:
        samples |= {f"{name}{_labels(event, labels)}": _number(value) for (name, labels), value in said.items()}
        replace_file(path, _text(samples))


def _said(event: Event) -> Iterator[tuple[str, tuple[tuple[str, str], ...], float]]:
    """Names, labels and values."""
    if isinstance(event, Opened):
        yield "harness_begun_timestamp_seconds", (), event.start.began_at
        yield "harness_iteration", (), event.iteration
        yield "harness_iterations", (), len(event.lr)
        yield "harness_workers", (), event.start.ranks or 1
    elif isinstance(event, WorldChanged):
        yield "harness_workers", (), event.after
    elif isinstance(event, Saved):
        yield "harness_checkpoint_iteration", (), event.iteration
    elif isinstance(event, Ended):
        yield "harness_exit_code", (), event.outcome.exit_code
    elif isinstance(event, Evaluated):
        yield from (one for line in event.lines for one in _measured(line))
    elif isinstance(event, Logged) and event.line.split == "train":
        yield "harness_iteration", (), event.line.iteration
        if event.line.lr is not None:
            yield "harness_learning_rate", (), event.line.lr
        yield from _measured(event.line)


def _measured(line: MetricsLine) -> Iterator[tuple[str, tuple[tuple[str, str], ...], float]]:
    yield "harness_updated_timestamp_seconds", (), line.time or 0.0
    for name, value in line.values.items():
        yield "harness_value", (("split", line.split), ("name", name)), value


def _labels(event: Event, labels: tuple[tuple[str, str], ...]) -> str:
    pairs = [("run", event.folder.name), *labels]
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else "NaN" if math.isnan(value) else repr(value)


def _read(path: Path) -> dict[str, str]:
    """Samples of a file that this hook has written."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                sample, _, value = line.rpartition(" ")
                found[sample] = value
    return found


def _text(samples: dict[str, str]) -> str:
    """All samples, those of one name together, after its two comments."""
    lines = []
    for name, text in _HELP.items():
        own = [f"{sample} {value}" for sample, value in samples.items() if sample.partition("{")[0] == name]
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", *own] if own else []
    return "".join(f"{line}\n" for line in lines)
