"""A data set of your own: a function that returns arrays, and a YAML file that names it.

Two spirals that wind around each other, which no straight line can separate. Run it from the project folder:
python launch/train.py --config examples/own_dataset.yaml
"""

import numpy as np


def spirals(turns: float = 1.5, samples: int = 2000, noise: float = 0.03) -> dict[str, object]:
    """The function that `data.name: examples.own_dataset:spirals` calls, with `data.params`.

    Args:
        turns: how often each spiral winds around the middle.
        samples: in all; a quarter of them is for the test.
        noise: standard deviation of a point's distance from its spiral.

    Returns:
        Each split as a pair of data, `(n, 2)` floats, and integer labels, and the number of classes.
    """
    random = np.random.default_rng(0)
    label = random.integers(0, 2, samples)
    distance = np.sqrt(random.uniform(0.02, 1, samples))
    angle = 2 * np.pi * turns * distance + np.pi * label
    points = distance * np.stack([np.cos(angle), np.sin(angle)]) + random.normal(0, noise, (2, samples))
    data, held_out = points.T.astype(np.float32), samples // 4
    return {"train": (data[held_out:], label[held_out:]), "test": (data[:held_out], label[:held_out]), "num_classes": 2}
