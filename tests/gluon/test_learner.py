"""One update: the mean over all samples, empty shards, running statistics, skipped and diverged updates."""

from __future__ import annotations

import re

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import CheckpointError, ConfigError, DisagreementError, DivergedError
from harness.gluon import Learner, UpdateOptions, shards_of_rank
from harness.model.parameters import parameters_of, refuse_unreducible
from tests.programs import odd_nets

RANDOM = np.random.default_rng(0)
DATA = RANDOM.normal(size=(64, 2, 4, 4)).astype(np.float32)
LABEL = RANDOM.integers(0, 3, 64).astype(np.float32)


def small_net(batch_norm=True, dropout=0.0):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, padding=1, use_bias=False))
    if batch_norm:
        net.add(nn.BatchNorm())
    net.add(nn.Activation("relu"), nn.Flatten())
    if dropout:
        net.add(nn.Dropout(dropout))
    net.add(nn.Dense(3))
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    return net


def dealt(*sizes, first=0):
    """A stream whose shards have these sizes."""
    ends = np.cumsum(sizes) + first

    def stream(t):
        order = shards_of_rank(len(sizes), SingleWorld())
        slices = [slice(ends[s] - sizes[s], ends[s]) for s in order]
        batches = tuple(Batch(s, DATA[part], LABEL[part]) for s, part in zip(order, slices, strict=True))
        return GlobalBatch(t, batches, sum(sizes))

    return stream


def learner_of(shards, net=None, optimizer=None, **options):
    return Learner(
        net or small_net(),
        options.pop("loss", mx.gluon.loss.SoftmaxCrossEntropyLoss()),
        optimizer or mx.optimizer.SGD(),
        SingleWorld(),
        shards=shards,
        sample=DATA[:1],
        options=UpdateOptions(**options),
    )


def weights_after_one_update(stream, shards, lr=0.1):
    learner = learner_of(shards, net=small_net(batch_norm=False))
    before = learner.snapshot().parameters
    learner.update(stream(1), lr)
    after = learner.snapshot().parameters
    return {name: (before[name] - after[name]) / lr for name in before}


@pytest.mark.parametrize("sizes", [(3, 5), (5, 3), (5, 0), (0, 5), (2, 0, 3, 1), (4, 4, 4)])
def test_a_ragged_batch_gives_the_gradient_of_the_mean_over_all_samples(sizes):
    whole = weights_after_one_update(dealt(sum(sizes)), 1)
    parts = weights_after_one_update(dealt(*sizes), len(sizes))
    for name, gradient in whole.items():
        np.testing.assert_allclose(parts[name], gradient, rtol=2e-5, atol=2e-6)  # float32, a division by lr included
        assert np.abs(gradient).max() > 1e-3


def test_running_statistics_are_the_mean_over_the_shards_that_are_not_empty():
    def mean_after(stream, shards):
        learner = learner_of(shards)
        learner.update(stream(1), 0.1)
        return learner.snapshot().parameters["1.running_mean"]

    means = [mean_after(dealt(8, 0, 6, 0), 4), mean_after(dealt(8), 1), mean_after(dealt(6, first=8), 1)]
    np.testing.assert_allclose(means[0], (means[1] + means[2]) / 2, rtol=1e-6)
    assert not np.allclose(means[1], means[2], rtol=1e-3)


def test_the_loss_is_the_mean_over_all_samples_before_the_update():
    stream = dealt(3, 5)
    learner = learner_of(2, net=small_net(batch_norm=False))
    _, losses = learner.predict(DATA[:8], LABEL[:8])
    assert float(learner.update(stream(1), 0.1)) == pytest.approx(losses.mean(), rel=1e-6)


def nan_at(poisoned, stream):
    def poison(t):
        batch = stream(t)
        if t == poisoned:
            bad = batch.batches[-1]
            data = np.full_like(bad.data, np.nan)
            return GlobalBatch(t, (*batch.batches[:-1], Batch(bad.shard, data, bad.label)), batch.num_samples)
        return batch

    return poison


def test_what_is_trained_on_becomes_read_only_and_what_is_predicted_does_not():
    """Batches are computed on where they lie, perhaps later: who writes there again is told at once."""
    data, label = DATA[:4].copy(), LABEL[:4].copy()
    learner = learner_of(1)
    learner.predict(data, label)
    data[:], label[:] = DATA[:4], LABEL[:4]
    float(learner.update(GlobalBatch(1, (Batch(0, data, label),), 4), 0.1))
    for array in (data, label):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_a_loss_that_is_not_finite_ends_the_run():
    stream = nan_at(3, dealt(4, 4))
    learner = learner_of(2)
    for t in (1, 2, 3):
        learner.update(stream(t), 0.1)
    with pytest.raises(DivergedError, match=r"iteration 3: .*norm nan.*Lower the learning rate"):
        learner.check_pending()


def test_the_check_lags_by_no_more_than_one_update():
    stream = nan_at(3, dealt(4, 4))
    learner = learner_of(2)
    for t in (1, 2, 3):
        learner.update(stream(t), 0.1)
    with pytest.raises(DivergedError, match="iteration 3"):
        learner.update(stream(4), 0.1)


def test_a_skipped_update_leaves_no_trace():
    optimizer = mx.optimizer.Adam()
    stream = nan_at(3, dealt(4, 4))
    learner = learner_of(2, optimizer=optimizer, skip_nonfinite=True)
    for t in (1, 2):
        learner.update(stream(t), 0.1)
    before = learner.snapshot()
    learner.update(stream(3), 0.1)
    assert learner.digest() == before.digest()
    learner.update(stream(4), 0.1)
    assert learner.digest() != before.digest()


def test_the_skipped_update_would_have_left_a_trace():
    stream = nan_at(1, dealt(4, 4))
    learner = learner_of(2)
    learner.update(stream(1), 0.1)
    assert np.isnan(mx.nd.concat(*[p.data().reshape(-1) for p in learner.parameters.values()], dim=0).asnumpy()).any()


def test_dropout_depends_on_iteration_and_shard_alone():
    def digest(history):
        stream = dealt(4, 4)
        learner = learner_of(2, net=small_net(dropout=0.5))
        state = learner.snapshot()
        for t in history:
            learner.update(stream(t), 0.1)
        learner.restore(state)
        learner.update(stream(7), 0.1)
        return learner.digest()

    assert digest([]) == digest([1, 2, 3]) == digest([6])
    stream = dealt(4, 4)
    learner = learner_of(2, net=small_net(dropout=0.5))
    learner.update(stream(8), 0.1)
    assert learner.digest() != digest([])


class OwnDropout(nn.Block):
    def forward(self, x):
        return x * mx.nd.array(np.random.randint(0, 2, x.shape))


@pytest.mark.parametrize("layer", [lambda: nn.Dropout(0.5), OwnDropout], ids=["mxnet", "own"])
def test_two_shards_of_the_same_samples_drop_different_units(layer):
    def digest(first, second):
        dropout = layer()
        net = nn.HybridSequential() if isinstance(dropout, nn.HybridBlock) else nn.Sequential()
        net.add(nn.Flatten(), dropout, nn.Dense(3))
        mx.random.seed(3)
        net.initialize()
        learner = learner_of(2, net=net)
        shards = [Batch(i, DATA[:n].copy(), LABEL[:n].copy()) for i, n in enumerate((first, second))]
        learner.update(GlobalBatch(1, tuple(shards), first + second), 0.1)
        return learner.digest()

    assert digest(4, 0) == digest(4, 0) != digest(0, 4)


def test_shards_in_another_order_are_refused():
    learner = learner_of(2)
    swapped = GlobalBatch(1, dealt(4, 4)(1).batches[::-1], 8)
    with pytest.raises(ConfigError, match=r"^iteration 1: the batch has the shards \[1, 0\], but this rank processes"):
        learner.update(swapped, 0.1)


def test_samples_that_do_not_add_up_are_noticed():
    def wrong(t):
        batch = dealt(4, 4)(t)
        return GlobalBatch(t, batch.batches, 9)

    learner = learner_of(2)
    learner.update(wrong(1), 0.1)
    with pytest.raises(DisagreementError, match="processed 8 samples, but the global batch has 9"):
        learner.check_pending()


class Unused(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Dense(3, in_units=32), nn.Dense(3, in_units=32)

    def hybrid_forward(self, F, x):
        return self.used(x.reshape((0, -1)))


def test_a_parameter_that_takes_no_part_is_named():
    net = Unused()
    net.initialize()
    stream = dealt(4)
    learner = learner_of(1, net=net, hybridize=False)  # compiled, Gluon would warn as well
    with pytest.raises(ConfigError, match=r"idle\.weight, idle\.bias got no gradient from shard 0.*grad_req"):
        learner.update(stream(1), 0.1)


def test_a_loss_that_is_already_a_mean_is_refused():
    stream = dealt(4)
    learner = learner_of(1, loss=lambda p, label: mx.gluon.loss.SoftmaxCrossEntropyLoss()(p, label).mean())
    with pytest.raises(ConfigError, match=r"one value a sample, shape \(4,\); found shape \(1,\)"):
        learner.update(stream(1), 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.cast("float16"), "float16; mixed precision is not supported"),
        (lambda net: net.collect_params().setattr("grad_req", "add"), "grad_req 'add'; set 'write'"),
    ],
)
def test_what_cannot_be_reduced_is_refused_at_start(change, message):
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=4))
    net.initialize()
    change(net)
    with pytest.raises(ConfigError, match=message):
        refuse_unreducible(net._collect_params_with_prefix())


def test_several_devices_are_refused_at_start():
    net = nn.Dense(3, in_units=4)
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    with pytest.raises(ConfigError, match="lives on 2 devices, but 1 would be reduced"):
        refuse_unreducible(net._collect_params_with_prefix())


def test_weights_travel_through_a_params_file(tmp_path):
    stream = dealt(4, 4)
    learner = learner_of(2)
    learner.update(stream(1), 0.1)
    path = str(tmp_path / "w.params")
    learner.save_weights(tmp_path / "w.params")
    other = learner_of(2)
    assert other.snapshot().parameters["0.weight"].tobytes() != learner.snapshot().parameters["0.weight"].tobytes()
    other.load_weights(path)
    for name, array in learner.snapshot().parameters.items():
        np.testing.assert_array_equal(other.snapshot().parameters[name], array)
    net = small_net()
    net.load_parameters(path)  # Gluon's own reader takes it


def test_weights_that_do_not_fit_are_all_named(tmp_path):
    learner = learner_of(1)
    path = str(tmp_path / "w.params")
    mx.nd.save(path, {"0.weight": mx.nd.zeros((4, 2, 5, 5)), "spare": mx.nd.zeros(1)})
    before = learner.digest()
    with pytest.raises(CheckpointError) as caught:
        learner.load_weights(path)
    for part in (
        "1.gamma is missing",
        "spare is not expected",
        "0.weight is float32 (4, 2, 5, 5), expected float32 (4, 2, 3, 3)",
    ):
        assert part in str(caught.value)
    assert learner.digest() == before


def test_a_pickle_is_no_params_file(tmp_path):
    import pickle

    path = tmp_path / "w.params"
    path.write_bytes(pickle.dumps({"0.weight": 1}))
    with pytest.raises(CheckpointError, match=r"no Gluon \.params file"):
        learner_of(1).load_weights(str(path))


@pytest.mark.parametrize(("wrong", "call"), [("adam", "create('adam')"), (0.1, "create('sgd')")])
def test_what_is_not_an_optimizer_object_is_refused_with_the_call_that_makes_one(wrong, call):
    with pytest.raises(ConfigError, match=re.escape(f"optimizer: found {wrong!r}; give an optimizer object, such as")):
        learner_of(1, optimizer=wrong)
    with pytest.raises(ConfigError, match=re.escape(f"mx.optimizer.{call}")):
        learner_of(1, optimizer=wrong)


def test_a_stream_in_place_of_a_sample_is_refused():
    net, loss = small_net(), mx.gluon.loss.SoftmaxCrossEntropyLoss()
    with pytest.raises(ConfigError, match=r"sample: a function was given; .* sample=stream\(1\)"):
        Learner(net, loss, mx.optimizer.SGD(), SingleWorld(), shards=1, sample=dealt(4))


class Temperature(mx.gluon.loss.SoftmaxCELoss):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.factor = self.params.get("factor", shape=(1,), init="ones")

    def hybrid_forward(self, F, prediction, label, factor):
        return super().hybrid_forward(F, F.broadcast_mul(prediction, factor), label)


def test_a_loss_whose_parameters_nobody_trains_is_refused_and_a_constant_of_its_own_is_not():
    loss = Temperature()
    with pytest.raises(ConfigError, match=r"Temperature has parameters that are not initialised: factor"):
        learner_of(1, loss=loss)
    loss.initialize()
    learner_of(1, loss=loss).update(dealt(4)(1), 0.1)


class Looping(nn.HybridBlock):
    """Adds up the rows of its samples in a loop of MXNet's."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.row, self.last = nn.Dense(6, flatten=False), nn.Dense(3)

    def hybrid_forward(self, F, data):
        rows = F.transpose(self.row(data.reshape((0, 8, 4))), axes=(1, 0, 2))
        begin = F.zeros_like(F.slice_axis(rows, axis=0, begin=0, end=1).reshape((-3, 0)))
        states = F.contrib.foreach(lambda row, state: (row, F.tanh(row + state)), rows, begin)[1]
        return self.last(states)


class Recurrent(nn.HybridBlock):
    """An LSTM over the rows of its samples."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.lstm, self.last = mx.gluon.rnn.LSTM(6, 2, "NTC", dropout=0.2), nn.Dense(3)

    def hybrid_forward(self, F, data):
        return self.last(self.lstm(data.reshape((0, 8, 4))))


def initialised(kind):
    net = kind()
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    return net


def frozen():
    net = small_net(batch_norm=False)
    net[0].weight.grad_req = "null"
    return net


@pytest.mark.parametrize(
    "make",
    [
        lambda: small_net(dropout=0.3),
        lambda: small_net(batch_norm=False, dropout=0.3),
        lambda: initialised(Looping),
        lambda: initialised(Recurrent),
        frozen,
    ],
    ids=["batch norm", "dropout", "loop", "lstm", "frozen"],
)
def test_hybridized_and_imperative_agree_to_the_bit(make):
    digests = set()
    streams = [dealt(4, 4), dealt(4, 1), dealt(3, 0), dealt(4, 4), dealt(64, 0)]
    for hybridize in (True, False):
        learner = learner_of(2, net=make(), hybridize=hybridize, optimizer=mx.optimizer.SGD(momentum=0.9))
        found = []
        for t in range(1, 13):
            learner.update(streams[t % 5](t), 0.1)
            found.append(learner.digest())
            if t == 6:
                state = learner.snapshot()
                learner.predict(DATA[:2], LABEL[:2])
            if t == 9:
                learner.restore(state)
        digests.add(tuple(found))
    assert len(digests) == 1


class Weighted(mx.gluon.loss.SoftmaxCELoss):
    """A loss that its user changes while training."""

    factor = 1.0

    def hybrid_forward(self, F, prediction, label):
        return self.factor * super().hybrid_forward(F, prediction, label)


def test_a_loss_of_ones_own_may_change_while_training():
    loss = Weighted()
    stream = dealt(4)
    learner = learner_of(1, loss=loss)
    first = float(learner.update(stream(1), 0.0))
    loss.factor = 3.0
    assert float(learner.update(stream(2), 0.0)) == pytest.approx(3 * first, rel=1e-6)


class Scaled(mx.gluon.HybridBlock):
    """A network whose `forward` is Python, which no graph holds; only what is inside it is compiled."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.inner = small_net()

    def forward(self, data):
        return self.factor * self.inner(data)


def test_a_forward_of_ones_own_may_change_while_training():
    net = Scaled()
    stream = dealt(4)
    learner = learner_of(1, net=net)
    learner.update(stream(1), 0.0)
    net.factor = 0.0
    assert float(learner.update(stream(2), 0.0)) == pytest.approx(np.log(3), rel=1e-5)


def test_a_hook_sees_every_update():
    net, seen = small_net(), []
    stream = dealt(4)
    learner = learner_of(1, net=net)
    learner.update(stream(1), 0.1)
    net.register_forward_hook(lambda block, inputs, output: seen.append(type(output)))
    for t in (2, 3):
        learner.update(stream(t), 0.1)
    assert seen == [mx.nd.NDArray] * 2


def test_a_network_may_stop_being_compiled():
    net = Branching()
    stream = dealt(4)
    learner = learner_of(1, net=net)
    learner.update(stream(1), 0.0)
    net.hybridize(False)
    net.factor = 0.0
    assert float(learner.update(stream(2), 0.0)) == pytest.approx(np.log(3), rel=1e-5)


class Branching(Scaled):
    """The same as a graph."""

    forward = mx.gluon.HybridBlock.forward

    def hybrid_forward(self, F, data):
        return self.factor * self.inner(data)


class CountedSeeds:
    def __init__(self, monkeypatch):
        self.count = 0
        seed = mx.random.seed

        def counted(*arguments, **keywords):
            self.count += 1
            seed(*arguments, **keywords)

        monkeypatch.setattr(mx.random, "seed", counted)


def dense():
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=32))
    net.initialize()
    return net


class Untraceable(nn.HybridBlock):
    """Asks its input for a number, which a symbol does not have."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(3, in_units=32)
        self.initialize()

    def hybrid_forward(self, F, x):
        return self.dense(x) if x.size > 0 else x


@pytest.mark.parametrize(
    ("net", "seeded"), [(dense, False), (small_net, False), (lambda: small_net(dropout=0.2), True), (Untraceable, True)]
)
def test_only_networks_that_draw_random_numbers_pay_for_seeding(net, seeded, monkeypatch):
    stream = dealt(4, 4)
    learner = learner_of(2, net=net(), hybridize=False)
    counted = CountedSeeds(monkeypatch)
    learner.update(stream(1), 0.1)
    assert (counted.count > 0) == seeded


def test_clipping_bounds_the_norm_of_the_mean_gradient_over_all_shards():
    def moved(**options):
        stream = dealt(5, 3)
        learner = learner_of(2, net=small_net(batch_norm=False), **options)
        before = learner.snapshot().parameters
        learner.update(stream(1), 1.0)
        learner.check_pending()
        after = learner.snapshot().parameters
        return np.concatenate([(before[name] - after[name]).ravel() for name in before]), learner.gradient_norm

    free, norm = moved()
    assert np.linalg.norm(free) == pytest.approx(norm, rel=1e-5)
    clipped, reported = moved(clip_norm=norm / 4)
    assert reported == norm
    np.testing.assert_allclose(clipped, free / 4, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(moved(clip_norm=norm * 4)[0], free)


@pytest.mark.parametrize("sizes", [(8, 4, 0, 0), (0, 8, 0, 4), (0, 0, 0, 8), (8, 4, 4, 0)])
def test_a_shard_without_samples_leaves_no_trace_in_running_statistics(sizes):
    def statistics(sizes, start):
        net = small_net()
        stream = dealt(*sizes)
        learner = learner_of(len(sizes), net=net)
        state = learner.snapshot()
        state.parameters["1.running_var"][:] = start
        learner.restore(state)
        learner.update(stream(1), 0.1)
        parameters = learner.snapshot().parameters
        return parameters["1.running_mean"], parameters["1.running_var"]

    filled = tuple(size for size in sizes if size)
    for found, expected in zip(statistics(sizes, 1000), statistics(filled, 1000), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_lars_knows_shared_parameters_by_their_own_names():
    class Shared(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.a = nn.Dense(2, in_units=2)
                self.b = nn.Dense(2, in_units=2, params=self.a.params)
                self.c = nn.Dense(3, in_units=2)

    net = Shared()
    net.initialize()
    assert list(parameters_of(net)) == ["a.weight", "a.bias", "c.weight", "c.bias"]


def symbol_block():
    inner, data = odd_nets.transposed(), mx.sym.var("data", dtype="float32")
    inner.initialize(mx.init.Xavier())
    inner(mx.nd.array(DATA[:1]))
    return mx.gluon.SymbolBlock(inner(data), data, params=inner.collect_params())


@pytest.mark.parametrize("hybridize", [True, False])
@pytest.mark.parametrize(
    "build",
    [
        odd_nets.transposed,
        odd_nets.transposed_lines,
        odd_nets.Transposed,
        lambda: odd_nets.Holder(odd_nets.transposed()),
        symbol_block,
    ],
    ids=["Conv2DTranspose", "Conv1DTranspose", "Deconvolution", "Block", "SymbolBlock"],
)
def test_a_deconvolution_trains_as_in_a_loop_of_ones_own(build, hybridize):
    """oneDNN's backward of it ends the process where the gradient is a part of a larger array."""
    mx.random.seed(3)
    net, loss = build(), mx.gluon.loss.SoftmaxCrossEntropyLoss()
    if build is not symbol_block:
        net.initialize(mx.init.Xavier())
    stream = dealt(4, 0, 3, 5)
    learner = learner_of(4, net=net, hybridize=hybridize)
    begin = learner.snapshot()
    digests = set()
    for _ in range(2):
        before = learner.snapshot().parameters
        learner.update(stream(1), 0.1)
        middle = learner.snapshot().parameters
        learner.predict(DATA[:3], LABEL[:3])  # which lays weights out anew
        learner.update(stream(2), 0.1)
        digests.add(learner.digest())
        learner.restore(begin)
    assert len(digests) == 1
    expected = dict.fromkeys(name for name, one in learner.parameters.items() if one.grad_req != "null")
    for first, last in ((0, 4), (4, 7), (7, 12)):
        for parameter in learner.parameters.values():
            parameter.grad_req = "null" if parameter.grad_req == "null" else "add"
            parameter.grad_req = "null" if parameter.grad_req == "null" else "write"
        with mx.autograd.record():
            losses = loss(net(mx.nd.array(DATA[first:last])), mx.nd.array(LABEL[first:last]))
        losses.backward()
        for name, value in expected.items():
            found = learner.parameters[name].grad().asnumpy() / 12
            expected[name] = found if value is None else value + found
    for name, gradient in expected.items():
        np.testing.assert_allclose((before[name] - middle[name]) / 0.1, gradient, rtol=1e-4, atol=1e-5)
        assert np.abs(gradient).max() > 1e-4 or name.endswith("bias")
