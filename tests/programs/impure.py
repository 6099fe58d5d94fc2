"""Networks and losses that are no functions, or whose gradients are not those of the loss: what the probe is for."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from mxnet.gluon.contrib import nn as contrib


class Own(nn.Block):
    """A plain Block around one dense layer."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4)
        self.begin()

    def begin(self) -> None:
        pass


class Counts(Own):
    def begin(self):
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.dense(x) * (1 + 0.01 * self.calls)


class Averages(Own):
    """A moving average in Python, which no checkpoint holds."""

    def begin(self):
        self.mean = None

    def forward(self, x):
        mean = x.mean(axis=0, keepdims=True).detach()
        self.mean = mean if self.mean is None else 0.9 * self.mean + 0.1 * mean * 2
        return self.dense(x - self.mean)


class LastBatch(Own):
    def begin(self):
        self.last = None

    def forward(self, x):
        mixed = x if self.last is None else x + 0.1 * self.last
        self.last = x
        return self.dense(mixed)


class OwnGenerator(Own):
    def begin(self):
        self.random = np.random.default_rng(0)

    def forward(self, x):
        return self.dense(x * (1 + 0.1 * float(self.random.normal())))


class KeepsHidden(Own):
    """A recurrent state that goes on from one batch to the next."""

    def begin(self):
        self.cell = mx.gluon.rnn.RNNCell(6)
        self.register_child(self.cell)
        self.state = None

    def forward(self, x):
        state = [mx.nd.zeros((len(x), 6))] if self.state is None else self.state
        out, self.state = self.cell(x, state)
        return self.dense(out)


class Below(nn.Block):
    """One that keeps state, among others that do not."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.first, self.middle, self.last = nn.Dense(6), Counts(), nn.Dense(4)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class CountsTraces(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4)
        self.calls = 0

    def hybrid_forward(self, F, x):
        self.calls += 1
        return self.dense(x) * self.calls


class KeepsSymbol(CountsTraces):
    """Adds what its last call has computed."""

    def __init__(self) -> None:
        super().__init__()
        self.last = None

    def hybrid_forward(self, F, x):
        out = self.dense(x)
        if self.last is not None and type(self.last) is type(out):
            out = out + self.last
        self.last = out
        return out


class WritesWeights(Own):
    """Normalises its weights as it goes."""

    def forward(self, x):
        out = self.dense(x)
        weight = self.dense.weight
        with mx.autograd.pause():
            weight.set_data(weight.data() * 0.99)
        return out


class SumsInParameter(Own):
    """A moving average where it belongs: in a parameter without a gradient, under a name of its own."""

    def begin(self):
        self.average = self.params.get("average", shape=(1, 12), init="zeros", grad_req="null")

    def forward(self, x):
        average = self.average.data()
        if mx.autograd.is_training():
            with mx.autograd.pause():
                average[:] = 0.9 * average + 0.1 * x.mean(axis=0, keepdims=True)
        return self.dense(x - average)


class Draws(Own):
    """Random, and all three generators are global ones: no state of its own."""

    def forward(self, x):
        import random

        if mx.autograd.is_training():
            x = x * (1 + 0.1 * random.random() + 0.1 * np.random.rand()) + mx.nd.random.normal(shape=x.shape)
        return self.dense(x)


class Clipped(mx.autograd.Function):
    def forward(self, x):
        return x * 1.0

    def backward(self, gradient):
        return mx.nd.clip(gradient, -0.01, 0.01)


class ClipsGradient(Own):
    def forward(self, x):
        return Clipped()(self.dense(x))


class Doubled(mx.autograd.Function):
    def forward(self, x):
        return x * 1.0

    def backward(self, gradient):
        return gradient * 2


class DoublesGradient(Own):
    """Odd, and linear."""

    def forward(self, x):
        return Doubled()(self.dense(x))


class Head(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        self.assign(out_data[0], req[0], in_data[0].sum(axis=1) ** 2)

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        self.assign(in_grad[0], req[0], 2 * in_data[0].sum(axis=1, keepdims=True) * mx.nd.ones_like(in_data[0]))


@mx.operator.register("headless")
class HeadProp(mx.operator.CustomOpProp):
    def __init__(self) -> None:
        super().__init__(need_top_grad=False)

    def infer_shape(self, in_shape):
        return in_shape, [(in_shape[0][0],)], []

    def create_operator(self, ctx, shapes, dtypes):
        return Head()


class Headless(mx.gluon.loss.Loss):
    def __init__(self) -> None:
        super().__init__(1.0, 0)

    def hybrid_forward(self, F, prediction, label):
        return F.Custom(F.broadcast_sub(prediction, F.reshape(label, (-1, 1))), op_type="headless")


class FromOutput(mx.gluon.loss.Loss):
    """A loss on one of Module's heads."""

    def __init__(self, kind: str) -> None:
        super().__init__(1.0, 0)
        self.kind = kind

    def hybrid_forward(self, F, prediction, label):
        column = F.slice_axis(prediction, axis=1, begin=0, end=1)
        if self.kind == "SoftmaxOutput":
            return -F.log(F.pick(F.SoftmaxOutput(prediction, label), label))
        if self.kind in ("MakeLoss", "make_loss"):
            values = F.mean(F.square(F.broadcast_sub(prediction, F.reshape(label, (-1, 1)))), axis=1)
            return F.MakeLoss(values, grad_scale=0.5) if self.kind == "MakeLoss" else F.make_loss(values)
        if self.kind == "SVMOutput":
            return F.sum(F.SVMOutput(prediction, label), axis=1)
        output = getattr(F, self.kind)(F.reshape(column, (-1,)), label)
        return F.square(output - label)


class Sparse(nn.HybridBlock):
    """Adds a penalty of its own to the gradient on the way back."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4, activation="sigmoid")
            self.average = self.params.get("average", shape=(4,), init="zeros", grad_req="null")

    def hybrid_forward(self, F, x, average):
        if F is mx.nd:  # which has not this operator
            return self.dense(x)
        return F.IdentityAttachKLSparseReg(self.dense(x), moving_avg=average, penalty=0.1)


class Accuracy(mx.gluon.loss.Loss):
    """What nothing can be derived from."""

    def __init__(self) -> None:
        super().__init__(1.0, 0)

    def hybrid_forward(self, F, prediction, label):
        return F.argmax(prediction, axis=1) != label


class Blocked(Accuracy):
    def hybrid_forward(self, F, prediction, label):
        return F.mean(F.square(F.BlockGrad(prediction)), axis=1)


def blocked_by_hand(prediction, label):
    return mx.nd.square(prediction.detach()).mean(axis=1)


def counting_loss():
    plain, calls = mx.gluon.loss.SoftmaxCrossEntropyLoss(), []

    def loss(prediction, label):
        calls.append(1)
        return plain(prediction, label) * len(calls)

    return loss


def hidden_in_network():
    """A head of Module in the network itself, as imported graphs have it."""
    net = nn.HybridSequential()
    net.add(nn.Dense(4), nn.HybridLambda(lambda F, x: F.SoftmaxOutput(x, F.argmax(x, axis=1))))
    return net


class SyncOperator(nn.HybridBlock):
    """The operator, without the layer."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            for name, init in (("gamma", "ones"), ("beta", "zeros")):
                setattr(self, name, self.params.get(name, shape=(12,), init=init))
            for name, init in (("running_mean", "zeros"), ("running_var", "ones")):
                setattr(self, name, self.params.get(name, shape=(12,), init=init, grad_req="null"))

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        return F.contrib.SyncBatchNorm(x, gamma, beta, running_mean, running_var, key="k", ndev=2)


def sync_operator():
    net = nn.HybridSequential()
    net.add(SyncOperator(), nn.Dense(4))
    return net


class SyncCall(Own):
    """Called, in a Block."""

    def forward(self, x):
        ones, zeros = mx.nd.ones(12), mx.nd.zeros(12)
        return self.dense(mx.nd.contrib.SyncBatchNorm(x, ones, zeros, zeros.copy(), ones.copy(), key="k", ndev=2))


class SyncBound(Own):
    """The same through a name that was bound before, and while it trains alone."""

    function = staticmethod(mx.nd.contrib.SyncBatchNorm)

    def forward(self, x):
        out = self.dense(x)
        if mx.autograd.is_training():
            ones, zeros = mx.nd.ones(4), mx.nd.zeros(4)
            out = self.function(out, ones, zeros, zeros.copy(), ones.copy(), key="k", ndev=1)
        return out


def sync_layer(num_devices: int = 1):
    net = nn.HybridSequential()
    below = nn.HybridSequential()
    below.add(nn.Dense(8), contrib.SyncBatchNorm(num_devices=num_devices))
    net.add(below, nn.Dense(4))
    return net


class AsksStore(Own):
    def begin(self):
        self.store = mx.kv.create("local")

    def forward(self, x):
        self.store.init(0, x)
        return self.dense(x)


class Placed(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.first, self.second = nn.Dense(8), nn.Dense(4)

    def hybrid_forward(self, F, x):
        with mx.AttrScope(ctx_group="second"):
            return self.second(F.relu(self.first(x)))


class DrawsAsItGoes(nn.HybridBlock):
    """NumPy's generator, in code that can be traced: the graph holds one number for good."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4)

    def hybrid_forward(self, F, x):
        return self.dense(x * (1 + 0.5 * np.random.rand() * mx.autograd.is_training()))


class DrawsUnseen(DrawsAsItGoes):
    """The same where no trace comes by."""

    def hybrid_forward(self, F, x):
        if F is mx.nd and mx.autograd.is_training():
            x = x * (1 + 0.5 * np.random.rand())
        return self.dense(x)


def drawing_loss():
    plain = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    return lambda prediction, label: plain(prediction, label) * (1 + 0.5 * np.random.rand())


class SoftmaxHead(nn.HybridBlock):
    """A head of Module whose backward ends the process, because MXNet reads labels that are not there any more."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4)

    def hybrid_forward(self, F, x):
        column = F.slice_axis(self.dense(x), axis=1, begin=0, end=1)
        return F.SoftmaxOutput(self.dense(x), F.zeros_like(column.reshape((-1,))))


class SoftmaxCall(Own):
    """The same in a Block, which no graph shows before it runs."""

    def forward(self, x):
        out = self.dense(x)
        return mx.nd.SoftmaxOutput(out, mx.nd.zeros_like(mx.nd.slice_axis(out, axis=1, begin=0, end=1).reshape((-1,))))


class SVMHead(SoftmaxHead):
    def hybrid_forward(self, F, x):
        return F.SVMOutput(self.dense(x), F.argmax(x, axis=1))


class Shows(SoftmaxHead):
    """A head of Module that reaches no weight."""

    def hybrid_forward(self, F, x):
        return self.dense(x) + 0 * F.SoftmaxOutput(F.BlockGrad(self.dense(x)), F.argmax(x, axis=1) * 0)
