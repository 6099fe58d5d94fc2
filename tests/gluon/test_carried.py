"""State that shards carry from one update to the next: where it begins, who holds it, and what puts it back."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.comm import SingleWorld
from harness.data import ArrayDataset, Augmentation, Batch, BatchStream, GlobalBatch, Order, sweep_order
from harness.errors import CheckpointError, ConfigError, DivergedError
from harness.finder import FinderSettings, Sweep, find_lr
from harness.gluon import Learner, LearnerState, Placement, UpdateOptions, evaluate, shards_of_rank
from harness.gluon.carried import Carried
from harness.model import build_metrics
from harness.model.carried import FirstState
from tests.gluon.ranks import on_ranks
from tests.programs import streams
from tests.programs.streams import SIZE, Reader, windows, zeros

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
TEXT = ArrayDataset(*windows(0, 77))
HELD_OUT = ArrayDataset(*windows(1, 29))
SHARDS, ROWS = 4, 3


def network(kind=Reader, contexts=(), **params):
    net = kind(**params)
    mx.random.seed(3)
    net.initialize(mx.init.Xavier(), ctx=list(contexts) or mx.cpu())
    return net


def order_of(shards=SHARDS, rows=ROWS):
    return Order(len(TEXT), shards, rows, seed=0, are_streams=True)


def stream_of(contexts=(), order=None):
    own = shards_of_rank(SHARDS, SingleWorld(), max(1, len(contexts)))
    return BatchStream(TEXT, order or order_of(), own, Augmentation(), seed=0)


def learner_of(net=None, contexts=(), state=zeros, forward=None, loss=LOSS, **options):
    with stream_of(contexts) as stream:
        return Learner(
            net or network(contexts=contexts),
            loss,
            mx.optimizer.Adam(),
            SingleWorld(),
            shards=SHARDS,
            sample=stream(1),
            placement=Placement(contexts),
            options=UpdateOptions(**options),
            state=state,
            forward=forward,
        )


def trained(learner, first=1, last=9, contexts=()):
    with stream_of(contexts) as stream:
        return [float(learner.update(stream(t), 0.02)) for t in range(first, last + 1)]


def plain_gluon(updates):
    """Truncated back-propagation as a script of Gluon does it: one batch with all rows, states detached."""
    net = network(dropout=0.0)
    trainer = mx.gluon.Trainer(net.collect_params(), "adam")
    order, losses = order_of(), []
    for t in range(1, updates + 1):
        data, label = (mx.nd.array(part, dtype=part.dtype) for part in TEXT.take(order.global_indices(t)))
        if order.begins(t):
            state = [mx.nd.zeros((1, SHARDS * ROWS, SIZE))] * 2
        with mx.autograd.record():
            output, state = net(data, [one.detach() for one in state])
            loss = LOSS(output, label)
        loss.backward()
        trainer.set_learning_rate(0.02)
        trainer.step(SHARDS * ROWS)
        losses.append(float(loss.mean().asscalar()))
    return losses, {name: one.data().asnumpy() for name, one in net._collect_params_with_prefix().items()}


@pytest.mark.parametrize("hybridize", [True, False])
def test_it_is_truncated_back_propagation(hybridize):
    learner = learner_of(network(dropout=0.0), hybridize=hybridize)
    losses = trained(learner, last=15)
    expected, parameters = plain_gluon(15)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for name, array in learner.snapshot().parameters.items():
        np.testing.assert_allclose(array, parameters[name], rtol=1e-3, atol=1e-5)  # Adam divides by small numbers


def test_without_what_was_before_the_losses_are_others():
    learner = learner_of(network(dropout=0.0))
    with stream_of() as stream:
        batches = [stream(t) for t in range(1, 7)]
    begun = [GlobalBatch(one.t, one.batches, one.num_samples, begins=True) for one in batches]
    carried = [float(learner.update(batch, 0.0)) for batch in batches]
    forgotten = [float(learner.update(batch, 0.0)) for batch in begun]
    assert carried[0] == forgotten[0]
    assert all(one != other for one, other in zip(carried[1:], forgotten[1:], strict=True))
    assert carried == [float(learner.update(batch, 0.0)) for batch in batches]  # an epoch begins with the first state


def test_several_devices_of_one_process():
    found = []
    for contexts in ((), (mx.cpu(0), mx.cpu(1)), (mx.cpu(0), mx.cpu(1), mx.cpu(2))):
        learner = learner_of(contexts=contexts)
        found.append((trained(learner, contexts=contexts), learner.digest(), list(learner.snapshot().carried)))
    assert found[0] == found[1] == found[2]
    assert found[0][2] == [f"{shard}/{number}" for shard in range(SHARDS) for number in (0, 1)]


@pytest.mark.parametrize("contexts", [(), (mx.cpu(0), mx.cpu(1))])
def test_a_checkpoint_holds_it(tmp_path, contexts):
    whole = learner_of()
    trained(whole)
    one = learner_of()
    trained(one, last=4)
    one.snapshot().save(tmp_path, 4)
    state = LearnerState.load(tmp_path / "iteration-000000004")
    assert state.digest() == one.digest()
    assert (tmp_path / "iteration-000000004" / "carried.safetensors").is_file()
    other = learner_of(contexts=contexts)
    other.restore(state)
    assert other.digest() == one.digest()
    trained(other, first=5, contexts=contexts)
    assert other.digest() == whole.digest()
    without = LearnerState(state.parameters, state.optimizer_state, state.numbers)
    assert without.digest() != state.digest()
    again = learner_of()
    again.restore(without)
    trained(again, first=5)
    assert again.digest() != whole.digest()


def test_a_network_without_state_writes_no_such_file(tmp_path):
    net = mx.gluon.nn.Dense(2, in_units=3)
    net.initialize()
    data = np.zeros((4, 3), np.float32)
    learner = Learner(net, LOSS, mx.optimizer.SGD(), SingleWorld(), shards=1, sample=data)
    learner.gather_state()
    learner.snapshot().save(tmp_path, 1)
    assert not (tmp_path / "iteration-000000001" / "carried.safetensors").exists()


def bad_batch(t):
    """With a loss that is not a number, in the shard with number 2."""
    batch = batch_of(t)
    label = [np.where(one.shard == 2, np.float32(np.nan), one.label) for one in batch.batches]
    batches = tuple(Batch(one.shard, one.data, new) for one, new in zip(batch.batches, label, strict=True))
    return GlobalBatch(t, batches, batch.num_samples, batch.begins)


def batch_of(t):
    """With labels that are floats."""
    with stream_of() as stream:
        batch = stream(t)
    batches = tuple(Batch(one.shard, one.data, one.label.astype(np.float32)) for one in batch.batches)
    return GlobalBatch(t, batches, batch.num_samples, batch.begins)


class NotANumber(mx.gluon.loss.Loss):
    """Where a label is one."""

    def __init__(self) -> None:
        super().__init__(None, 0)
        self.inner = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def hybrid_forward(self, F, prediction, label):
        return self.inner(prediction, F.where(label == label, label, F.zeros_like(label))) + 0 * F.mean(label, axis=1)


@pytest.mark.parametrize("t", [4, 7])  # in an epoch, and at its start
def test_a_skipped_update_leaves_it_as_it_was(t):
    learner = Learner(
        network(),
        NotANumber(),
        mx.optimizer.Adam(),
        SingleWorld(),
        shards=SHARDS,
        sample=batch_of(1),
        options=UpdateOptions(skip_nonfinite=True),
        state=zeros,
    )
    for k in range(1, t):
        learner.update(batch_of(k), 0.02)
    before = learner.snapshot()
    assert np.isnan(float(learner.update(bad_batch(t), 0.02)))
    assert learner.skipped == 1
    after = learner.snapshot()
    assert all((after.parameters[name] == array).all() for name, array in before.parameters.items())
    if t == 7:
        assert after.carried == {}  # the next update begins with the first state, as this one should have
    else:
        assert after.digest() == before.digest()


def test_the_finder_puts_it_back():
    learner = learner_of()
    trained(learner, last=4)
    before = learner.digest()

    def samples(sweep):
        return stream_of(order=sweep_order(order_of(), sweep)[0])

    settings = FinderSettings(Sweep(1e-4, 1.0, None, 12), probes=2)
    finding = find_lr(learner, settings, samples)
    assert learner.digest() == before == finding.digest
    whole = learner_of()
    trained(whole)
    trained(learner, first=5)
    assert learner.digest() == whole.digest()


def test_it_is_checked_for_numbers_that_are_not_finite():
    def growing(rows):
        return {"inner": (np.full((rows, SIZE), 3e38, np.float32),), "read": np.zeros((rows, 1), np.int64)}

    class Growing(streams.Elman):
        def forward(self, words, state):
            output, following = super().forward(words, {**state, "inner": (state["inner"][0] * 0,)})
            return output, {**following, "inner": (state["inner"][0] * 2,)}

    learner = learner_of(network(Growing), state=growing)
    trained(learner, last=1)
    with pytest.raises(DivergedError, match="iteration 1: shard 0 carries a state that is not finite"):
        learner.check_weights(1)


def test_an_evaluation_has_states_of_its_own():
    learner = learner_of(network(dropout=0.0))
    trained(learner, last=4)
    before = learner.digest()
    found = evaluate(learner, HELD_OUT, ROWS, Augmentation(), build_metrics(["accuracy", "perplexity"]), streams=3)
    assert learner.digest() == before
    state, losses = None, []
    for step in range(9):
        data, label = HELD_OUT.take(np.arange(3) * 9 + step)
        _, loss, state = learner.predict_from(state, data, label)
        losses += loss.tolist()
    state = None
    for sample in (27, 28):
        _, loss, state = learner.predict_from(state, *HELD_OUT.take(np.array([sample])))
        losses += loss.tolist()
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    forgotten = evaluate(learner, HELD_OUT, ROWS, Augmentation(), {}, streams=29)
    assert forgotten["loss"] != found["loss"]


def test_ranks_know_the_states_of_all_shards_when_they_are_gathered():
    def work(world):
        first = FirstState.of(streams.a_tenth)
        places = {shard: mx.cpu() for shard in range(world.rank, 5, world.size)}
        carried = Carried(first, world, places, 5)
        assert carried.arrays("digest") == {}
        carried.begin(True)
        for shard in places:
            state = carried.before(1, shard, 2 + shard, True)
            carried.after(shard, {"inner": (state["inner"][0] + shard,), "read": state["read"] + shard + 2**40})
        carried.commit()
        with pytest.raises(
            ConfigError, match=r"digest: shards of other ranks carry state .* learner\.gather_state\(\)"
        ):
            carried.arrays("digest")
        carried.gather()
        found = carried.arrays("digest")
        other = Carried(first, world, places, 5)
        if world.rank == 0:
            other.load(found)
        other.share()
        again = other.arrays("digest")
        assert list(again) == list(found)
        assert all((again[name] == array).all() for name, array in found.items())
        read = {shard: other.before(2, shard, 2 + shard, False)["read"].asnumpy() for shard in places}
        assert all((one == shard + 2**40).all() for shard, one in read.items())
        return {name: (array.dtype.str, array.tolist()) for name, array in found.items()}

    found = on_ranks(3, work)
    assert found[0] == found[1] == found[2]
    assert list(found[0]) == [f"{shard}/{name}" for shard in range(5) for name in ("inner.0", "read")]
    assert found[0]["3/read"] == ("<i8", [[3 + 2**40]] * 5)
    np.testing.assert_allclose(found[0]["4/inner.0"][1], np.full((6, SIZE), 4.1), rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"state": streams.of_text}, r"network\.state: gave a str as state 'h' for 2 rows; give an array of NumPy or"),
        ({"state": lambda rows: {}}, r"network\.state: gave \{\} for 2 rows, without an array; give an array"),
        (
            {"state": streams.of_two_rows},
            r"network\.state: gave \(float32 \(1, 2, 8\), float32 \(1, 2, 8\)\) for 2 rows and for 3; make the number",
        ),
        ({"state": streams.counting}, r"network\.state: gave other numbers when it was called again for 2 rows; make"),
        ({"state": streams.not_a_number}, r"network\.state: row 0 has NaN or infinite values"),
        ({"state": streams.raising}, r"network\.state: raised KeyError: 'hidden' for 2 rows \(at .*streams\.py:\d+\)"),
        ({"net": streams.Forgetful}, r"network\.state: Forgetful returned float32 \(2, 5, 7\); a network that carries"),
        (
            {"net": streams.Halving},
            r"network\.state: the network was given the state \(float32 \(1, 2, 8\), float32 \(1, 2, 8\)\) and "
            r"returned \(float32 \(1, 2, 8\)\); return a state of the same structure, types and shapes",
        ),
        (
            {"forward": streams.without_state, "net": streams.Elman, "state": streams.a_tenth},
            r"network\.forward: returned \(.*\); with network\.state return \(prediction, losses, state\): what",
        ),
    ],
)
def test_wrong_uses_are_refused_before_the_first_update(changed, said):
    given = dict(changed)
    net = network(given.pop("net", Reader))
    if "forward" in given:
        given["forward"] = lambda net, loss, data, label, state: streams.without_state(
            net, loss, {"words": data}, label, state
        )
    with pytest.raises(ConfigError, match=said):
        learner_of(net, **given)


def test_a_shard_keeps_its_rows_until_states_begin_anew():
    learner = learner_of()
    trained(learner, last=2)
    with stream_of() as stream:
        batch = stream(3)
    fewer = tuple(Batch(one.shard, one.data[:2], one.label[:2]) for one in batch.batches)
    with pytest.raises(ConfigError, match=r"iteration 3, shard 0: network\.state: it carries the state .* 2 rows has"):
        learner.update(GlobalBatch(3, fewer, 8), 0.02)
    learner.update(GlobalBatch(3, fewer, 8, begins=True), 0.02)
    assert learner.snapshot().carried["0/0"].shape == (1, 2, SIZE)
    empty = (Batch(0, batch.batches[0].data[:0], batch.batches[0].label[:0]), *fewer[1:])
    learner.update(GlobalBatch(4, empty, 6), 0.02)  # which carries its state over
    learner.update(GlobalBatch(5, fewer, 8), 0.02)


def test_states_that_do_not_fit_are_refused():
    learner = learner_of()
    trained(learner, last=2)
    state, digest = learner.snapshot(), learner.digest()
    wrong = {**state.carried, "9/0": state.carried["0/0"], "1/0": state.carried["1/0"].astype(np.int32)}
    del wrong["2/1"]
    with pytest.raises(CheckpointError) as error:
        learner.restore(LearnerState(state.parameters, state.optimizer_state, state.numbers, wrong))
    for said in (
        "carried 9/0 is not expected",
        "carried 2/1 is missing",
        "carried 1/0 is int32 (1, 3, 8), expected float32 with 3 dimensions",
    ):
        assert said in str(error.value)
    assert learner.digest() == digest
