"""Both sides of a run: its network in Gluon with the checkpoint's weights, and the user's module in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.bridge import of_gluon, of_torch
from harness.bridge.layers import Array, Layer, Shape, Trace
from harness.bridge.mapping import ArrayMap
from harness.bridge.opening import Opened
from harness.bridge.proposal import Proposal, Side, propose
from harness.bridge.torch_calls import TorchCalls, build_loss, load_module
from harness.bridge.verify import Ran, predictions
from harness.data.leaves import Data, count_of, each_leaf
from harness.errors import ConfigError
from harness.model import build_model
from harness.model.calls import Calls
from harness.model.soft_labels import picks_classes, unsmoothed
from harness.named import call, kind_of, load_function


class TorchNames(NamedTuple):
    """What the command line says of the PyTorch side.

    Attributes:
        module: `package.module:function` that returns the module.
        params: keyword arguments of it.
        loss: of a loss; `None` for the counterpart of the run's.
        forward: of a function that calls both, where the run has `network.forward`.
    """

    module: str
    params: Mapping[str, Any] = {}
    loss: str | None = None
    forward: str | None = None


@dataclass(frozen=True)
class Sides:
    """Two networks and the same samples.

    Attributes:
        gluon: the run's network and loss, with the weights of the checkpoint.
        torch: the module and its loss.
        data: of some samples.
        label: theirs.
        parameters: the run's arrays by name.
        updates: how many there have been.
        optimizer: the run's, of MXNet, before its first update.
    """

    gluon: Calls
    torch: TorchCalls
    data: Data
    label: Data
    parameters: Mapping[str, Array]
    updates: int
    optimizer: Any = None
    _rates: dict[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def run_shapes(self) -> dict[str, Shape]:
        """The shapes of the run's arrays by name."""
        return {name: tuple(array.shape) for name, array in self.parameters.items()}

    @property
    def module_shapes(self) -> dict[str, Shape]:
        """Those of the module's."""
        return {name: tuple(array.shape) for name, array in of_torch.arrays_of(self.torch.module).items()}

    @property
    def layers(self) -> tuple[list[Layer], list[Layer]]:
        """Those of the run and of the module."""
        return of_gluon.layers_of(self.gluon.net), of_torch.layers_of(self.torch.module)

    def propose(self) -> Proposal:
        """Which array goes where; see `proposal.propose`."""
        run = of_gluon.run(self.gluon, self.data, self.label, train=False)
        module = of_torch.run(self.torch, self.data, self.label, train=False)
        ours, theirs = self.layers
        return propose(Side(ours, run, of_gluon.axes_of(self.gluon.net)), Side(theirs, module, {}))

    def load(self, mapping: ArrayMap) -> None:
        """Give the module the run's arrays."""
        of_torch.load(self.torch.module, mapping.convert(self.parameters, self.module_shapes), self.updates)

    def distance(self, mapping: ArrayMap) -> float:
        """How far predictions are apart by a mapping, which the module keeps."""
        self.load(mapping)
        run = of_gluon.run(self.gluon, self.data, self.label, train=False)
        return predictions(run, of_torch.run(self.torch, self.data, self.label, train=False)).distance

    def switch_off_dropout(self) -> None:
        """On both sides, until the end; `run` tells the rates that there were."""
        self._rates["run"] = of_gluon.switch_off_dropout(self.gluon.net)
        self._rates["module"] = of_torch.switch_off_dropout(self.torch.module)

    def run(self, mapping: ArrayMap) -> tuple[Ran, Ran]:
        """Run both in predict mode, and in training mode; from the checkpoint's weights each time.

        In training mode samples have labels of others, from the second half and each of these twice. With labels that a
        network has learnt its losses and gradients are near 0, and rounding is a large part of them. Both compute in
        float64 there: among a million activations some are so near 0 that float32 takes them for positive on one side
        and for negative on the other, and a ReLU passes on the gradient of one.

        Args:
            mapping: by which the module has the run's arrays.
        """
        of_gluon.load(self.gluon.net, self.parameters)
        self.load(mapping)
        samples = self.data, self.label
        ours, theirs = self.layers
        predicted = of_gluon.run(self.gluon, *samples, train=False), of_torch.run(self.torch, *samples, train=False)
        count = count_of(self.data)
        others = self.data, each_leaf(lambda leaf: leaf[count - 1 - np.arange(count) // 2], self.label)
        dtype, ours_trained = self._trained(*others)
        theirs_trained = of_torch.run(self.torch, *others, train=True, dtype=dtype)
        of_gluon.load(self.gluon.net, self.parameters)
        self.load(mapping)
        rates = self._rates.get("run", {}), self._rates.get("module", {})
        return (
            Ran(ours, predicted[0], ours_trained, rates[0], dtype),
            Ran(theirs, predicted[1], theirs_trained, rates[1], dtype),
        )

    def _trained(self, data: Data, label: Data) -> tuple[str, Trace]:
        """One run of the Gluon side in training mode, in float64 where MXNet has all of its operators for that."""
        try:
            return "float64", of_gluon.run(self.gluon, data, label, train=True, dtype="float64")
        except ConfigError:
            of_gluon.load(self.gluon.net, self.parameters)
            return "float32", of_gluon.run(self.gluon, data, label, train=True)


def both_sides(opened: Opened, names: TorchNames, count: int) -> Sides:
    """Build both.

    Args:
        opened: the run.
        names: of the PyTorch side.
        count: samples to compare on.

    Raises:
        ConfigError: if either cannot be built, or the module does not take the samples.
    """
    config, splits = opened.run.config, opened.run.data.splits
    if config.network.state is not None:
        raise ConfigError(
            f"network.state: the network carries state from one update to the next ({config.network.state}), which no "
            "command of bridge can; move its weights by hand, and train on with open_run and TrainingBatches "
            "(docs/leaving.md), whose updates tell where state begins"
        )
    model = build_model(config, 0, opened.samples(2), splits.num_classes)
    of_gluon.load(model.net, opened.arrays["parameters"])
    data, label = opened.samples(count)
    calls = Calls(model.net, model.loss, model.forward)
    torch_side = torch_calls(config, names, calls)
    return Sides(calls, torch_side, data, label, opened.arrays["parameters"], opened.iteration, model.optimizer)


def torch_calls(config: Any, names: TorchNames, calls: Calls) -> TorchCalls:
    """The module and its loss."""
    module = load_module(names.module, names.params)
    section = config.network
    if section.forward is not None and names.forward is None:
        raise ConfigError(
            f"--forward: the run calls network and loss by {section.forward!r}; name your function that does the same "
            "here, forward(module, loss, data, label) -> (prediction, losses)"
        )
    forward = None if names.forward is None else load_function(names.forward, "--forward")
    if names.loss is not None:
        loss: Any = load_function(names.loss, "--loss")
        loss = call(loss, {}, "--loss") if isinstance(loss, type) else loss
        if not callable(loss):
            raise ConfigError(f"--loss: {names.loss!r} makes {kind_of(loss)}, which cannot be called")
    elif ":" in section.loss and forward is not None:
        loss = None
    else:
        params, own = section.loss_params, unsmoothed(calls.loss)
        if section.loss == "softmax_cross_entropy":
            params = {**params, "sparse_label": picks_classes(own)}  # which follows from labels, if nothing is said
        loss = build_loss(section.loss, params, getattr(own, "_axis", -1), section.label_smoothing)
    return TorchCalls(module, loss, forward)


def default_mapping(opened: Opened) -> Path:
    """Where `mapping.yaml` is, unless another place is named: in the run's folder."""
    return opened.folder / "bridge" / "mapping.yaml"


def counted(mapping: ArrayMap, proposal: Proposal) -> tuple[int, int]:
    """How many arrays of a mapping are as proposed, and how many are by hand."""
    same = sum(proposal.mapping.sources.get(target) == source for target, source in mapping.sources.items())
    return same, len(mapping.sources) - same
