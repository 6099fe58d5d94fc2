"""Embeddings whose gradients are rows: against MXNet's own lazy updates, and in all that an update does besides."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.checkpoint import read_arrays, verify, write_checkpoint
from harness.comm import SingleWorld
from harness.comm.rows import Rows
from harness.data import Batch, GlobalBatch
from harness.errors import CheckpointError, ConfigError, DataError, DivergedError
from harness.gluon import Learner, LearnerState, Placement, UpdateOptions, shards_of_rank
from harness.gluon.step import OptimizerStep
from harness.model.optimizers import NOT_BY_ROWS, build_optimizer, known_optimizers, set_multipliers
from tests.programs.embeddings import Bag, Factors
from tests.programs.own_optimizers import Lion

ROWS, FREQUENT, SHARDS, SIZE = 40, 12, 4, 5  # a batch has ids below FREQUENT alone
MOMENTUM = {name: {"momentum": 0.9} for name in ("sgd", "nag", "signum")}
BY_ROWS = sorted(set(known_optimizers()) - set(NOT_BY_ROWS))
LOSS = mx.gluon.loss.L2Loss()


def batch(t, count=SHARDS * [SIZE], devices=1):
    """A global batch in the order of one process; shard s has `count[s]` samples."""
    shards = []
    for shard in shards_of_rank(SHARDS, SingleWorld(), devices):
        random = np.random.default_rng((t, shard))
        found = random.integers(0, FREQUENT, (SIZE, 2)).astype(np.float32)
        label = random.normal(size=(SIZE, 1)).astype(np.float32)
        shards.append(Batch(shard, found[: count[shard]], label[: count[shard]]))
    return GlobalBatch(t, tuple(shards), sum(count))


def learner_of(net, optimizer, *, options=None, placement=None, loss=LOSS):
    mx.random.seed(2)
    contexts = (placement or Placement()).contexts or [mx.cpu()]
    net.initialize(mx.init.Uniform(0.5), ctx=list(contexts))
    return Learner(
        net,
        loss,
        optimizer,
        SingleWorld(),
        shards=SHARDS,
        sample=batch(1),
        options=options or UpdateOptions(),
        placement=placement or Placement(),
    )


def built(name, **params):
    return build_optimizer(name, params or MOMENTUM.get(name, {}))


def train(learner, first, last, devices=1):
    for t in range(first, last + 1):
        learner.update(batch(t, devices=devices), 0.02 + 0.01 * (t % 3))
    return learner.digest()


def arrays(learner):
    state = learner.snapshot()
    return {**state.parameters, **state.optimizer_state}


# --------------------------------------------------------------------------------------- golden values


def frozen_bag():
    """A network whose norm does not look at the batch, which the learner has in parts."""
    mx.random.seed(2)
    net = Bag(rows=ROWS, by_batch=False)
    net.initialize(mx.init.Uniform(0.5))
    net(mx.nd.zeros((1, 2)))
    return net


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("sgd", {}),
        ("sgd", {"wd": 0.1}),
        ("sgd", {"momentum": 0.9}),
        ("sgd", {"momentum": 0.9, "wd": 0.1}),
        ("adam", {}),
        ("adam", {"wd": 0.1, "beta1": 0.5}),
    ],
    ids=str,
)
def test_rows_step_as_by_the_lazy_updates_of_mxnet(name, params):
    """Gluon's trainer on the whole batch at once, at a constant rate: the same but for the order of sums."""
    plain, own = (frozen_bag() for _ in range(2))
    learner = Learner(own, LOSS, build_optimizer(name, params), SingleWorld(), shards=SHARDS, sample=batch(1))
    trainer = mx.gluon.Trainer(plain.collect_params(), name, {"learning_rate": 0.1, **params}, kvstore=None)
    for t in range(1, 9):
        shards = batch(t).batches
        data, label = (
            mx.nd.array(np.concatenate([getattr(one, kind) for one in shards])) for kind in ("data", "label")
        )
        with mx.autograd.record():
            losses = LOSS(plain(data), label)
        losses.backward()
        assert plain.embed.weight.grad().stype == "row_sparse"
        trainer.step(SHARDS * SIZE)
        learner.update(batch(t), 0.1)
    for key, parameter in plain._collect_params_with_prefix().items():
        found = learner.parameters[key].data().asnumpy()
        np.testing.assert_allclose(found, parameter.data().asnumpy(), rtol=2e-5, atol=2e-6, err_msg=key)


def test_adagrad_steps_as_by_its_formula():
    """Duchi et al. 2011; without decay it is exact, because rows without a gradient would not move."""
    learner = learner_of(Factors(rows=ROWS), built("adagrad"))
    other = learner_of(Factors(rows=ROWS, sparse=False), built("adagrad"))
    for t in range(1, 6):
        learner.update(batch(t), 0.1)
        other.update(batch(t), 0.1)
    for (key, found), (its, expected) in zip(arrays(learner).items(), arrays(other).items(), strict=True):
        assert (key, found.tobytes()) == (its, expected.tobytes())


@pytest.mark.parametrize("name", BY_ROWS)
def test_where_every_row_has_a_gradient_it_is_the_dense_update(name):
    """The bits of an embedding with a dense gradient, for every optimizer, at a rate that changes."""
    every = np.arange(ROWS, dtype=np.float32).reshape(-1, 2)

    def trained(sparse):
        learner = learner_of(Bag(sparse, rows=ROWS), built(name, wd=0.1, **MOMENTUM.get(name, {})))
        for t in range(1, 5):
            shards = tuple(Batch(one.shard, every, np.resize(one.label, (len(every), 1))) for one in batch(t).batches)
            learner.update(GlobalBatch(t, shards, SHARDS * len(every)), 0.01)
        return {key: array for key, array in arrays(learner).items() if not key.endswith("/rates")}

    if name in ("sgld", "nadam"):  # rows are stepped after all other weights
        pytest.skip("draws noise, or keeps one number for all weights, in the order in which they are stepped")
    found, expected = trained(True), trained(False)
    assert found.keys() == expected.keys()
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6, atol=1e-7, err_msg=key)


# ------------------------------------------------------------------------------------- what lazy means


def test_other_rows_keep_weight_and_history():
    learner = learner_of(Bag(rows=ROWS), built("adam", wd=0.1))
    before = arrays(learner)
    train(learner, 1, 3)
    after = arrays(learner)
    for key in ("embed.weight", "embed.weight/0", "embed.weight/1"):
        assert (after[key][:FREQUENT] != before[key][:FREQUENT]).any(axis=1).all()
        assert after[key][FREQUENT:].tobytes() == before[key][FREQUENT:].tobytes()
    assert learner.numbers()["update_counts"] == [3] * 5


@pytest.mark.parametrize("rate", [0.1, 0.0])
def test_an_update_without_a_row_counts_and_moves_nothing(rate):
    table = mx.gluon.Parameter("table", shape=(ROWS, 2), grad_stype="row_sparse", init=mx.init.One())
    table.initialize()
    step = OptimizerStep(built("adam", wd=0.1), {"table": table})
    step.step(1, rate, None, 1.0, [Rows.none(2)])
    assert step.optimizer.num_update == 1
    assert (table.data().asnumpy() == 1).all()


def test_momentum_of_a_row_follows_the_rate_since_its_last_step():
    """Goyal et al. 2017, section 3, for rows: v = m v + g; w -= lr v, where a row without a gradient rests."""
    learner = learner_of(Factors(rows=ROWS), built("sgd", momentum=0.9))
    weights = {
        name: learner.parameters[name].data().asnumpy().astype(np.float64) for name in ("user.weight", "item.weight")
    }
    velocity = {name: np.zeros_like(one) for name, one in weights.items()}
    for t in range(1, 9):
        rate = 0.0 if t == 4 else 0.3 / t
        ids = [shard.data for shard in batch(t).batches]
        kept = [ids_of_half(one, t) for one in ids]
        shards = tuple(Batch(one.shard, own, one.label) for one, own in zip(batch(t).batches, kept, strict=True))
        gradient = {name: np.zeros_like(one) for name, one in weights.items()}
        for shard in shards:
            users, items = shard.data.astype(int).T
            error = (weights["user.weight"][users] * weights["item.weight"][items]).sum(axis=1) - shard.label[:, 0]
            np.add.at(gradient["user.weight"], users, error[:, None] * weights["item.weight"][items])
            np.add.at(gradient["item.weight"], items, error[:, None] * weights["user.weight"][users])
        learner.update(GlobalBatch(t, shards, SHARDS * SIZE), rate)
        for column, name in enumerate(weights):
            rows = np.unique(np.concatenate([shard.data[:, column] for shard in shards])).astype(int)
            velocity[name][rows] = 0.9 * velocity[name][rows] + gradient[name][rows] / (SHARDS * SIZE)
            weights[name][rows] -= rate * velocity[name][rows]
    for name, expected in weights.items():
        np.testing.assert_allclose(learner.parameters[name].data().asnumpy(), expected, rtol=1e-4, atol=1e-5)
    rates = learner.snapshot().optimizer_state["user.weight/rates"]
    assert rates.dtype == np.float64
    assert len(np.unique(rates)) == 3  # never, and in two updates
    assert (rates[FREQUENT:] == 0).all()


def ids_of_half(ids, t):
    """Ids of which some rows are missing in every other update."""
    return (ids // 2 if t % 2 else ids).astype(np.float32)


@pytest.mark.parametrize("name", ["sgd", "nag", "adam", "adamw", "rmsprop", "ftml"])
def test_an_update_at_rate_0_moves_no_row(name):
    learner = learner_of(Bag(rows=ROWS), built(name, wd=0.1, **MOMENTUM.get(name, {})))
    for t, rate in enumerate((0.0, 0.02, 0.0, 0.01), start=1):
        before = learner.snapshot().parameters["embed.weight"]
        learner.update(batch(t), rate)
        after = learner.snapshot().parameters["embed.weight"]
        assert (after.tobytes() == before.tobytes()) == (rate == 0)
    assert all(np.isfinite(one).all() for one in arrays(learner).values())


@pytest.mark.parametrize("correction", [True, False])
def test_factors_of_the_table_count(correction):
    def moved(**patterns):
        learner = learner_of(
            Bag(rows=ROWS), built("sgd", wd=0.1), options=UpdateOptions(momentum_correction=correction)
        )
        trainable = {name: one for name, one in learner.parameters.items() if one.grad_req != "null"}
        set_multipliers(trainable, **{"lr_mult": {}, "wd_mult": {}, "decay_bias_and_norm": True, **patterns})
        before = learner.snapshot().parameters["embed.weight"]
        learner.update(batch(1), 0.1)
        return learner.snapshot().parameters["embed.weight"] - before

    plain, slow, undecayed = moved(), moved(lr_mult={"embed.*": 0.5}), moved(wd_mult={"embed.*": 0.0})
    np.testing.assert_allclose(slow, 0.5 * plain, rtol=1e-4, atol=1e-7)
    assert np.abs(undecayed[:FREQUENT] - plain[:FREQUENT]).max() > 1e-3
    assert not plain[FREQUENT:].any()


# --------------------------------------------------------------------------- what else is in an update


def test_the_norm_counts_rows():
    norms = []
    for sparse in (True, False):
        learner = learner_of(Bag(sparse, rows=ROWS), built("sgd", momentum=0.0))
        learner.update(batch(1), 0.1)
        learner.check_pending()
        norms.append(learner.gradient_norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_clipping_by_norm_and_by_value_reach_rows():
    def moved(sparse, options=None, clip_value=None):
        optimizer = build_optimizer("sgd", {}, clip_value=clip_value)
        learner = learner_of(Bag(sparse, rows=ROWS), optimizer, options=options)
        before = learner.snapshot().parameters
        learner.update(batch(1), 0.1)
        return {name: array - before[name] for name, array in learner.snapshot().parameters.items()}

    for how in ({"options": UpdateOptions(clip_norm=0.05)}, {"clip_value": 0.003}):
        found, expected = moved(True, **how), moved(False, **how)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("skip", [True, False])
def test_rows_that_are_not_finite_are_noticed(skip):
    learner = learner_of(Factors(rows=ROWS), built("sgd"), options=UpdateOptions(skip_nonfinite=skip))
    learner.update(batch(1), 0.1)
    before = learner.digest()
    shards = tuple(Batch(one.shard, one.data, one.label * np.float32(1e38)) for one in batch(2).batches)
    if not skip:
        with pytest.raises(DivergedError, match="iteration 2: the loss is"):
            learner.update(GlobalBatch(2, shards, SHARDS * SIZE), 0.1)
        return
    learner.update(GlobalBatch(2, shards, SHARDS * SIZE), 0.1)
    assert (learner.skipped, learner.digest()) == (1, before)


def test_empty_shards_have_no_rows():
    learner = learner_of(Bag(rows=ROWS), built("adam"))
    learner.update(batch(1, [SIZE, 0, 2, 0]), 0.1)
    state = learner.snapshot()
    assert all(np.isfinite(one).all() for one in arrays(learner).values())
    assert (state.optimizer_state["embed.weight/1"][FREQUENT:] == 0).all()


def test_two_devices_have_the_bits_of_one():
    placement = Placement([mx.cpu(0), mx.cpu(1)])
    for name in ("adam", "sgd"):
        two = train(learner_of(Bag(rows=ROWS), built(name), placement=placement), 1, 5, devices=2)
        assert two == train(learner_of(Bag(rows=ROWS), built(name)), 1, 5)


def test_a_weighted_loss_divides_rows_as_well():
    class Weighted(mx.gluon.loss.Loss):
        def __init__(self):
            super().__init__(1.0, 0)

        def hybrid_forward(self, F, prediction, label):
            return F.square(prediction - label), F.broadcast_greater(label, F.zeros_like(label))

    found = []
    for sparse in (True, False):
        learner = learner_of(Bag(sparse, rows=ROWS), built("sgd", momentum=0.0), loss=Weighted())
        learner.update(batch(1), 0.1)
        found.append(learner.snapshot().parameters["embed.weight"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-8)


def test_code_that_is_no_graph_runs_with_rows():
    compiled, code = (learner_of(Bag(rows=ROWS, is_code=is_code), built("adam")) for is_code in (False, True))
    assert any("cannot be compiled" in remark for remark in code.remarks)
    assert train(compiled, 1, 4) == train(code, 1, 4)


def test_a_table_that_is_also_a_dense_layer_has_all_rows():
    """Tied weights: the gradient is the sum of both."""

    class Tied(nn.HybridBlock):
        def __init__(self, sparse):
            super().__init__()
            with self.name_scope():
                self.embed = nn.Embedding(ROWS, 3, sparse_grad=sparse)
                self.out = nn.Dense(ROWS, in_units=3, flatten=False, params=self.embed.params)

        def hybrid_forward(self, F, ids):
            return F.mean(self.out(self.embed(ids)), axis=(1, 2)).reshape((-1, 1))

    found = [learner_of(Tied(sparse), built("sgd", momentum=0.0)) for sparse in (True, False)]
    for learner in found:
        train(learner, 1, 3)
    for name, expected in found[1].snapshot().parameters.items():
        np.testing.assert_allclose(found[0].snapshot().parameters[name], expected, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------- state, restored


def through_the_disk(state, folder):
    path = write_checkpoint(folder, 5, state.arrays, {"state": state.numbers, "other": 1})
    found = read_arrays(path)
    return LearnerState(found["parameters"], found["slots"], verify(path)["state"])


@pytest.mark.parametrize("name", BY_ROWS)
def test_a_restored_state_goes_on_as_the_unbroken_run(name, tmp_path):
    learner = learner_of(Bag(rows=ROWS), built(name))
    start = learner.snapshot()
    train(learner, 1, 5)
    state = learner.snapshot()
    end = train(learner, 6, 10)
    assert len({start.digest(), state.digest(), end}) == 3
    other = learner_of(Bag(rows=ROWS), built(name))
    train(other, 3, 4)
    other.restore(through_the_disk(state, tmp_path))
    assert other.digest() == state.digest()
    assert train(other, 6, 10) == end
    other.restore(start)
    assert other.digest() == start.digest()


def test_a_checkpoint_without_the_rates_of_rows_does_not_fit():
    learner = learner_of(Bag(rows=ROWS), built("sgd"))
    state = learner.snapshot()
    del state.optimizer_state["embed.weight/rates"]
    with pytest.raises(CheckpointError, match=r"embed\.weight/rates is missing"):
        learner.restore(state)


# ----------------------------------------------------------------------------------------------- refused


class Normed(Lion):
    """Scales a step by the norm of the whole weight."""

    def step(self, lr, wd, weight, grad, state):
        super().step(lr, wd, weight, grad * (1 + weight.norm()), state)
        weight[:] = weight * (1 - 0.01 * weight.norm())


class Totalled(Lion):
    """Keeps one number for a weight."""

    def create_state(self, index, weight):
        return mx.nd.zeros((1,))

    def step(self, lr, wd, weight, grad, state):
        weight[:] = weight - lr * grad
        state += 1


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        *(
            (
                lambda name=name: build_optimizer(name, {}),
                {},
                f"optimizer: {name.upper()}: scales a step by norms of the whole weight, so it cannot step a few rows "
                "of an embedding alone; use sparse_grad=False, or another optimizer",
            )
            for name in NOT_BY_ROWS
        ),
        (
            lambda: build_optimizer("adam", {"lazy_update": False}),
            {},
            "optimizer: Adam: lazy_update is false, but an embedding with sparse_grad is updated by rows, which is "
            "lazy; use sparse_grad=False, or remove lazy_update",
        ),
        (
            Normed,
            {},
            "optimizer: Normed: mixes the rows of a weight, as by a norm of all of it, so it cannot step a few rows of "
            "an embedding alone; use sparse_grad=False",
        ),
        (
            Totalled,
            {},
            "network: embed.weight has sparse_grad, but Totalled keeps no row of its state for each row of it; use "
            "sparse_grad=False",
        ),
        (
            lambda: build_optimizer("sgd", {}),
            {"placement": Placement([mx.cpu(0), mx.cpu(1)], update_on_kvstore=True)},
            "update_on_kvstore: a kvstore steps whole weights, but embed.weight has sparse_grad; set it to false",
        ),
    ],
)
def test_what_cannot_step_rows_is_refused(make, more, message):
    with pytest.raises(ConfigError) as caught:
        learner_of(Bag(rows=ROWS), make(), **more)
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", [{"stype": "row_sparse"}, {"stype": "csr"}, {"grad_stype": "csr"}], ids=str)
def test_a_weight_that_is_sparse_itself_is_refused(kind):
    class Net(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.one = nn.Dense(2, in_units=2)
                self.two = self.params.get("two", shape=(2, 2), **kind)

        def hybrid_forward(self, F, ids, two):
            return F.dot(self.one(ids), two)

    with pytest.raises(ConfigError) as caught:
        Learner(Net(), LOSS, built("sgd"), SingleWorld(), shards=1, sample=batch(1))
    assert str(caught.value) == (
        "network: two is sparse itself, which needs a kvstore; use a dense weight, whose gradient may be rows of it "
        "(nn.Embedding(sparse_grad=True))"
    )


@pytest.mark.parametrize("id_", [ROWS, -1, 1e6])
def test_an_id_without_a_row_is_named(id_):
    learner = learner_of(Factors(rows=ROWS), built("sgd"))
    before = learner.digest()
    ids = np.full((SIZE, 2), 3, np.float32)
    ids[2, 1] = id_
    shards = tuple(Batch(one.shard, ids if one.shard == 1 else one.data, one.label) for one in batch(7).batches)
    with pytest.raises(DataError) as caught:
        learner.update(GlobalBatch(7, shards, SHARDS * SIZE), 0.1)
    assert str(caught.value) == (
        "iteration 7, shard 1: an embedding with sparse_grad was asked for a row that it does not have (user.weight "
        "has rows 0 to 39, item.weight has rows 0 to 39); give it more rows, or other ids"
    )
    assert learner.digest() == before


def test_what_is_lazy_is_told():
    (remark,) = learner_of(Bag(rows=ROWS), built("adam")).remarks
    assert remark == (
        "network: embed.weight has sparse_grad, so Adam steps the rows that a batch has; others keep weight and "
        "history, and do not decay"
    )
    for exact in (built("sgd", momentum=0.0), built("adagrad")):
        assert learner_of(Bag(rows=ROWS), exact).remarks == []
    assert learner_of(Bag(False, rows=ROWS), built("adam")).remarks == []
