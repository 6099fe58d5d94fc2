"""Applies one reduced gradient: correct the momentum, step.

MXNet's SGD, NAG and LARS keep the learning rate inside their momentum buffer (`v = m v - lr g; w += v`), so after a
change of the learning rate the history still moves at the old one. Goyal et al. 2017 (arXiv 1706.02677, section 3) name
the remedy: when the applied rate goes from a to b the buffers are multiplied by b / a, and the trajectory is that of
`v = m v + g; w -= lr v`. (apache/mxnet#15533 is open; its own optimizers do not do it.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mxnet as mx
import numpy as np

from harness.comm.rows import Rows
from harness.errors import ConfigError, HarnessError
from harness.gluon.graph import place_of
from harness.gluon.options import Placement, UpdateOptions
from harness.gluon.step.kvstore import KVStoreStep
from harness.gluon.step.numpy_step import NumpyStep
from harness.gluon.step.per_device import PerDeviceStep
from harness.gluon.step.row_step import RowStep
from harness.model.inputs import seed_of
from harness.model.optimizer_numbers import is_supplied
from harness.model.optimizers import HOLD_RATE, RESTS_WITHOUT_GRADIENT, momentum_name, traits_of
from harness.model.own_optimizer import arrays_in
from harness.model.parameters import has_rows, list_held

_MOST = float(np.finfo(np.float32).max)
_LEAST = float(np.finfo(np.float32).tiny)


class OptimizerStep:
    """Steps an optimizer that reduces nothing by itself.

    Attributes:
        optimizer: of the first device, or the kvstore.
        updaters: hold the state: one for each device, or the kvstore's.
        synchronous: whether a step itself waits for everything before it.
        traits: what is known of its updates.
        corrects_momentum: whether momentum buffers follow the learning rate.
        applied_lr: the learning rate that the momentum buffers hold; `None` before the first update.
    """

    def __init__(
        self,
        optimizer: Any,
        trainable: Mapping[str, Any],
        *,
        momentum_correction: bool | None = False,
        seed: int = 0,
        kvstore: str | None = None,
        synchronous: bool = False,
    ) -> None:
        """Create the optimizer's state.

        Args:
            optimizer: an `mx.optimizer.Optimizer`.
            trainable: parameters with a gradient, by structural name; their order is the optimizer's index.
            momentum_correction: whether momentum buffers follow the learning rate; `None`: where they hold it.
            seed: the run's seed, for optimizers that add noise.
            kvstore: the kind of the store that the optimizer lives on; by default it lives on the devices.
            synchronous: whether every update is waited for before its step; the attribute says whether it has to be.
        """
        self.optimizer = optimizer
        self.applied_lr: float | None = None
        self._parameters = list(trainable.values())
        holds_rate = type(optimizer).__name__.lower() in HOLD_RATE and optimizer.momentum > 0
        self.corrects_momentum = holds_rate if momentum_correction is None else momentum_correction
        self._seed = seed
        self.traits = traits_of(optimizer, self._parameters)
        scheduled = momentum_name(optimizer)
        # a number that an optimizer of the user's own changes by itself is left to it
        self._momentum_name = None if scheduled in self.traits.scalars else scheduled
        self._momentum: float | None = getattr(optimizer, self._momentum_name) if self._momentum_name else None
        self._noise_seed: int | None = None
        self._noise_of_rows: int | None = None
        self._rows: dict[int, Rows] = {}
        self._tables = {i: one for i, one in enumerate(self._parameters) if has_rows(one)}
        self._names_of_tables = [name for name, one in trainable.items() if has_rows(one)]
        if self._tables and kvstore is not None:
            raise ConfigError(
                f"update_on_kvstore: a kvstore steps whole weights, but {', '.join(self._names_of_tables)} has "
                "sparse_grad; set it to false"
            )
        self._decay, self._clip = 0.0, None
        if type(optimizer).__name__ == "NAG" and optimizer.wd > 0:
            self._decay, self._clip = optimizer.wd, optimizer.clip_gradient
            optimizer.wd, optimizer.clip_gradient = 0.0, None
        self._backend: PerDeviceStep | NumpyStep | KVStoreStep
        if kvstore is not None:
            self._backend = KVStoreStep(kvstore, optimizer, self._parameters)
        elif NumpyStep.pays(optimizer, self._parameters, synchronous):
            self._backend = NumpyStep(optimizer, self._parameters)
        else:
            self._backend = PerDeviceStep(optimizer, self._parameters)
        self.synchronous = isinstance(self._backend, NumpyStep)
        self.updaters = self._backend.updaters
        self._row_step: RowStep | None = None
        if self._tables:
            names, corrects = self._names_of_tables, self.corrects_momentum
            self._row_step = RowStep(self.updaters, self._tables, names, corrects_momentum=corrects)

    @classmethod
    def of(
        cls,
        optimizer: Any,
        trainable: Mapping[str, Any],
        placement: Placement,
        options: UpdateOptions,
        *,
        synchronous: bool,
    ) -> OptimizerStep:
        """The step of a learner with these settings."""
        return cls(
            optimizer,
            trainable,
            momentum_correction=options.momentum_correction,
            seed=options.seed,
            kvstore=placement.kvstore if placement.update_on_kvstore else None,
            synchronous=synchronous,
        )

    @property
    def remarks(self) -> list[str]:
        """What the user should know of how it steps."""
        name, found = type(self.optimizer).__name__, []
        if not self.traits.follows_rate:
            found.append(f"optimizer: {name} steps alike at every learning rate but 0")
        wd, states = self.optimizer.wd or self._decay, self.updaters[0].states
        has_history = name.lower() not in RESTS_WITHOUT_GRADIENT
        lasting = [
            key
            for (index, one), key in zip(self._tables.items(), self._names_of_tables, strict=True)
            if (has_history and [*arrays_in(states[index])]) or wd * one.wd_mult
        ]
        if lasting:
            found.append(
                f"network: {', '.join(lasting)} has sparse_grad, so {name} steps the rows that a batch has; others "
                "keep weight and history, and do not decay"
            )
        return found

    @property
    def row_rates(self) -> list[dict[int, Any]]:
        """Of each updater, by index: at which rate the momentum of each row was last stepped; see `RowStep`."""
        return [{} for _ in self.updaters] if self._row_step is None else self._row_step.rates

    def step(self, t: int, lr: float, momentum: float | None, divisor: float, rows: Sequence[Rows] = ()) -> None:
        """Apply the gradients.

        Args:
            t: the iteration.
            lr: its learning rate; 0 changes no weight, whatever the optimizer. The history (momentum, moments, counts)
                takes the gradient as at any other rate, but for the optimizers in `NOT_UPDATED_AT_0`.
            momentum: its momentum, or `None` for the optimizer's own.
            divisor: what the gradients are divided by: the number of samples, and what clipping adds.
            rows: the gradients that are rows, of the parameters that have such, in their order.

        Raises:
            ConfigError: for a momentum that the optimizer has no buffers for, a rate that float32 has not, or what an
                optimizer of the user's own raises.
        """
        self._refuse_rates(t, lr)
        if momentum and self._momentum_name == "momentum" and self._momentum == 0:
            raise ConfigError(
                f"momentum: {momentum} for an optimizer that was built without; give it one "
                "(optimizer.params.momentum), which makes its buffers"
            )
        for updater in self.updaters:
            if self._momentum_name is not None:  # set each time, so that no update depends on the one before it
                setattr(updater.optimizer, self._momentum_name, self._momentum if momentum is None else momentum)
        self._noise_seed = seed_of(self._seed, t, -1) if self.traits.is_noisy else None
        self._noise_of_rows = seed_of(self._seed, t, -2) if self.traits.is_noisy else None
        self._rows = dict(zip(self._tables, rows, strict=True))
        with self._naming(t):
            if lr == 0:
                self._update_history(divisor)
                return
            factor = lr / self.applied_lr if self.corrects_momentum and self.applied_lr is not None else 1.0
            self._update(lr, divisor, factor)
        self.applied_lr = lr

    def weights_changed(self) -> None:
        """To be called when weights have been written to other than by a step."""
        self._backend.weights_changed()

    @contextmanager
    def _naming(self, t: int) -> Iterator[None]:
        """Turn what an optimizer of the user's own raises into one sentence; MXNet's errors may be another rank's."""
        try:
            yield
        except (HarnessError, mx.base.MXNetError):
            raise
        except Exception as error:
            if is_supplied(type(self.optimizer)):
                raise
            said = str(error).strip().splitlines() or ["without a word"]
            raise ConfigError(
                f"iteration {t}: optimizer: {type(self.optimizer).__name__} raised {type(error).__name__} ({said[0]}"
                f"{place_of(error)})"
            ) from error

    def _update(self, lr: float, divisor: float, factor: float = 1.0, *, moves_rows: bool = True) -> None:
        for updater in self.updaters:
            updater.optimizer.set_learning_rate(lr)
            updater.optimizer.rescale_grad = 1.0 / divisor
        for parameter in self._parameters if self._decay else ():
            if not has_rows(parameter):
                for gradient, weight in zip(parameter.list_grad(), list_held(parameter), strict=True):
                    self._add_decay(parameter, gradient, weight, divisor)
        fixed = [i for i, one in enumerate(self._parameters) if one.lr_mult == 0] if self.traits.rests_at_0 else []
        self._backend.step(self._noise_seed, factor, [*fixed, *self._tables] if self._tables else fixed)
        if self._row_step is not None:
            self._row_step.step(
                {index: rows for index, rows in self._rows.items() if index not in fixed},
                lr,
                lambda i, gradient, weight: self._add_decay(self._parameters[i], gradient, weight, divisor),
                noise_seed=self._noise_of_rows,
                moves_weights=moves_rows,
            )

    def _add_decay(self, parameter: Any, gradient: Any, weight: Any, divisor: float) -> None:
        """Take weight decay into a gradient, for NAG.

        MXNet's own NAG reads the weight for it after having changed the weight in place, unless oneDNN has laid the
        weight out for itself: then it works on a copy, and the same update has other bits. Which it is depends on what
        ran before.
        """
        if not self._decay:
            return
        if self._clip is not None:
            mx.nd.clip(gradient, -self._clip * divisor, self._clip * divisor, out=gradient)
        factor = self._decay * parameter.wd_mult * divisor
        if factor:
            gradient += factor * weight

    def _update_history(self, divisor: float) -> None:
        """Do an update at learning rate 0: weights are put back to the bit, what else there is takes the gradient.

        A buffer that holds the rate takes it at the last one that was applied; at 0 it would lose its history. Some
        move weights at a rate of 0 as well: by a momentum that is not corrected, or clipped weights (RMSProp).
        """
        if self.traits.rests_at_0:
            return
        dense = [parameter for parameter in self._parameters if not has_rows(parameter)]
        before = [[weight.copy() for weight in list_held(parameter)] for parameter in dense]
        if self.corrects_momentum:
            self.applied_lr = self.applied_lr or 1.0
            self._update(self.applied_lr, divisor, moves_rows=False)
        else:
            self._update(0.0, divisor, moves_rows=False)
            self.applied_lr = 0.0
        for parameter, values in zip(dense, before, strict=True):
            for weight, value in zip(list_held(parameter), values, strict=True):
                value.copyto(weight)
        self.weights_changed()

    def _refuse_rates(self, t: int, lr: float) -> None:
        """Refuse what float32, in which weights are updated, would turn into 0, infinity or a coarser number."""
        for factor in {parameter.lr_mult for parameter in self._parameters}:
            rate = lr * factor
            if rate == 0 and (lr == 0 or factor == 0):
                continue
            if not _LEAST <= abs(rate) <= _MOST or lr < 0:  # a NaN as well
                times = "" if factor == 1 else f" x lr_mult {factor:g}"
                raise ConfigError(
                    f"iteration {t}: learning rate {lr:g}{times}: must be finite in float32 and at least {_LEAST:.3g}, "
                    "or 0; change lr.schedule, lr.base or optimizer.lr_mult"
                )
