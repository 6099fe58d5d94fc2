"""The networks as modules of PyTorch: what `launch/bridge.py --module` names.

Run it by train.py, as examples/README.md says.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional


def mlp(hidden: int = 64, classes: int = 10) -> nn.Module:
    """`network.name: mlp`."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def lenet(classes: int = 10) -> nn.Module:
    """`network.name: lenet`, for images of 28 x 28 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.Tanh(),
        nn.Linear(500, classes),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        """A shortcut that changes size or width is a 1x1 convolution."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if (inside, stride) != (outside, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of both, rectified."""
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet18(classes: int = 10) -> nn.Module:
    """`network.name: resnet18_v1` of Gluon's model zoo."""
    widths = [64, 64, 128, 256, 512]
    stages = [
        block
        for stage, (inside, outside) in enumerate(pairwise(widths))
        for block in (Residual(inside, outside, 2 if stage else 1), Residual(outside, outside, 1))
    ]
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, classes),
    )


class RowReader(nn.Module):
    """`examples.leaving.gluon_nets:RowReader`."""

    def __init__(self, recurrent: type[nn.LSTM] | type[nn.GRU], hidden: int, classes: int) -> None:
        """Rows have eight pixels."""
        super().__init__()
        self.rows = recurrent(8, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores, `(n, classes)`, of rows `(n, 8, 8)`."""
        return self.out(self.rows(rows)[0][:, -1])


def lstm(hidden: int = 48, classes: int = 10) -> nn.Module:
    """The counterpart of the LSTM in `gluon_nets.py`."""
    return RowReader(nn.LSTM, hidden, classes)


def gru(hidden: int = 48, classes: int = 10) -> nn.Module:
    """The counterpart of the GRU in `gluon_nets.py`."""
    return RowReader(nn.GRU, hidden, classes)
