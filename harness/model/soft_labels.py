"""Labels that are shares of classes: made of classes by label smoothing, and classes where a loss wants shares.

C. Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015, arXiv 1512.00567.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from harness.errors import DataError

if TYPE_CHECKING:  # MXNet has no type information

    class _Loss:
        def __init__(self, weight: float | None, batch_axis: int) -> None: ...
        def __call__(self, prediction: Any, label: Any) -> Any: ...

else:
    _Loss = mx.gluon.loss.Loss

_Softmax = mx.gluon.loss.SoftmaxCrossEntropyLoss


class SmoothedLoss(_Loss):
    """A loss of Gluon with smoothed labels in training, and with labels as they are in evaluation.

    With smoothing s a share p of one of K classes becomes `(1 - s) p + s / K`, in `SoftmaxCrossEntropyLoss` and
    `KLDivLoss`; a probability p of yes becomes `(1 - s) p + s / 2`, in `SigmoidBinaryCrossEntropyLoss` and
    `LogisticLoss`, signed labels y `(1 - s) y`.

    Attributes:
        loss: the loss.
        smoothing: s, at least 0 and below 1.
    """

    def __init__(self, loss: Any, smoothing: float) -> None:
        """Wrap one of those four losses.

        Args:
            loss: of Gluon.
            smoothing: s.
        """
        super().__init__(weight=None, batch_axis=loss._batch_axis)
        self.loss, self.smoothing = loss, smoothing
        self._of_shares = _alike(loss, picks=False) if picks_classes(loss) else None

    def hybrid_forward(self, operators: Any, prediction: Any, label: Any) -> Any:
        """One value a sample."""
        if not mx.autograd.is_training():
            return self.loss(prediction, label)
        s = self.smoothing
        if self._of_shares is None:
            return self.loss(prediction, (1 - s) * label + s * self._evenly(operators, prediction, label))
        # picking costs less than shares of the classes, in which the loss is linear
        evenly = self._of_shares(prediction, self._evenly(operators, prediction, label))
        return (1 - s) * self.loss(prediction, label) + s * evenly

    def _evenly(self, operators: Any, prediction: Any, label: Any) -> Any:
        """Labels that say nothing: the same share for each class, or undecided between two."""
        if isinstance(self.loss, _Softmax | mx.gluon.loss.KLDivLoss):
            return operators.softmax(operators.zeros_like(prediction), axis=self.loss._axis)
        is_signed = isinstance(self.loss, mx.gluon.loss.LogisticLoss) and self.loss._label_format == "signed"
        return operators.zeros_like(label) if is_signed else operators.ones_like(label) / 2


def unsmoothed(loss: Any) -> Any:
    """The loss that a `SmoothedLoss` wraps; any other as it is."""
    return loss.loss if isinstance(loss, SmoothedLoss) else loss


def picks_classes(loss: Any) -> bool:
    """Whether labels are classes to a loss, so that an accuracy means something."""
    inner = unsmoothed(loss)
    return isinstance(inner, _Softmax) and bool(inner._sparse_label)


def loss_for_labels(loss: Any, prediction: Any, label: Any) -> Any:
    """The loss for labels of an evaluation, which may be classes where those of training are shares of them.

    Args:
        loss: of the network.
        prediction: what the network gives.
        label: on its device.

    Raises:
        DataError: for a label that is not one of the classes, where MXNet would take the nearest.
    """
    inner = unsmoothed(loss)
    wants_shares = isinstance(inner, _Softmax) and not inner._sparse_label
    arrays = isinstance(prediction, mx.nd.NDArray) and isinstance(label, mx.nd.NDArray)
    if not (wants_shares and arrays) or label.ndim != prediction.ndim - 1:
        return loss
    labels, classes = label.asnumpy(), prediction.shape[inner._axis]
    bad = labels[(labels < 0) | (labels >= classes) | (labels != np.floor(labels))]
    if bad.size:
        raise DataError(
            f"label {bad.reshape(-1)[0]:g} is not one of the classes 0 to {classes - 1}, of which the network gives "
            f"{classes}; fix the label, or give the network more classes"
        )
    return _alike(inner, picks=True)


def _alike(loss: Any, *, picks: bool) -> Any:
    """The same loss, for labels that are classes or shares of them."""
    return _Softmax(loss._axis, picks, loss._from_logits, loss._weight, loss._batch_axis)
