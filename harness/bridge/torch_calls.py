"""A module and its loss in PyTorch, called as the harness calls a network of Gluon's and its loss."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from harness.data import each_leaf, leaves_of
from harness.data.leaves import Data, count_of
from harness.errors import ConfigError, HarnessError
from harness.named import brief, call, cut, kind_of, load_function

Losses = Any  # a tensor (n,), or numerators and weights
LossFunction = Callable[[Any, Any], Losses]
_NOT_THEIRS = tuple(f"{Path(file).parent}/" for file in (torch.__file__, __file__))


@dataclass(frozen=True)
class TorchCalls:
    """A module and its loss.

    Attributes:
        module: the network; it gets the data, several arrays as so many arguments.
        loss: maps (prediction, label) to one value a sample, or to numerators and weights.
        forward: a function of the user's own that calls both, `forward(module, loss, data, label)`, which returns the
            prediction and the losses; where the run has `network.forward`.
    """

    module: nn.Module
    loss: LossFunction
    forward: Callable[..., tuple[Any, Losses]] | None = None

    def __call__(self, data: Data, label: Data, dtype: torch.dtype = torch.float32) -> tuple[Any, Losses]:
        """The prediction, and the losses of the samples.

        Args:
            data: arrays of NumPy, as a batch has them.
            label: likewise.
            dtype: of the floats among them.
        """
        on_device, labels = (each_leaf(lambda leaf: as_tensor(leaf, dtype), one) for one in (data, label))
        with self.explained(data):
            if self.forward is not None:
                prediction, losses = self.forward(self.module, self.loss, on_device, labels)
            else:
                prediction = self.module(*leaves_of(on_device))
                losses = self.loss(prediction, labels)
        return prediction, checked_losses(losses, count_of(data), "the module's loss")

    @contextmanager
    def explained(self, data: Data) -> Iterator[None]:
        """Turn whatever a user's module or loss raises into one sentence.

        Args:
            data: that it is given.

        Raises:
            ConfigError: naming the line of theirs.
        """
        try:
            yield
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = [one for one in frames if not one.filename.startswith(_NOT_THEIRS)][-1:]
            where = "".join(f" at {one.filename}:{one.lineno}" for one in place)
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            raise ConfigError(
                f"--module: {type(self.module).__name__}, or its loss, cannot process the run's samples, "
                f"{' and '.join(f'{leaf.dtype} {tuple(leaf.shape)}' for leaf in leaves_of(data))} "
                f"({type(error).__name__}{where}: {cut(lines[0], 300)})"
            ) from error


def load_module(path: str, params: Mapping[str, Any]) -> nn.Module:
    """What a function `module:function` returns.

    Raises:
        ConfigError: if that is no module of PyTorch, or one without numbers, or compiled.
    """
    module = call(load_function(path, "--module"), params, "--params")
    if not isinstance(module, nn.Module):
        raise ConfigError(f"--module: {path!r} returned {kind_of(module)}; it must return a torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        raise ConfigError(
            f"--module: {path!r} returned a module that is compiled, of which layers cannot be seen; return it as it is"
            " before, and compile it where you train on"
        )
    for name, one in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(one):
            raise ConfigError(
                f"--module: {name} has no shape yet; give the layer its number of inputs, or call the module once "
                "before it is returned"
            )
        if one.device.type != "cpu":
            raise ConfigError(f"--module: {name} is on {one.device}; return the module on the CPU")
    wrong = [name for name, one in module.named_parameters() if one.dtype != torch.float32]
    if wrong:
        raise ConfigError(f"--module: {', '.join(wrong)} is not float32, which the run's arrays are")
    return module


def checked_losses(losses: Any, count: int, where: str) -> Losses:
    """Losses of samples, or numerators and weights, as a function gave them.

    Raises:
        ConfigError: if they are neither.
    """
    if isinstance(losses, tuple | list) and len(losses) == 2:
        return losses
    if not isinstance(losses, torch.Tensor) or losses.shape != (count,):
        shape = f"a tensor {tuple(losses.shape)}" if isinstance(losses, torch.Tensor) else kind_of(losses)
        raise ConfigError(
            f"{where}: gave {shape} for {count} samples; give one value a sample (reduction='none'), or (numerators, "
            "weights)"
        )
    return losses


def as_tensor(array: np.ndarray[Any, Any], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of a batch's array, in memory of its own; floats in a type of choice."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def tensors_of(outputs: Any) -> Iterator[torch.Tensor]:
    """The tensors of what a module takes or returns, in their order."""
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, list | tuple):
        for one in outputs:
            yield from tensors_of(one)
    elif isinstance(outputs, Mapping):
        yield from tensors_of(list(outputs.values()))


def build_loss(name: str, params: Mapping[str, Any], axis: int, smoothing: float = 0.0) -> LossFunction:
    """PyTorch's counterpart of a loss that the configuration names.

    Args:
        name: as `network.loss` has it.
        params: as `network.loss_params` has them.
        axis: along which classes lie.
        smoothing: of labels, as `network.label_smoothing` has it: a share p of one of K classes becomes
            (1 - s) p + s / K, a probability (1 - s) p + s / 2. Leave it out for an evaluation.

    Raises:
        ConfigError: for a loss of the user's own, or one that has no counterpart here.
    """
    if name == "softmax_cross_entropy":
        return _cross_entropy(params, axis, smoothing)
    if name not in _LOSSES or params:
        given = f" with {brief(dict(params))}" if params else ""
        raise ConfigError(
            f"network.loss: {name!r}{given} has no counterpart here ({', '.join(['softmax_cross_entropy', *_LOSSES])} "
            "have, with their defaults); give a function of yours, --loss module:function, that maps (prediction, "
            "label) to one value a sample"
        )
    function = _LOSSES[name]

    def loss(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        target = label.to(prediction.dtype).reshape(prediction.shape)
        return _by_sample(function(prediction, (1 - smoothing) * target + smoothing / 2 if smoothing else target))

    return loss


_LOSSES: dict[str, LossFunction] = {
    "l1": lambda prediction, label: (prediction - label).abs(),
    "l2": lambda prediction, label: (prediction - label).square() / 2,
    "sigmoid_binary_cross_entropy": lambda prediction, label: functional.binary_cross_entropy_with_logits(
        prediction, label, reduction="none"
    ),
    "huber": lambda prediction, label: functional.smooth_l1_loss(prediction, label, reduction="none"),
}


def _cross_entropy(params: Mapping[str, Any], axis: int, smoothing: float) -> LossFunction:
    unknown = set(params) - {"sparse_label", "axis", "weight"}
    if unknown:
        raise ConfigError(
            f"network.loss_params: {', '.join(sorted(unknown))} has no counterpart here; give a function of yours, "
            "--loss module:function"
        )
    axis, weight = params.get("axis", axis), params.get("weight") or 1.0

    def loss(prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logs = functional.log_softmax(prediction, dim=axis).movedim(axis, -1)
        if params.get("sparse_label", True):
            picked = -logs.gather(-1, label.long().reshape((*logs.shape[:-1], 1)))[..., 0]
        else:
            picked = -(logs * label.movedim(axis, -1)).sum(-1)
        if smoothing:
            picked = (1 - smoothing) * picked - smoothing * logs.mean(-1)
        return weight * _by_sample(picked)

    return loss


def _by_sample(values: torch.Tensor) -> torch.Tensor:
    """Means over all but samples, as Gluon's losses take them."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values
