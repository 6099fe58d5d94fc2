"""Running statistics of batch norm for averaged weights: PyTorch's `update_bn`, and nothing else is disturbed."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import DivergedError
from harness.gluon import Averaging, Learner, Placement, UpdateOptions, shards_of_rank
from harness.gluon.network import prepare_network
from harness.gluon.recompute import Recomputing
from harness.model.calls import Calls
from harness.model.parameters import parameters_of
from tests.gluon.ranks import on_ranks
from tests.gluon.test_average import SWA, SWA_CASES, trained
from tests.gluon.test_learner import DATA, LABEL, dealt, learner_of, small_net

AT_ONCE = Averaging(None, statistics="recomputed")
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def of_learner(net, **options):
    """A learner whose average is that of its first update, and the data's: of 4 shards."""
    learner = learner_of(4, net, average=AT_ONCE, **options)
    learner.update(dealt(8, 0, 6, 5)(1), 0.1)
    return learner


def statistics_of(learner):
    return {name: array for name, array in learner.snapshot().averages.items() if "running" in name}


def own_statistics(data):
    """Mean and variance of each channel, of the variance that is divided by n."""
    return data.mean(axis=(0, 2, 3)), data.var(axis=(0, 2, 3))


@pytest.mark.parametrize("case", [case for case in SWA_CASES if "batches" in case])
def test_they_are_those_of_pytorchs_update_bn(case):
    net = nn.HybridSequential()
    net.add(nn.BatchNorm(epsilon=1e-5, in_channels=3), nn.Dense(4, use_bias=False), nn.BatchNorm(epsilon=1e-5))
    net.initialize()
    batches = [np.array(one, np.float32) for one in case["batches"]]
    learner = Learner(
        net,
        LOSS,
        mx.optimizer.SGD(),
        SingleWorld(),
        shards=1,
        sample=batches[0],
        options=UpdateOptions(average=AT_ONCE),
    )
    learner.update(GlobalBatch(1, (Batch(0, batches[0], np.zeros(len(batches[0]), np.float32)),), len(batches[0])), 0.0)
    state = learner.snapshot()
    own = {"1.weight": case["weight"]}
    for layer, (gamma, beta) in zip("02", case["affine"], strict=True):
        own |= {f"{layer}.gamma": gamma, f"{layer}.beta": beta}
    state.averages.update({name: np.array(numbers, np.float32) for name, numbers in own.items()})
    learner.restore(state)

    def stream(t):
        data = batches[t - 1]
        return GlobalBatch(t, (Batch(0, data, np.zeros(len(data), np.float32)),), len(data))

    assert learner.recompute_statistics(stream, len(batches))
    found = learner.snapshot().averages
    # PyTorch divides a batch's variance by n - 1 for its running variance, MXNet by n
    count = sum(1.0 for _ in batches)
    for layer, (mean, _) in zip("02", case["statistics"], strict=True):
        np.testing.assert_allclose(found[f"{layer}.running_mean"], mean, rtol=1e-5, atol=1e-5)
    expected = sum(one.var(axis=0) for one in batches) / count
    np.testing.assert_allclose(found["0.running_var"], expected, rtol=1e-5)
    unbiased = sum(one.var(axis=0, ddof=1) for one in batches) / count
    np.testing.assert_allclose(case["statistics"][0][1], unbiased, rtol=1e-5)
    if len(batches) == 1:
        scale = (len(batches[0]) - 1) / len(batches[0])
        np.testing.assert_allclose(found["2.running_var"], np.array(case["statistics"][1][1]) * scale, rtol=1e-4)


class Operators(nn.HybridBlock):
    """A batch norm of a user's own, by MXNet's operator."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(3)
        for name, init, grad_req in (
            ("gamma", "ones", "write"),
            ("beta", "zeros", "write"),
            ("running_mean", "zeros", "null"),
            ("running_var", "ones", "null"),
        ):
            setattr(self, name, self.params.get(name, shape=(2,), init=init, grad_req=grad_req))

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        return self.dense(F.BatchNorm(x, gamma, beta, running_mean, running_var, momentum=0.37, fix_gamma=False))


class Imperative(nn.Block):
    """What cannot be compiled."""

    def __init__(self, momentum):
        super().__init__()
        with self.name_scope():
            self.norm, self.dense = nn.BatchNorm(momentum=momentum), nn.Dense(3)

    def forward(self, x):
        return self.dense(self.norm(x))


def layers(*norms):
    net = nn.HybridSequential()
    net.add(*norms, nn.Dense(3))
    return net


def imported():
    """A graph without blocks."""
    net, data = ready(layers(nn.BatchNorm(momentum=0.6))), mx.sym.var("data", dtype="float32")
    net(mx.nd.array(DATA[:1]))
    return mx.gluon.SymbolBlock([net(data)], [data], net.collect_params())


def ready(net):
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    return net


@pytest.mark.parametrize(
    "build",
    [
        lambda: layers(nn.BatchNorm()),
        lambda: layers(nn.BatchNorm(momentum=0.0)),
        lambda: layers(nn.BatchNorm(momentum=0.999)),
        lambda: layers(nn.BatchNormReLU(momentum=0.8)),
        Operators,
        imported,
        lambda: Imperative(0.5),
    ],
    ids=["block", "momentum 0", "momentum 0.999", "with ReLU", "operator", "graph", "not compiled"],
)
def test_they_are_the_mean_of_what_each_shard_has_whatever_the_momentum(build):
    learner = of_learner(build() if build is imported else ready(build()))
    assert learner.recompute_statistics(dealt(8, 0, 6, 5), 3)
    shards = [own_statistics(DATA[rows].astype(np.float64)) for rows in (slice(0, 8), slice(8, 14), slice(14, 19))]
    means, variances = (np.mean(parts, axis=0) for parts in zip(*shards, strict=True))
    found = sorted(statistics_of(learner).items())
    np.testing.assert_allclose([array for _, array in found], [means, variances], rtol=2e-5, atol=2e-6)


def test_training_goes_on_as_without_and_nobody_reads_more_than_is_needed():
    learner, plain = learner_of(2, average=SWA), learner_of(2)
    asked = []

    def stream(t):
        asked.append(t)
        return dealt(3, 5, first=8 * t)(t)

    for t in range(1, 8):
        trained(learner, t, t)
        assert learner.recompute_statistics(stream, 2)
    trained(plain, 1, 7)
    states = learner.snapshot(), plain.snapshot()
    for kind in ("parameters", "optimizer_state"):
        one, other = (getattr(state, kind) for state in states)
        assert {name: array.tobytes() for name, array in one.items()} == {n: a.tobytes() for n, a in other.items()}
    assert asked == [1, 2] * 3  # after the updates of the average, which are those of 2, 4 and 6


def test_statistics_are_recomputed_only_where_they_are_asked_for_and_there_are_any():
    def never(t):
        raise AssertionError(t)

    assert learner_of(2).recompute_statistics(never, 2)
    assert learner_of(2, average=SWA).recompute_statistics(never, 2)  # it has not begun
    for net, averaging in ((None, Averaging(None)), (small_net(batch_norm=False), AT_ONCE)):
        learner = trained(learner_of(2, net, average=averaging), 1, 2)
        assert learner.recompute_statistics(never, 2)
    for frozen in (small_net(), layers(nn.BatchNorm(use_global_stats=True))):
        frozen.initialize(force_reinit=True)
        names = [name for name in parameters_of(frozen) if "running" in name]
        learner = trained(learner_of(2, frozen, average=AT_ONCE, frozen=names), 1, 2)
        assert learner.recompute_statistics(never, 2)


def test_statistics_of_other_kinds_are_the_latest():
    class Counts(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.norm, self.dense = nn.BatchNorm(), nn.Dense(3)
            self.seen = self.params.get("running_count", shape=(1,), init="zeros", grad_req="null")

        def forward(self, x):
            if mx.autograd.is_training():
                count = self.seen.data()
                count[:] = count + 1
            return self.dense(self.norm(x))

    net = Counts()
    net.initialize()
    learner = of_learner(net)
    before = statistics_of(learner)
    assert learner.recompute_statistics(dealt(8, 0, 6, 5), 3)
    differ = {name for name, array in statistics_of(learner).items() if not (array == before[name]).all()}
    assert differ == {"norm.running_mean", "norm.running_var"}


def test_what_does_not_move_in_training_stays():
    net = layers(nn.BatchNorm(center=False, scale=False))
    net.initialize()
    learner = of_learner(net)
    before = {name: array.tolist() for name, array in statistics_of(learner).items()}
    assert learner.recompute_statistics(dealt(8, 0, 6, 5), 3)
    assert {name: array.tolist() for name, array in statistics_of(learner).items()} == before


def test_dropout_draws_what_it_draws_in_training():
    digests = set()
    for _ in range(2):
        learner = of_learner(small_net(dropout=0.5))
        mx.random.seed(len(digests))
        assert learner.recompute_statistics(dealt(8, 0, 6, 5), 3)
        digests.add(learner.digest())
    assert len(digests) == 1


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_have_the_bits_of_one_process(size):
    """MXNet is no affair of threads, so what shards give is drawn at random here."""
    net = small_net()
    learner = of_learner(net)
    known = prepare_network(Calls(net, LOSS), SingleWorld(), [mx.cpu()], DATA[:1], UpdateOptions())
    rows = np.random.default_rng(1).normal(size=(3, 4, 8)) * 10.0 ** np.arange(-4, 4)

    def on_rank(world):
        class Sums:
            def batch_statistics(self, batch, *_):
                return {shard: rows[batch.t - 1, shard] for shard in shards_of_rank(4, world) if shard != 1}

        recomputing = Recomputing(net, known, Sums(), world, 4)
        return recomputing(dealt(8, 0, 6, 5), 3, lambda _: None, lambda: False)

    (expected,) = on_ranks(1, on_rank)
    for found in on_ranks(size, on_rank):
        assert found.keys() == expected.keys() == statistics_of(learner).keys()
        assert all((found[name] == array).all() for name, array in expected.items())


def test_several_devices_share_the_shards():
    found = []
    for contexts in ([mx.cpu()], [mx.cpu(0), mx.cpu(1), mx.cpu(2)]):
        net = small_net()
        net.collect_params().reset_ctx(contexts)
        learner = Learner(
            net,
            LOSS,
            mx.optimizer.SGD(),
            SingleWorld(),
            shards=4,
            sample=DATA[:1],
            placement=Placement(contexts),
            options=UpdateOptions(average=AT_ONCE),
        )
        order = shards_of_rank(4, SingleWorld(), len(contexts))
        ends = np.cumsum((8, 0, 6, 5))

        def stream(t, order=order, ends=ends):
            slices = {s: slice(ends[s] - (8, 0, 6, 5)[s], ends[s]) for s in order}
            return GlobalBatch(t, tuple(Batch(s, DATA[slices[s]], LABEL[slices[s]]) for s in order), 19)

        learner.update(stream(1), 0.1)
        assert learner.recompute_statistics(stream, 2)
        found.append(learner.digest())
    assert found[0] == found[1]


def test_a_stop_leaves_everything_as_it_was():
    learner = of_learner(small_net())
    digest, answers = learner.digest(), iter([False, True])
    assert not learner.recompute_statistics(dealt(8, 0, 6, 5), 3, lambda: next(answers))
    assert learner.digest() == digest
    assert learner.recompute_statistics(dealt(8, 0, 6, 5), 3)
    assert learner.digest() != digest


def test_numbers_that_are_not_finite_end_it():
    learner = of_learner(small_net())
    digest = learner.digest()

    def stream(t):
        batch = dealt(8, 0, 6, 5)(t)
        bad = Batch(0, np.full_like(batch.batches[0].data, np.inf), batch.batches[0].label)
        return GlobalBatch(t, (bad, *batch.batches[1:]), batch.num_samples)

    with pytest.raises(DivergedError, match=r"the running statistics of the averaged weights are not finite; lower"):
        learner.recompute_statistics(stream, 2)
    assert learner.digest() == digest
