"""Adam with decoupled weight decay, by the operator that MXNet 1.9.1 has for it; its registry has no such optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import mxnet as mx

_TOGETHER = 45  # weights that one kernel takes

if TYPE_CHECKING:  # MXNet has no type information

    class _Optimizer:
        clip_gradient: float | None
        rescale_grad: float
        _index_update_count: dict[int, int]

        def __init__(self, learning_rate: float, **kwargs: Any) -> None: ...
        def _update_count(self, index: Sequence[int]) -> None: ...
        def _get_lrs(self, indices: Sequence[int]) -> list[float]: ...
        def _get_wds(self, indices: Sequence[int]) -> list[float]: ...

else:
    _Optimizer = mx.optimizer.Optimizer


class AdamW(_Optimizer):
    """Adam whose weight decay is no part of the gradient (I. Loshchilov and F. Hutter, 2019, arXiv 1711.05101).

    With g the mean gradient, clipped if it is to be, and t the number of the update::

        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        w = w - lr (m' / (sqrt(v') + epsilon) + wd w)

    where m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t), or m' = m and v' = v without `bias_correction`. The
    learning rate, with the factor of the weight, scales the decay as well. GluonNLP 0.10's `bertadam`, which follows
    BERT's reference code (J. Devlin et al., 2018, arXiv 1810.04805), is `bias_correction=False, epsilon=1e-6`.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        bias_correction: bool = True,
        **kwargs: Any,
    ) -> None:
        """Set its numbers.

        Args:
            learning_rate: until another is set.
            beta1: weight of the past in the mean of gradients.
            beta2: weight of the past in the mean of their squares.
            epsilon: is added to the root, outside of it.
            bias_correction: whether both means are divided by the weight that gradients have in them so far.
            kwargs: of `mx.optimizer.Optimizer`, `wd` among them.

        Raises:
            ValueError: if `bias_correction` is neither true nor false.
        """
        super().__init__(learning_rate=learning_rate, **kwargs)
        if not isinstance(bias_correction, bool):
            raise ValueError(f"bias_correction is {bias_correction!r}; allowed: true, false")
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.bias_correction = bias_correction
        self.aggregate_num = _TOGETHER

    def create_state(self, index: int, weight: Any) -> tuple[Any, Any]:
        """The means of gradients and of their squares."""
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """One weight, or lists of them."""
        if not isinstance(index, tuple | list):
            index, weight, grad, state = [index], [weight], [grad], [state]
        self._update_count(index)
        rates, decays = self._get_lrs(index), self._get_wds(index)
        counts = [self._index_update_count[one] for one in index]
        # one kernel has one epsilon, which depends on the count; that is the same for all weights as a rule
        for count, places in groupby(range(len(index)), key=counts.__getitem__):
            self._step(count, [(weight[i], grad[i], *state[i], rates[i], decays[i]) for i in places])

    update_multi_precision = update

    def _step(self, count: int, weights: Sequence[tuple[Any, ...]]) -> None:
        """The kernel's step is `w = w - eta (lr m / (sqrt(v) + epsilon) + wd w)`, without a correction of its own."""
        of_mean = of_root = 1.0
        if self.bias_correction:
            of_root = math.sqrt(1.0 - self.beta2**count)
            of_mean = of_root / (1.0 - self.beta1**count)
        values, gradients, means, variances, rates, decays = map(list, zip(*weights, strict=True))
        mx.nd.contrib.multi_adamw_update(
            values,
            gradients,
            means,
            variances,
            mx.nd.full((1,), self.rescale_grad, ctx=values[0].context),
            out=values,
            size=len(values),
            lrs=[of_mean] * len(values),
            etas=rates,
            wds=decays,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon * of_root,
            clip_gradient=self.clip_gradient or -1.0,
        )
