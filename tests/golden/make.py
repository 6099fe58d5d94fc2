"""Ask other packages for the learning rates of `cases.py`, and keep them in `schedules.npz`.

Run once, from the root of the repository, in an environment of its own (nothing of it is needed by the tests):

    python3.11 -m venv /tmp/peers
    /tmp/peers/bin/pip install torch transformers timm optax keras mosaicml fastai typing_extensions
    PYTHONPATH=. KERAS_BACKEND=torch JAX_ENABLE_X64=1 /tmp/peers/bin/python tests/golden/make.py

Of each schedule and choice of settings it keeps some values and two sums over all steps (see `cases.signs`), and says
how far this project is from all of the 5,000 values, by `harness.schedules` alone. `--only NAME` prints one schedule.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.golden.cases import CASES, Case, N, cases, sampled, signs

Values = np.ndarray[Any, np.dtype[np.float64]]
OUT = Path(__file__).parent / "schedules.npz"
PACKAGES = ("torch", "transformers", "timm", "optax", "mosaicml", "fastai", "keras")


def of_torch(optimizer_lr: float, make: Callable[[Any], Any], momentum: bool = False) -> Values:
    """The rates, and perhaps the momenta, of N steps of a scheduler of PyTorch's."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=optimizer_lr, momentum=0.9)
    scheduler = make(optimizer)
    keys = ["lr", "momentum"] if momentum else ["lr"]
    found = np.empty((len(keys), N))
    for step in range(N):
        found[:, step] = [optimizer.param_groups[0][key] for key in keys]
        if step < N - 1:
            scheduler.step()
    return found


def torch_values(name: str, settings: dict[str, Any]) -> Values:
    from torch.optim import lr_scheduler, swa_utils

    kind = name.split()[0]
    if kind == "CyclicLR":
        return of_torch(0.1, lambda one: lr_scheduler.CyclicLR(one, **settings), momentum=True)
    if kind == "OneCycleLR":
        return of_torch(0.1, lambda one: lr_scheduler.OneCycleLR(one, **settings), momentum=True)
    rest = {key: value for key, value in settings.items() if key != "lr"}
    if kind == "ChainedScheduler":

        def chained(one: Any) -> Any:
            linear = lr_scheduler.LinearLR(one, rest["start_factor"], 1.0, rest["total_iters"])
            exponential = lr_scheduler.ExponentialLR(one, rest["gamma"])
            steps = lr_scheduler.StepLR(one, rest["step_size"], rest["drop"])
            return lr_scheduler.ChainedScheduler([linear, exponential, steps])

        return of_torch(settings["lr"], chained)
    where = swa_utils if kind == "SWALR" else lr_scheduler
    return of_torch(settings["lr"], lambda one: getattr(where, kind)(one, **rest))


def transformers_values(name: str, settings: dict[str, Any]) -> Values:
    from transformers import optimization

    rest = {key: value for key, value in settings.items() if key != "lr"}
    of_name = {
        "linear": optimization.get_linear_schedule_with_warmup,
        "cosine": optimization.get_cosine_schedule_with_warmup,
        "cosine_with_min_lr": optimization.get_cosine_with_min_lr_schedule_with_warmup,
        "cosine_with_restarts": optimization.get_cosine_with_hard_restarts_schedule_with_warmup,
        "polynomial": optimization.get_polynomial_decay_schedule_with_warmup,
        "inverse_sqrt": optimization.get_inverse_sqrt_schedule,
        "wsd": optimization.get_wsd_schedule,
    }[name.split()[0]]
    if name.split()[0] not in ("inverse_sqrt", "wsd"):
        rest["num_training_steps"] = N
    return of_torch(settings["lr"], lambda one: of_name(one, **rest))


def package(name: str) -> ModuleType:
    """A package whose modules can be imported without what its `__init__` imports: datasets, models, clouds."""
    module = ModuleType(name)
    parent, _, last = name.rpartition(".")
    folders = sys.modules[parent].__path__ if parent else sys.path
    module.__path__ = [str(folder) for one in folders if (folder := Path(one) / last).is_dir()]
    sys.modules[name] = module
    return module


def timm_values(name: str, settings: dict[str, Any]) -> Values:
    import torch

    if "timm" not in sys.modules:
        package("timm")
        package("timm.scheduler")
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.scheduler.poly_lr import PolyLRScheduler

    rest = {key: value for key, value in settings.items() if key != "lr"}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings["lr"])
    kind = PolyLRScheduler if name.startswith("Poly") else CosineLRScheduler
    noise_type = rest.pop("noise_type", "normal")
    scheduler = kind(optimizer, t_in_epochs=False, **rest)
    scheduler.noise_type = noise_type  # which the base class takes, and no other
    found = np.empty((1, N))
    for step in range(N):
        scheduler.step_update(step)
        found[0, step] = optimizer.param_groups[0]["lr"]
    return found


def optax_values(name: str, settings: dict[str, Any]) -> Values:
    import jax
    import optax

    assert jax.config.jax_enable_x64, "set JAX_ENABLE_X64=1"
    schedule = getattr(optax, name.split()[0])(**settings)
    if "staircase" in settings:  # XLA divides by multiplying, and 853 / 853 is a little less than 1
        return np.array([[float(schedule(np.float64(step))) for step in range(N)]])
    steps = jax.numpy.arange(N)
    return np.asarray(jax.vmap(schedule)(steps), np.float64).reshape(1, N)


def composer_values(name: str, settings: dict[str, Any]) -> Values:
    if "composer" not in sys.modules:
        for name_of_package in ("composer", "composer.utils", "composer.core", "composer.optim"):
            package(name_of_package)
        sys.modules["composer.utils"].StringEnum = importlib.import_module("composer.utils.string_enum").StringEnum
        time = importlib.import_module("composer.core.time")
        for known in ("Time", "TimeUnit", "Timestamp"):
            setattr(sys.modules["composer.core"], known, getattr(time, known))
        sys.modules["composer.core"].State = SimpleNamespace
    from composer.core import Time, Timestamp
    from composer.optim import scheduler as schedulers

    ratio = settings["scale_schedule_ratio"]
    rest = {key: value for key, value in settings.items() if key not in ("lr", "scale_schedule_ratio")}
    # its own scale_warmup (0.32.1) scales the line, and not where it ends
    rest |= {"t_warmup": f"{int(rest['t_warmup'] * ratio)}ba", "t_max": f"{rest['t_max']}ba"}
    schedule = getattr(schedulers, name)(**rest)
    longest = Time.from_batch(int(settings["t_max"] * ratio))
    found = np.empty((1, N))
    for step in range(N):
        state: Any = SimpleNamespace(max_duration=longest, timestamp=Timestamp(batch=step), previous_training_time=None)
        found[0, step] = settings["lr"] * schedule(state, ratio)
    return found


def fastai_values(name: str, settings: dict[str, Any]) -> Values:
    from fastai.callback import schedule

    parts = [step / N for step in range(N)]
    if name == "fit_one_cycle":
        top, up = settings["lr_max"], settings["pct_start"]
        lr = schedule.combined_cos(up, top / settings["div"], top, top / settings["div_final"])
        mom = schedule.combined_cos(up, *settings["moms"])
        return np.array([[float(lr(part)) for part in parts], [float(mom(part)) for part in parts]])
    one = getattr(schedule, name)(**settings)
    return np.array([[float(one(part)) for part in parts]])


def keras_values(name: str, settings: dict[str, Any]) -> Values:
    import keras
    import torch

    keras.config.set_floatx("float64")  # which the backend numpy does not follow
    schedule = getattr(keras.optimizers.schedules, name)(**settings)
    if "warmup_steps" in settings:  # which asks whether it is over, of one step
        return np.array([[float(schedule(np.float64(step))) for step in range(N)]])
    steps = torch.arange(N, dtype=torch.float64)  # of which it takes some to float32
    return np.asarray(schedule(steps)).reshape(1, N)


PEERS: dict[str, Callable[[str, dict[str, Any]], Values]] = {
    "torch": torch_values,
    "transformers": transformers_values,
    "timm": timm_values,
    "optax": optax_values,
    "composer": composer_values,
    "fastai": fastai_values,
    "keras": keras_values,
}


def peer_values(name: str, case: Case) -> Values:
    """What the package gives: N learning rates, and in a second row perhaps N momenta."""
    package, _, schedule = name.partition(".")
    found = PEERS[package](schedule, case.settings)
    return found if case.momentum else found[:1]


def our_values(case: Case) -> Values:
    """What this project gives at the same steps, by its schedules alone: neither a run nor a configuration."""
    from fractions import Fraction

    from harness.schedules import OppositeSpec, OverlapWarmUp, WarmUp, parse_spec
    from harness.schedules.opposite import OppositeSchedule
    from harness.schedules.spec import Frame

    lr, steps = case.lr, np.arange(case.first, N + case.first)
    frame = Frame(N, 2 * N, 1.0, Fraction(repr(lr.get("stretch", 1.0))))
    schedule: Any = parse_spec(lr["schedule"]).build(frame)
    if "warmup" in lr:
        warmup, stretch = lr["warmup"], lr.get("stretch", 1.0)
        kind = OverlapWarmUp if warmup.get("mode") == "overlap" else WarmUp
        length = int(int(warmup["length"][:-2]) * stretch)
        schedule = kind(schedule, warmup["start"], length, warmup.get("shape", "linear"))
    rows = [schedule.values(steps)]
    if case.momentum:
        opposite = OppositeSpec(**lr["momentum"]["opposite"])
        height = opposite.heights(parse_spec(lr["schedule"])).build(frame)
        rows.append(OppositeSchedule(height, opposite.high, opposite.low).values(steps))
    return np.array(rows)


def kept_of(name: str, number: int, values: Values) -> list[float]:
    """What is kept of N values: some of them, and sums with signs, which are rounded once."""
    sums = [
        math.fsum(sign * value for sign, value in zip(row, values.tolist(), strict=True)) for row in signs(name, number)
    ]
    return [*values[sampled(name, number)].tolist(), *sums]


def main() -> None:
    """Run all packages that are installed; a schedule whose package is missing is named, and nothing is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run those whose name begins like this; write only new ones")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    kept: dict[str, Values] = {}
    for name in CASES:
        if not name.startswith(only):
            continue
        rows, worst = [], 0.0
        for number, case in enumerate(cases(name)):
            peers, ours = peer_values(name, case), our_values(case)
            highest = np.abs(peers).max(axis=1, keepdims=True)
            worst = max(worst, float((np.abs(peers - ours) / highest).max()))
            rows.append([kept_of(name, number, row) for row in peers])
        kept[name] = np.array(rows)
        print(f"{name}: at most {worst:.1e} of the highest value from {len(rows)} x {N} values", flush=True)
    if only:
        with np.load(OUT) as before:
            known = dict(before)
        versions, package = json.loads(str(known["versions"])), only.partition(".")[0]
        found = importlib.metadata.version(package)
        if versions[package].partition("+")[0] != found.partition("+")[0]:
            print(f"{OUT} is by {package} {versions[package]}, and this is {found}: nothing is written")
        elif not kept.keys() <= known.keys():
            np.savez_compressed(OUT, **{**kept, **known})
            print(f"{OUT}: {', '.join(sorted(kept.keys() - known.keys()))} are new")
    else:
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        np.savez_compressed(OUT, versions=np.array(json.dumps(versions)), **kept)
        print(f"{OUT}: {OUT.stat().st_size} bytes; {versions}")


if __name__ == "__main__":
    main()
