"""What a program needs to train on in PyTorch without the harness: weights, optimizer, plan, and ten lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.bridge.state import optimizer_of
from harness.errors import ConfigError
from harness.files import replace_file

if TYPE_CHECKING:
    from harness.bridge.counterparts import Counterpart
    from harness.bridge.mapping import ArrayMap
    from harness.bridge.opening import Opened
    from harness.bridge.sides import Sides, TorchNames

MODEL, AVERAGE, OPTIMIZER, PLAN, SCRIPT = "model.pt", "average.pt", "optimizer.pt", "plan.csv", "go_on.py"


def export(opened: Opened, sides: Sides, mapping: ArrayMap, folder: Path, names: TorchNames) -> list[Path]:
    """Write `model.pt` and `optimizer.pt` (state dicts), `plan.csv` and `go_on.py`.

    Where the run averages its weights, `average.pt` is the module with these, which `go_on.py` does not need.

    Args:
        opened: the run.
        sides: both networks.
        mapping: of the arrays.
        folder: for the files.
        names: of the PyTorch side.

    Returns:
        The files.

    Raises:
        ConfigError: if the optimizer has no counterpart; the weights are written then. Or if nothing can be written.
    """
    run, averages, written = opened.run, opened.arrays.get("averages"), [MODEL, OPTIMIZER, PLAN, SCRIPT]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SCRIPT).unlink(missing_ok=True)  # it names the iteration of the other files, so it is written last
        if averages:
            replace(sides, parameters={**sides.parameters, **averages}).load(mapping)
            torch.save(sides.torch.module.state_dict(), folder / AVERAGE)
            written.insert(1, AVERAGE)
        sides.load(mapping)
        torch.save(sides.torch.module.state_dict(), folder / MODEL)
        replace_file(folder / PLAN, run.plan.to_csv(run.config.optimizer.own_momentum))
        optimizer, counterpart = optimizer_of(opened, sides, mapping)
        torch.save(optimizer.state_dict(), folder / OPTIMIZER)
        replace_file(
            folder / SCRIPT,
            "\n".join(script(sides.torch.module, optimizer, counterpart, names, opened.iteration)) + "\n",
        )
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose another --output") from None
    return [folder / name for name in written]


def script(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    counterpart: Counterpart,
    names: TorchNames,
    iteration: int,
) -> Sequence[str]:
    """The lines of `go_on.py`: module, optimizer and rates as they were after an iteration."""
    package, _, function = names.module.partition(":")
    called = {id(one): name for name, one in network.named_parameters()}
    groups = optimizer.param_groups
    given = ", ".join(f"{key}={value!r}" for key, value in names.params.items())
    arguments = ", ".join(f"{key}={value!r}" for key, value in counterpart.kwargs.items())
    lines = [
        f'"""The run after iteration {iteration}: `module` and `optimizer`; call `set_rate(t)` before update t."""',
        "",
        "import csv",
        "from pathlib import Path",
        "",
        "import torch",
        "",
        f"from {package} import {function}",
        "",
        "here = Path(__file__).parent",
        f"iteration = {iteration}  # the last update of these weights",
        f"module = {function}({given})",
        f'module.load_state_dict(torch.load(here / "{MODEL}"))',
    ]
    if len(groups) == 1:
        lines.append("groups = [one for one in module.parameters() if one.requires_grad]")
    else:
        lines.append("named = dict(module.named_parameters())")
        lines.append("groups = [")
        for group in groups:
            members = [called[id(one)] for one in group["params"]]
            lines.append(f'    {{"params": [named[name] for name in {members!r}]}},')
        lines.append("]")
    lines += [
        f"optimizer = torch.optim.{type(optimizer).__name__}(groups, {arguments})",
        f'optimizer.load_state_dict(torch.load(here / "{OPTIMIZER}"))',
        f'plan = csv.DictReader((here / "{PLAN}").read_text().splitlines())',
        'rows = {int(row["iteration"]): row for row in plan}',
        "",
        "",
        "def set_rate(t):",
        "    for group in optimizer.param_groups:",
        '        group["lr"] = float(rows[t]["lr"]) * group["lr_mult"]',
        *_momentum_lines(groups),
    ]
    for hook in counterpart.hooks:
        lines += ["", "", *hook.script[:-1], "", "", hook.script[-1]]
    return lines


def _momentum_lines(groups: Sequence[Any]) -> list[str]:
    if "betas" in groups[0]:
        return [
            '        if rows[t]["momentum"]:',
            '            group["betas"] = (float(rows[t]["momentum"]), group["betas"][1])',
        ]
    if "momentum" in groups[0]:
        return ['        group["momentum"] = float(rows[t]["momentum"] or group["momentum"])']
    return []
