"""Networks in PyTorch, each the counterpart of one in `gluon_nets.py`; some with one thing wrong, by a word."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from tests.bridge.gluon_nets import CLASSES, LENGTH, VOCABULARY, WIDTH


def mlp(activation="ReLU", width=32):
    first, last = nn.Linear(64, width), nn.Linear(32, 10)
    return nn.Sequential(nn.Flatten(), first, getattr(nn, activation)(), nn.Linear(width, 32), nn.ReLU(), last)


class MnistCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 32), nn.Linear(32, 10)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            x = functional.max_pool2d(functional.relu(conv(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.down = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x):
        y = functional.relu(self.bn1(x))
        y2 = self.conv2(functional.relu(self.bn2(self.conv1(y))))
        return y2 + (x if self.down is None else self.down(y))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        # MXNet never moves the statistics of a norm that nothing trained comes before
        self.norm = nn.BatchNorm2d(3, affine=False, momentum=0.0)
        self.stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in pairwise(widths)))
        self.last, self.fc = nn.BatchNorm2d(512), nn.Linear(512, 10)

    def forward(self, x):
        x = functional.relu(self.last(self.blocks(self.stem(self.norm(x)))))
        return self.fc(x.mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, before, after, times, stride):
        super().__init__()
        inner = before * times
        self.expand = nn.Sequential(nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after))
        self.has_shortcut = stride == 1 and before == after

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


def mobilenet_v2():
    before = [int(n * 0.25) for n in [32, 16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3]]
    after = [*before[1:], 80]
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    blocks = [
        Bottleneck(a, b, 6 if i else 1, s) for i, (a, b, s) in enumerate(zip(before, after, strides, strict=True))
    ]
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
        *blocks,
        nn.Sequential(nn.Conv2d(80, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1280, 10, bias=False),
    )


class Recurrent(nn.Module):
    def __init__(self, cls, layers, bidirectional):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = cls(WIDTH, 6, layers, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(6 * (1 + bidirectional), CLASSES)

    def forward(self, x):
        return self.out(self.rnn(self.embed(x))[0].mean(1))


class OwnLSTM(nn.Module):
    """One layer written by hand, whose gates are in the order of TensorFlow: input, candidate, forget, output."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.weight_ih, self.weight_hh = nn.Parameter(torch.zeros(24, WIDTH)), nn.Parameter(torch.zeros(24, 6))
        self.bias_ih, self.bias_hh = nn.Parameter(torch.zeros(24)), nn.Parameter(torch.zeros(24))
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x):
        x, outputs = self.embed(x), []
        h = c = x.new_zeros(len(x), 6)
        for step in x.unbind(1):
            gates = step @ self.weight_ih.T + h @ self.weight_hh.T + self.bias_ih + self.bias_hh
            i, g, f, o = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return self.out(torch.stack(outputs, 1).mean(1))


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.cells = nn.ModuleList([nn.LSTMCell(WIDTH, 6), nn.GRUCell(6, 6), nn.RNNCell(6, 6)])
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.embed(x)
        for cell in self.cells:
            state, outputs = None, []
            for step in x.unbind(1):
                state = cell(step, state)
                outputs.append(state[0] if isinstance(state, tuple) else state)
            x = torch.stack(outputs, 1)
        return self.out(x.mean(1))


class Transformer(nn.Module):
    def __init__(self, wrong=""):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Parameter(torch.zeros(1, LENGTH, WIDTH))
        activation = "gelu" if wrong == "gelu" else "relu"
        layer = nn.TransformerEncoderLayer(
            WIDTH, 3, 16, 0.0, activation, batch_first=True, norm_first=wrong == "norm first"
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.out(self.layers(self.embed(x) + self.position).mean(1))


class Tied(nn.Module):
    def __init__(self, wrong=""):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH, padding_idx=3 if wrong == "padding" else None)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, VOCABULARY)
        if wrong != "not tied":
            self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(torch.tanh(self.middle(self.embed(x)))).mean(1)


class Rest(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.instance.weight.requires_grad_(False)  # Gluon's has no scale
        self.prelu = nn.PReLU()
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=2)
        self.group = nn.GroupNorm(4, 8)
        self.flat = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.prelu(self.instance(self.grouped(self.first(x))))
        return self.flat(self.group(self.up(x)).mean((2, 3)))


class Pictures(nn.Module):
    """The counterpart of Gluon's, with one thing wrong if a word says so."""

    def __init__(self, wrong=""):
        super().__init__()
        self.wrong = wrong
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=wrong != "no bias")
        self.norm1 = nn.BatchNorm2d(6, eps=1e-3 if wrong == "eps" else 1e-5)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect" if wrong == "padding mode" else "zeros")
        self.norm2 = nn.BatchNorm2d(6, momentum=0.9 if wrong == "momentum" else 0.1)
        if wrong == "other norm":
            self.norm2 = nn.GroupNorm(6, 6)
        if wrong == "dilation":
            self.conv2 = nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.conv3 = nn.Conv2d(6, 6, 3, padding=1)
        self.pool = nn.AvgPool2d(2) if wrong == "pool" else nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.5 if wrong == "dropout" else 0.25)
        self.fc1, self.fc2 = nn.Linear(96, 16), nn.Linear(16, 16, bias=wrong != "dense without bias")
        self.out = nn.Linear(16, CLASSES)
        if wrong == "frozen":
            self.fc1.weight.requires_grad_(False)

    def forward(self, x):
        wrong = self.wrong
        if wrong == "input":
            x = (x - 0.5) / 0.25
        x = self.norm1(self.conv1(x))
        x = torch.tanh(x) if wrong == "tanh" else x if wrong == "no activation" else functional.relu(x)
        x = functional.leaky_relu(self.norm2(self.conv2(x)), 0.01 if wrong == "slope" else 0.2)
        x = self.drop(self.pool(self.conv3(x)))
        x = x.permute(0, 2, 3, 1) if wrong == "flatten" else x
        x = functional.relu(self.fc1(x.flatten(1)))
        x = self.out(functional.relu(self.fc2(x)))
        return functional.softmax(x, 1) if wrong == "softmax" else x


NETWORKS = {
    "mlp": mlp,
    "mnist_cnn": MnistCnn,
    "resnet18_v2": ResNet,
    "mobilenet_v2": mobilenet_v2,
    "lstm": lambda: Recurrent(nn.LSTM, 2, True),
    "gru": lambda: Recurrent(nn.GRU, 2, False),
    "rnn": lambda: Recurrent(nn.RNN, 1, True),
    "transformer": Transformer,
    "cells": Cells,
    "tied": Tied,
    "rest": Rest,
    "pictures": Pictures,
}
