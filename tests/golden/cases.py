"""Schedules of other packages with random settings, and the same in this project's YAML.

`make.py` runs the packages with the settings, `tests/schedules/test_peers.py` this project with the YAML. Both draw
from here, and neither needs what the other does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

N = 5000
SETTINGS = 20
SAMPLED = 16


@dataclass(frozen=True)
class Case:
    """One schedule of a package with one choice of settings.

    Attributes:
        settings: for the package, by name.
        lr: the section `lr` of a configuration.
        first: the iteration here that is step 0 there: 1, the first update, where nothing else is said.
        momentum: whether the momentum is compared as well.
    """

    settings: dict[str, Any]
    lr: dict[str, Any]
    first: int = 1
    momentum: bool = field(default=False)


def cases(name: str) -> list[Case]:
    """All settings of a schedule."""
    return [CASES[name](random.Random(f"{name} {number}")) for number in range(SETTINGS)]


def sampled(name: str, number: int) -> list[int]:
    """The steps whose values are kept, of one choice of settings: the first, the last, and some between."""
    return sorted({0, 1, N - 1, *random.Random(f"{name} {number} steps").sample(range(2, N - 1), SAMPLED - 3)})


def signs(name: str, number: int) -> list[list[int]]:
    """Two rows of a sign for each step: sums with them are kept, to which every step contributes."""
    draw = random.Random(f"{name} {number} signs")
    return [[1 if bit == "1" else -1 for bit in f"{draw.getrandbits(N):0{N}b}"] for _ in range(2)]


def shifted(schedule: Any) -> dict[str, Any]:
    """A schedule whose 0 is the first update: how most packages count."""
    return {"sequential": {"boundaries": ["1it"], "schedules": [0, schedule]}}


def its(length: int) -> str:
    """A length."""
    return f"{length}it"


def rate(draw: random.Random, low: float = 1e-4, high: float = 1.0) -> float:
    """A learning rate, evenly on a logarithmic scale."""
    return round(low * (high / low) ** draw.random(), 8)


def torch_exponential(draw: random.Random) -> Case:
    base, gamma = rate(draw), round(draw.uniform(0.999, 1.0005), 6)
    lr = {"exponential": {"start_lr": base, "finish_lr": base * gamma**N, "length": its(N)}}
    return Case({"lr": base, "gamma": gamma}, {"schedule": shifted(lr)})


def torch_step(draw: random.Random) -> Case:
    base, step, gamma = rate(draw), draw.randrange(300, 2000), round(draw.uniform(0.1, 0.95), 3)
    lr = {"factor": {"base_lr": base, "step": its(step), "factor": gamma, "stop_factor_lr": 0}}
    return Case({"lr": base, "step_size": step, "gamma": gamma}, {"schedule": lr})


def torch_multi_step(draw: random.Random) -> Case:
    base, gamma = rate(draw), round(draw.uniform(0.1, 0.9), 3)
    milestones = sorted(draw.sample(range(1, N), draw.randrange(1, 6)))
    lr = {"multi_factor": {"base_lr": base, "step": [its(m) for m in milestones], "factor": gamma}}
    return Case({"lr": base, "milestones": milestones, "gamma": gamma}, {"schedule": lr})


def torch_polynomial(draw: random.Random) -> Case:
    base, total, power = rate(draw), draw.randrange(2000, 6000), draw.choice([0.5, 1.0, 1.5, 2.0, 3.0])
    lr = {"poly": {"base_lr": base, "max_update": its(total), "pwr": power}}
    if total >= N:
        lr = {"poly": {"base_lr": base, "max_update": its(total), "pwr": power}}
    return Case({"lr": base, "total_iters": total, "power": power}, {"schedule": shifted(lr)})


def torch_linear(draw: random.Random) -> Case:
    base, total = rate(draw), draw.randrange(1000, 4900)
    start, end = round(draw.uniform(0.05, 1), 4), round(draw.uniform(0.05, 1), 4)
    lr = {"ramp": {"start_lr": base * start, "end_lr": base * end, "length": its(total)}}
    settings = {"lr": base, "start_factor": start, "end_factor": end, "total_iters": total}
    return Case(settings, {"schedule": shifted(lr)})


def torch_constant(draw: random.Random) -> Case:
    """A warm-up that stays where it began."""
    base, total, factor = rate(draw), draw.randrange(10, 3000), round(draw.uniform(0.05, 0.9), 4)
    warmup = {"length": its(total), "start": base * factor, "shape": "constant", "mode": "overlap"}
    return Case({"lr": base, "factor": factor, "total_iters": total}, {"warmup": warmup, "schedule": base})


def torch_cosine(draw: random.Random) -> Case:
    base, low, total = rate(draw), rate(draw, 1e-7, 1e-5), draw.randrange(N, 2 * N)
    lr = {"cosine": {"min_lr": low, "max_lr": base, "cycle_length": its(total)}}
    return Case({"lr": base, "T_max": total, "eta_min": low}, {"schedule": shifted(lr)})


def torch_restarts(draw: random.Random) -> Case:
    base, low, first, times = rate(draw), rate(draw, 1e-7, 1e-5), draw.randrange(50, 900), draw.choice([1, 2, 3])
    lr = {"schedule_class": "cosine", "cycle_length": its(first), "cycle_length_decay": times}
    lr |= {"min_lr": low, "max_lr": base}
    return Case({"lr": base, "T_0": first, "T_mult": times, "eta_min": low}, {"schedule": shifted({"cyclical": lr})})


def torch_swa(strategy: str) -> Callable[[random.Random], Case]:
    """SWALR: from one rate to another, and then constant."""

    def of(draw: random.Random) -> Case:
        base, low, length = rate(draw), rate(draw), draw.randrange(10, 4000)
        settings = {"lr": base, "swa_lr": low, "anneal_epochs": length, "anneal_strategy": strategy}
        shape = "cosine" if strategy == "cos" else "linear"
        lr = {"ramp": {"start_lr": base, "end_lr": low, "length": its(length), "shape": shape}}
        return Case(settings, {"schedule": shifted(lr)})

    return of


def torch_cycles(mode: str) -> Callable[[random.Random], Case]:
    """CyclicLR in one of its modes, with the momentum the other way round."""

    def of(draw: random.Random) -> Case:
        low, high = rate(draw, 1e-4, 1e-2), rate(draw, 2e-2, 1.0)
        up, down = draw.randrange(20, 900), draw.randrange(20, 900)
        weak, strong = round(draw.uniform(0.5, 0.85), 3), round(draw.uniform(0.86, 0.99), 3)
        settings = {"base_lr": low, "max_lr": high, "step_size_up": up, "step_size_down": down, "mode": mode}
        settings |= {"base_momentum": weak, "max_momentum": strong}
        shared = {"min_lr": low, "max_lr": high, "cycle_length": its(up + down), "inc_fraction": up / (up + down)}
        if mode == "triangular":
            lr: dict[str, Any] = {"cyclical": {"schedule_class": "triangular", **shared}}
        elif mode == "triangular2":
            lr = {"triangular2": shared}
        else:
            settings["gamma"] = round(draw.uniform(0.999, 0.99999), 6)
            lr = {"exp_range": {"gamma": settings["gamma"], **shared}}
        return Case(settings, {"schedule": lr, "momentum": {"opposite": {"high": strong, "low": weak}}}, 0, True)

    return of


def torch_one_cycle(strategy: str, three_phase: bool) -> Callable[[random.Random], Case]:
    """OneCycleLR in one of its forms, with the momentum the other way round."""

    def of(draw: random.Random) -> Case:
        top, up = rate(draw, 1e-3, 1.0), round(draw.uniform(0.1, 0.45), 3)
        div, final = round(draw.uniform(5, 50), 2), 10 ** draw.randrange(1, 6)
        weak, strong = round(draw.uniform(0.5, 0.85), 3), round(draw.uniform(0.86, 0.99), 3)
        settings = {"max_lr": top, "total_steps": N, "pct_start": up, "div_factor": div, "final_div_factor": final}
        settings |= {"anneal_strategy": strategy, "three_phase": three_phase}
        settings |= {"base_momentum": weak, "max_momentum": strong}
        lr = {"start_lr": top / div, "max_lr": top, "end_lr": top / div / final, "cycle_length": its(N)}
        lr |= {"inc_fraction": up, "shape": "cosine" if strategy == "cos" else "linear", "starts": "first_update"}
        lr |= {"phases": "three" if three_phase else "two"}
        momentum = {"opposite": {"high": strong, "low": weak}}
        return Case(settings, {"schedule": {"rise_and_fall": lr}, "momentum": momentum}, 1, True)

    return of


def torch_chained(draw: random.Random) -> Case:
    """A product: a line times a power times drops."""
    base, total, start = rate(draw), draw.randrange(500, 4000), round(draw.uniform(0.1, 0.9), 3)
    gamma, step, drop = (
        round(draw.uniform(0.9995, 0.9999), 6),
        draw.randrange(400, 2000),
        round(draw.uniform(0.3, 0.9), 3),
    )
    settings = {
        "lr": base,
        "total_iters": total,
        "start_factor": start,
        "gamma": gamma,
        "step_size": step,
        "drop": drop,
    }
    parts = [
        {"ramp": {"start_lr": base * start, "end_lr": base, "length": its(total)}},
        {"exponential": {"start_lr": 1, "finish_lr": gamma**N, "length": its(N)}},
    ]
    drops = {"factor": {"base_lr": 1, "step": its(step), "factor": drop, "stop_factor_lr": 0}}
    return Case(
        settings, {"schedule": {"multiplied": {"schedules": [shifted({"multiplied": {"schedules": parts}}), drops]}}}
    )


def hf_linear(draw: random.Random) -> Case:
    base, warm = rate(draw), draw.randrange(10, 2000)
    lr = {"schedule": {"poly": {"base_lr": base, "max_update": its(N - warm), "pwr": 1}}}
    lr |= {"start_lr": 0, "length": its(warm)}
    return Case({"lr": base, "num_warmup_steps": warm}, {"schedule": shifted({"linear_warm_up": lr})})


def hf_cosine(draw: random.Random) -> Case:
    base, warm = rate(draw), draw.randrange(10, 2000)
    lr = {"schedule": {"cosine": {"min_lr": 0, "max_lr": base, "cycle_length": its(N - warm)}}}
    lr |= {"start_lr": 0, "length": its(warm)}
    return Case({"lr": base, "num_warmup_steps": warm}, {"schedule": shifted({"linear_warm_up": lr})})


def hf_cosine_min(draw: random.Random) -> Case:
    base, warm, least = rate(draw), draw.randrange(10, 2000), round(draw.uniform(0.01, 0.5), 4)
    lr = {"schedule": {"cosine": {"min_lr": base * least, "max_lr": base, "cycle_length": its(N - warm)}}}
    lr |= {"start_lr": 0, "length": its(warm)}
    settings = {"lr": base, "num_warmup_steps": warm, "min_lr_rate": least}
    return Case(settings, {"schedule": shifted({"linear_warm_up": lr})})


def hf_restarts(draw: random.Random) -> Case:
    cycles = draw.choice([2, 3, 4, 5])
    base, length = rate(draw), draw.randrange(4000 // cycles, 4900 // cycles)
    lr = {
        "schedule": {"cyclical": {"schedule_class": "cosine", "min_lr": 0, "max_lr": base, "cycle_length": its(length)}}
    }
    warm = N - cycles * length
    lr |= {"start_lr": 0, "length": its(warm)}
    settings = {"lr": base, "num_warmup_steps": warm, "num_cycles": cycles}
    return Case(settings, {"schedule": shifted({"linear_warm_up": lr})})


def hf_polynomial(draw: random.Random) -> Case:
    base, warm, end, power = (
        rate(draw),
        draw.randrange(10, 2000),
        rate(draw, 1e-7, 5e-5),
        draw.choice([0.5, 1.0, 2.0, 2.5]),
    )
    lr = {"schedule": {"poly": {"base_lr": base, "final_lr": end, "max_update": its(N - warm), "pwr": power}}}
    lr |= {"start_lr": 0, "length": its(warm)}
    settings = {"lr": base, "num_warmup_steps": warm, "lr_end": end, "power": power}
    return Case(settings, {"schedule": shifted({"linear_warm_up": lr})})


def hf_inverse_sqrt(draw: random.Random) -> Case:
    base, warm = rate(draw), draw.randrange(10, 2000)
    warmup = {"length": its(warm), "start": 0, "mode": "overlap"}
    lr = {"warmup": warmup, "schedule": {"inverse_sqrt": {"base_lr": base, "timescale": its(warm)}}}
    return Case({"lr": base, "num_warmup_steps": warm}, lr, 0)


def hf_stable(kind: str) -> Callable[[random.Random], Case]:
    """Warm-up, stable phase and decay to a fraction, each way in one shape."""

    def of(draw: random.Random) -> Case:
        base, least = rate(draw), round(draw.uniform(0.01, 0.5), 4)
        warm, decay = draw.randrange(100, 1500), draw.randrange(500, 2500)
        stable = N - warm - decay - draw.randrange(0, 300)
        settings = {"lr": base, "num_warmup_steps": warm, "num_stable_steps": stable, "num_decay_steps": decay}
        settings |= {"min_lr_ratio": least, "warmup_type": "linear" if kind == "1-sqrt" else kind, "decay_type": kind}
        way = {"1-sqrt": {"shape": "poly", "pwr": 0.5}}.get(kind, {"shape": kind})
        cool: dict[str, Any] = {
            "schedule": base,
            "start_idx": its(stable),
            "length": its(decay),
            "finish_fraction": least,
        }
        lr: dict[str, Any] = {"schedule": {"cool_down": cool | way}, "start_lr": base * least, "length": its(warm)}
        return Case(settings, {"schedule": shifted({"warm_up": lr | {"shape": settings["warmup_type"]}})})

    return of


def timm_cosine(draw: random.Random) -> Case:
    base, low, first, times = rate(draw), rate(draw, 1e-7, 1e-5), draw.randrange(100, 900), draw.choice([1, 2])
    warm, start = draw.randrange(10, 400), rate(draw, 1e-7, 1e-5)
    settings = {"lr": base, "t_initial": first, "lr_min": low, "cycle_mul": times, "cycle_limit": 100}
    settings |= {"warmup_t": warm, "warmup_lr_init": start, "warmup_prefix": True}
    lr = {"schedule_class": "cosine", "cycle_length": its(first), "cycle_length_decay": times}
    lr |= {"min_lr": low, "max_lr": base}
    warmed = {"schedule": {"cyclical": lr}, "start_lr": start, "length": its(warm)}
    return Case(settings, {"schedule": shifted({"linear_warm_up": warmed})})


def timm_poly(draw: random.Random) -> Case:
    base, low, power = rate(draw), rate(draw, 1e-7, 1e-5), draw.choice([0.5, 0.9, 1.0, 2.0])
    settings = {"lr": base, "t_initial": N, "lr_min": low, "power": power}
    lr = {"poly": {"base_lr": base, "final_lr": low, "max_update": its(N), "pwr": power}}
    return Case(settings, {"schedule": shifted(lr)})


def timm_noise(distribution: str) -> Callable[[random.Random], Case]:
    """Noise on a cosine, in a part of the run."""

    def of(draw: random.Random) -> Case:
        base, low = rate(draw), rate(draw, 1e-7, 1e-5)
        begin, length = draw.randrange(0, 2000), draw.randrange(500, 2900)
        noise, seed = round(draw.uniform(0.05, 0.95), 3), draw.randrange(0, 10**6)
        settings = {"lr": base, "t_initial": N, "lr_min": low, "noise_range_t": [begin, begin + length]}
        settings |= {"noise_pct": noise, "noise_seed": seed, "noise_type": distribution}
        noisy = {"schedule": {"cosine": {"min_lr": low, "max_lr": base, "cycle_length": its(N)}}, "noise": noise}
        noisy |= {"seed": seed, "distribution": distribution, "start_idx": its(begin), "length": its(length)}
        return Case(settings, {"schedule": shifted({"noisy": noisy})})

    return of


def optax_polynomial(draw: random.Random) -> Case:
    """Up as often as down."""
    start, end, power = rate(draw), rate(draw), draw.choice([0.5, 1.0, 1.5, 2.0, 3.0])
    steps = draw.randrange(1000, 4900)
    settings = {"init_value": start, "end_value": end, "power": power, "transition_steps": steps}
    lr = {"poly": {"base_lr": start, "final_lr": end, "max_update": its(steps), "pwr": power}}
    return Case(settings, {"schedule": shifted(lr)})


def optax_exponential(draw: random.Random) -> Case:
    """With a floor where it falls, and a ceiling where it rises."""
    start, steps = rate(draw, 1e-2, 1e-1), draw.randrange(200, 2000)
    factor = round(draw.uniform(0.2, 0.9) if draw.random() < 0.5 else draw.uniform(1.1, 3), 4)
    whole = start * factor ** (N / steps)
    limit = round(start * (whole / start) ** 0.7, 8)
    settings = {"init_value": start, "transition_steps": steps, "decay_rate": factor, "end_value": limit}
    lr = {"exponential": {"start_lr": start, "finish_lr": whole, "length": its(N)}}
    extreme = "maximum" if factor < 1 else "minimum"
    return Case(settings, {"schedule": shifted({extreme: {"schedules": [lr, limit]}})})


def optax_staircase(draw: random.Random) -> Case:
    start, steps, factor = rate(draw), draw.randrange(300, 1500), round(draw.uniform(0.2, 0.9), 4)
    limit = round(start * factor**2.5, 8)
    settings = {"init_value": start, "transition_steps": steps, "decay_rate": factor, "end_value": limit}
    lr = {"factor": {"base_lr": start, "step": its(steps), "factor": factor, "stop_factor_lr": 0}}
    return Case(settings | {"staircase": True}, {"schedule": {"maximum": {"schedules": [lr, limit]}}})


def optax_cosine_warmup(draw: random.Random) -> Case:
    start, peak, end, warm = rate(draw, 1e-5, 1e-3), rate(draw, 1e-2), rate(draw, 1e-6, 1e-4), draw.randrange(10, 2000)
    settings = {"init_value": start, "peak_value": peak, "warmup_steps": warm, "decay_steps": N, "end_value": end}
    lr = {"schedule": {"cosine": {"min_lr": end, "max_lr": peak, "cycle_length": its(N - warm)}}}
    return Case(settings, {"schedule": shifted({"linear_warm_up": lr | {"start_lr": start, "length": its(warm)}})})


def optax_linear_one_cycle(draw: random.Random) -> Case:
    """Three lines that turn where PyTorch's three phases would, with a start of their own."""
    peak, up, down = rate(draw, 1e-3), draw.randrange(500, 1500), draw.randrange(2600, 4500)
    div, final = round(draw.uniform(5, 50), 2), round(draw.uniform(10, 1e4), 2)
    settings = {"transition_steps": N, "peak_value": peak, "pct_start": (up + 0.5) / N, "pct_final": (down + 0.5) / N}
    settings |= {"div_factor": div, "final_div_factor": final}
    start = peak / div
    ramps = [(start, peak, up), (peak, start, down - up), (start, start / final, N - down)]
    schedules = [{"ramp": {"start_lr": a, "end_lr": b, "length": its(n)}} for a, b, n in ramps]
    lr = {"sequential": {"boundaries": [its(up), its(down)], "schedules": schedules}}
    return Case(settings, {"schedule": shifted(lr)})


def optax_cosine_one_cycle(draw: random.Random) -> Case:
    peak, up = rate(draw, 1e-3), draw.randrange(500, 2500)
    div, final = round(draw.uniform(5, 50), 2), round(draw.uniform(10, 1e4), 2)
    settings = {"transition_steps": N, "peak_value": peak, "pct_start": (up + 0.5) / N}  # it rounds down
    settings |= {"div_factor": div, "final_div_factor": final}
    lr = {"start_lr": peak / div, "max_lr": peak, "end_lr": peak / div / final, "cycle_length": its(N)}
    return Case(settings, {"schedule": shifted({"rise_and_fall": lr | {"inc_fraction": up / N}})})


def composer_stretched(kind: str) -> Callable[[random.Random], Case]:
    """A warm-up and a decay, all of it half, or twice, as long."""

    def of(draw: random.Random) -> Case:
        base, ratio = rate(draw), draw.choice([0.5, 0.25, 2.0, 1.0])
        warm, total = 4 * draw.randrange(20, 120), 4 * draw.randrange(250, 600)
        least = round(draw.uniform(0.01, 0.3), 4)
        settings = {"lr": base, "t_warmup": warm, "t_max": total, "alpha_f": least, "scale_schedule_ratio": ratio}
        if kind == "cosine":
            decay: dict[str, Any] = {"min_lr": base * least, "max_lr": base, "cycle_length": its(total - warm)}
        else:
            power = 1.0 if kind == "linear" else draw.choice([0.5, 2.0, 3.0])
            settings |= {} if kind == "linear" else {"power": power}
            decay = {"base_lr": base, "final_lr": base * least, "max_update": its(total - warm), "pwr": power}
        schedule = {"cosine" if kind == "cosine" else "poly": decay}
        lr = {"warmup": {"length": its(warm), "start": 0}, "schedule": schedule, "stretch": ratio}
        return Case(settings, lr, 0)

    return of


def fastai_one_cycle(draw: random.Random) -> Case:
    top, up = rate(draw, 1e-3), draw.randrange(500, 2500)
    div, final = round(draw.uniform(5, 50), 2), round(draw.uniform(1e3, 1e6), 2)
    weak, strong = round(draw.uniform(0.5, 0.85), 3), round(draw.uniform(0.86, 0.99), 3)
    settings = {"lr_max": top, "div": div, "div_final": final, "pct_start": up / N, "moms": [strong, weak, strong]}
    lr = {"start_lr": top / div, "max_lr": top, "end_lr": top / final, "cycle_length": its(N), "inc_fraction": up / N}
    momentum = {"opposite": {"high": strong, "low": weak}}
    return Case(settings, {"schedule": {"rise_and_fall": lr}, "momentum": momentum}, 0, True)


def fastai_ramp(shape: str) -> Callable[[random.Random], Case]:
    """From one learning rate to another, up as often as down."""

    def of(draw: random.Random) -> Case:
        start, end = rate(draw), rate(draw)
        settings = {"start": start, "end": end}
        lr = {"start_lr": start, "end_lr": end, "length": its(N), "shape": shape}
        if shape == "poly":
            settings["power"] = lr["pwr"] = draw.choice([0.5, 1.5, 2.0, 3.0])
        return Case(settings, {"schedule": {"ramp": lr}}, 0)

    return of


def keras_cosine(draw: random.Random) -> Case:
    base, top, warm = rate(draw, 1e-4, 1e-3), rate(draw, 1e-2), draw.randrange(100, 2000)
    least = round(draw.uniform(0.01, 0.3), 4)
    settings = {"initial_learning_rate": base, "warmup_target": top, "warmup_steps": warm}
    settings |= {"decay_steps": N - warm, "alpha": least}
    lr = {"schedule": {"cosine": {"min_lr": top * least, "max_lr": top, "cycle_length": its(N - warm)}}}
    return Case(settings, {"schedule": {"linear_warm_up": lr | {"start_lr": base, "length": its(warm)}}}, 0)


def keras_restarts(draw: random.Random) -> Case:
    """Cycles of equal length and lower amplitude above a floor."""
    base, first, lower = rate(draw), draw.randrange(200, 1500), round(draw.uniform(0.5, 1.0), 3)
    least = round(draw.uniform(0.01, 0.3), 4)
    settings = {"initial_learning_rate": base, "first_decay_steps": first, "t_mul": 1.0, "m_mul": lower, "alpha": least}
    lr = {"schedule_class": "cosine", "cycle_length": its(first), "cycle_magnitude_decay": lower, "decay": "amplitude"}
    return Case(settings, {"schedule": {"cyclical": lr | {"min_lr": base * least, "max_lr": base}}}, 0)


def keras_polynomial(draw: random.Random) -> Case:
    base, end, power = rate(draw), rate(draw), draw.choice([0.5, 1.0, 2.0])
    steps = draw.randrange(1000, 4900)
    settings = {"initial_learning_rate": base, "end_learning_rate": end, "decay_steps": steps, "power": power}
    lr = {"poly": {"base_lr": base, "final_lr": end, "max_update": its(steps), "pwr": power}}
    return Case(settings, {"schedule": lr}, 0)


CASES: dict[str, Callable[[random.Random], Case]] = {
    "torch.ExponentialLR": torch_exponential,
    "torch.StepLR": torch_step,
    "torch.MultiStepLR": torch_multi_step,
    "torch.PolynomialLR": torch_polynomial,
    "torch.LinearLR": torch_linear,
    "torch.ConstantLR": torch_constant,
    "torch.CosineAnnealingLR": torch_cosine,
    "torch.CosineAnnealingWarmRestarts": torch_restarts,
    "torch.CyclicLR triangular": torch_cycles("triangular"),
    "torch.CyclicLR triangular2": torch_cycles("triangular2"),
    "torch.CyclicLR exp_range": torch_cycles("exp_range"),
    "torch.OneCycleLR cos": torch_one_cycle("cos", three_phase=False),
    "torch.OneCycleLR cos, three phases": torch_one_cycle("cos", three_phase=True),
    "torch.OneCycleLR linear": torch_one_cycle("linear", three_phase=False),
    "torch.OneCycleLR linear, three phases": torch_one_cycle("linear", three_phase=True),
    "torch.ChainedScheduler": torch_chained,
    "torch.SWALR cos": torch_swa("cos"),
    "torch.SWALR linear": torch_swa("linear"),
    "transformers.linear": hf_linear,
    "transformers.cosine": hf_cosine,
    "transformers.cosine_with_min_lr": hf_cosine_min,
    "transformers.cosine_with_restarts": hf_restarts,
    "transformers.polynomial": hf_polynomial,
    "transformers.inverse_sqrt": hf_inverse_sqrt,
    "transformers.wsd linear": hf_stable("linear"),
    "transformers.wsd cosine": hf_stable("cosine"),
    "transformers.wsd 1-sqrt": hf_stable("1-sqrt"),
    "timm.CosineLRScheduler": timm_cosine,
    "timm.PolyLRScheduler": timm_poly,
    "timm.Scheduler normal noise": timm_noise("normal"),
    "timm.Scheduler uniform noise": timm_noise("uniform"),
    "optax.polynomial_schedule": optax_polynomial,
    "optax.exponential_decay": optax_exponential,
    "optax.exponential_decay staircase": optax_staircase,
    "optax.warmup_cosine_decay_schedule": optax_cosine_warmup,
    "optax.linear_onecycle_schedule": optax_linear_one_cycle,
    "optax.cosine_onecycle_schedule": optax_cosine_one_cycle,
    "composer.LinearWithWarmupScheduler": composer_stretched("linear"),
    "composer.CosineAnnealingWithWarmupScheduler": composer_stretched("cosine"),
    "composer.PolynomialWithWarmupScheduler": composer_stretched("poly"),
    "fastai.fit_one_cycle": fastai_one_cycle,
    "fastai.SchedLin": fastai_ramp("linear"),
    "fastai.SchedCos": fastai_ramp("cosine"),
    "fastai.SchedExp": fastai_ramp("exponential"),
    "fastai.SchedPoly": fastai_ramp("poly"),
    "keras.CosineDecay": keras_cosine,
    "keras.CosineDecayRestarts": keras_restarts,
    "keras.PolynomialDecay": keras_polynomial,
}
