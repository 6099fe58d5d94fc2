"""Write `trends.json`: what PyTorch's ReduceLROnPlateau and Keras' EarlyStopping decide from random evaluations.

Not run by tests. In an environment of its own, which has NumPy, PyTorch (CPU) and Keras 3, without this project:

    KERAS_BACKEND=torch python tests/plan/peers_of_trends.py > tests/plan/trends.json

Values are multiples of 1/64 in half of the sequences, so that there are ties, and so that Keras, which compares in
float32, rounds nothing.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import types

LENGTH = 40


def values_of(generator: random.Random, nan_first: bool) -> list[float]:
    """Evaluations that fall or rise with noise, some of them equal, NaN or infinite."""
    coarse, slope = generator.random() < 0.5, generator.choice((-1.0, -0.2, 0.0, 0.2, 1.0))
    value, values = generator.uniform(0.5, 4.0), []
    for _ in range(LENGTH):
        value += slope / 16 + generator.gauss(0.0, 0.1)
        kind = generator.random()
        found = round(value * 64) / 64 if coarse else value
        if kind < 0.04:
            found = float("nan")
        elif kind < 0.06:
            found = float("inf")
        elif kind < 0.2 and values:
            found = values[-1]
        values.append(found)
    if not nan_first and values[0] != values[0]:
        values[0] = 2.0
    return values


def plateau(generator: random.Random) -> dict:
    """The rate after each evaluation, as PyTorch has it."""
    torch = importlib.import_module("torch")
    settings = {
        "mode": generator.choice(("min", "max")),
        "factor": generator.choice((0.1, 0.5, 0.3, 0.9)),
        "patience": generator.choice((0, 1, 2, 5)),
        "threshold": generator.choice((0.0, 1e-4, 1 / 64, 0.25)),
        "threshold_mode": generator.choice(("rel", "abs")),
        "cooldown": generator.choice((0, 0, 1, 3)),
        "min_lr": generator.choice((0.0, 0.0, 1e-3, 0.04)),
    }
    values, lr = values_of(generator, nan_first=True), generator.choice((0.1, 0.8, 3e-4))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"].hex())
    return {"settings": settings, "lr": lr, "values": list(map(repr, values)), "rates": rates}


def early_stop(generator: random.Random) -> dict:
    """The number of evaluations after which Keras ends the training; `None` if it does not."""
    keras = importlib.import_module("keras")
    settings = {
        "mode": generator.choice(("min", "max")),
        "patience": generator.choice((1, 2, 3, 6)),
        "min_delta": generator.choice((0.0, 1 / 64, 0.25)),
    }
    values = values_of(generator, nan_first=False)
    callback = keras.callbacks.EarlyStopping(monitor="val_loss", **settings)
    callback.set_model(types.SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    ended = None
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_loss": value})
        if callback.model.stop_training:
            ended = epoch + 1
            break
    return {"settings": settings, "values": list(map(repr, values)), "ended": ended}


def main() -> None:
    """Write both."""
    generator = random.Random(27)
    versions = {name: importlib.import_module(name).__version__ for name in ("torch", "keras")}
    found = {
        "versions": versions,
        "plateau": [plateau(generator) for _ in range(120)],
        "early_stop": [early_stop(generator) for _ in range(120)],
    }
    lines = [f' "versions": {json.dumps(versions)}']
    for name in ("plateau", "early_stop"):
        cases = ",\n  ".join(json.dumps(case) for case in found[name])
        lines.append(f' "{name}": [\n  {cases}\n ]')
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
