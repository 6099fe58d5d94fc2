"""Learners of parts of a network: what each changes, what it leaves to the other, and one checkpoint for both."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import CheckpointError, ConfigError
from harness.finder import FinderSettings, Sweep, find_lr
from harness.gluon import Learner, Learners, LearnerState, Placement, UpdateOptions, shards_of_rank
from tests.programs.gan import POINTS, SHARDS, batch_of, fool, gan, judge, learners_of, loss_of, update

RANDOM = np.random.default_rng(0)
LOSS = mx.gluon.loss.L2Loss()
POINT, ONES = RANDOM.normal(size=(2, POINTS)).astype(np.float32), np.ones(2, np.float32)


def owned(contexts=()):
    return shards_of_rank(SHARDS, SingleWorld(), max(1, len(contexts)))


def trained(whole=False, contexts=(), updates=8, **options):
    learners, generator, judging = learners_of(SingleWorld(), contexts, whole, **options)
    losses = [update(t, owned(contexts), generator, judging, whole) for t in range(1, updates + 1)]
    return learners, losses


@pytest.mark.parametrize("whole", [False, True])
def test_it_is_the_training_of_two_trainers(whole):
    """One shard, no dropout, against a script of plain Gluon."""
    found = []
    for plain in (False, True):
        net = gan(dropout=0.0)
        batches = [batch_of(t, [1]).batches[0] for t in range(1, 9) if batch_of(t, [1]).batches[0].count]
        found.append((plainly if plain else by_learners)(net, batches, whole))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    for name, array in found[0][1].items():
        if "running" not in name or name.startswith("generator"):
            np.testing.assert_allclose(array, found[1][1][name], rtol=2e-4, atol=1e-5, err_msg=name)


def by_learners(net, batches, whole):
    world, first = SingleWorld(), Batch(0, batches[0].data, batches[0].label)
    given = {"shards": 1, "sample": first}
    generator = Learner(net, LOSS, mx.optimizer.Adam(), world, forward=fool, trainable="generator.*", **given)
    if whole:
        from tests.programs.gan import judge_whole

        judging = Learner(net, LOSS, mx.optimizer.SGD(), world, forward=judge_whole, trainable="disc*", **given)
    else:
        given["sample"] = Batch(0, (first.data[0], first.data[0]), first.label)
        judging = Learner(net.discriminator, LOSS, mx.optimizer.SGD(), world, forward=judge, **given)
    losses = []
    for t, batch in enumerate(batches, 1):
        one = GlobalBatch(t, (Batch(0, batch.data, batch.label),), batch.count)
        seen = one
        if not whole:
            (made,) = generator.forward_only(one)
            seen = GlobalBatch(t, (Batch(0, (batch.data[0], made), batch.label),), batch.count)
        losses.append([float(judging.update(seen, 0.05)), float(generator.update(one, 0.01))])
    return losses, {name: one.data().asnumpy() for name, one in net._collect_params_with_prefix().items()}


def plainly(net, batches, whole):
    one = mx.gluon.Trainer(net.generator.collect_params(), "adam", {"learning_rate": 0.01})
    two = mx.gluon.Trainer(net.discriminator.collect_params(), "sgd", {"learning_rate": 0.05})
    losses = []
    for batch in batches:
        points, noise = (mx.nd.array(part) for part in batch.data)
        with mx.autograd.train_mode():  # its running statistics move with its own update alone
            before = {name: p.data().copy() for name, p in net.generator.collect_params("running_.*").items()}
            made = net.generator(noise).detach()
            for name, value in before.items():
                net.generator.collect_params()[name].set_data(value)
        with mx.autograd.record():
            real = net.discriminator(points)
            loss = loss_of(real, True) + loss_of(net.discriminator(made), False)
        loss.backward()
        two.step(batch.count)
        with mx.autograd.record():
            fooled = loss_of(net.discriminator(net.generator(noise)), True)
        fooled.backward()
        one.step(batch.count)
        losses.append([float(loss.mean().asscalar()), float(fooled.mean().asscalar())])
    return losses, {name: one.data().asnumpy() for name, one in net._collect_params_with_prefix().items()}


def values_of(net):
    mx.nd.waitall()
    return {name: one.data().asnumpy() for name, one in net._collect_params_with_prefix().items()}


@pytest.mark.parametrize("hybridize", [True, False])
def test_a_learner_changes_its_part_alone(hybridize):
    net = gan()
    if hybridize:
        net.generator.hybridize()
        net.discriminator.hybridize(static_alloc=True)
    given = {"shards": SHARDS, "sample": batch_of(1, [0]), "options": UpdateOptions(hybridize=hybridize)}
    learner = Learner(net, LOSS, mx.optimizer.Adam(), SingleWorld(), forward=fool, trainable=["generator.*"], **given)
    before = values_of(net)
    learner.update(batch_of(1, owned()), 0.01)
    after = values_of(net)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {name for name in before if name.startswith("generator")}
    assert list(learner.snapshot().optimizer_state) == [
        f"{name}/{number}"
        for name in before
        for number in (0, 1)
        if name.startswith("generator") and "running" not in name
    ]
    assert list(learner.parameters) == list(before)


@pytest.mark.parametrize("whole", [False, True])
def test_several_devices_of_one_process(whole):
    found = []
    for contexts in ((), (mx.cpu(0), mx.cpu(1))):
        learners, losses = trained(whole, contexts)
        found.append((learners.digest(), losses))
    assert found[0] == found[1]


def test_both_ways_of_writing_it_are_one():
    """Whether the discriminator's learner has the generator in its network or is given its points."""
    one, other = trained(False), trained(True)
    assert [loss for _, loss in one[1]] == [loss for _, loss in other[1]]


@pytest.mark.parametrize("whole", [False, True])
def test_one_checkpoint_holds_both(tmp_path, whole):
    expected, _ = trained(whole)
    learners, _ = trained(whole, updates=5)
    state = learners.snapshot()
    path = state.save(tmp_path, 5)
    loaded = LearnerState.load(path)
    assert loaded.digest() == state.digest() == learners.digest()
    assert set(loaded.parameters) == set(gan()._collect_params_with_prefix())
    assert set(loaded.numbers["learners"]) == {"generator", "discriminator"}
    again, generator, judging = learners_of(SingleWorld(), (), whole)
    again.restore(loaded)
    for t in range(6, 9):
        update(t, owned(), generator, judging, whole)
    assert again.digest() == expected.digest()
    with pytest.raises(
        CheckpointError, match="it is the state of the learners generator, discriminator: Learners rest"
    ):
        generator.restore(loaded)
    with pytest.raises(CheckpointError, match="it is the state of one learner, expected generator, discriminator"):
        again.restore(generator.snapshot())
    with pytest.raises(CheckpointError, match="it is the state of the learners generator, discriminator, expected two"):
        Learners({"two": generator, "one": judging}).restore(loaded)
    del loaded.parameters["generator.0.weight"]
    before = again.digest()
    with pytest.raises(CheckpointError, match=r"generator: generator\.0\.weight is missing"):
        again.restore(loaded)
    assert again.digest() == before


def test_forward_only_changes_nothing_and_draws_as_the_update():
    learners, generator, judging = learners_of(SingleWorld())
    for t in (1, 2):
        update(t, owned(), generator, judging)
    before = learners.digest()
    batch = batch_of(3, owned())
    made = generator.forward_only(batch)
    again = generator.forward_only(batch)
    assert learners.digest() == before
    assert [None if one is None else one.shape for one in made] == [(5, POINTS), None, (4, POINTS), (2, POINTS)]
    assert all((one == other).all() for one, other in zip(made, again, strict=True) if one is not None)
    predicted, _ = generator.predict(batch.batches[0].data, batch.batches[0].label)
    assert (predicted != made[0]).any()  # which normalises by the running statistics
    with pytest.raises(ConfigError, match=r"iteration 3: the batch has the shards \[2\], but this rank processes"):
        generator.forward_only(GlobalBatch(3, batch.batches[1:2], 4))


class Counted(nn.Block):
    """Draws random numbers, and counts rows in a statistic of its own that the forward pass writes to."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense, self.dropout = nn.Dense(2, in_units=3), nn.Dropout(0.5)
            self.rows = self.params.get("rows", shape=(1, 1), init="zeros", grad_req="null")

    def forward(self, x):
        if mx.autograd.is_training():
            with mx.autograd.pause():
                self.rows.data()[:] = self.rows.data() + len(x)
        return self.dropout(self.dense(x))


def test_forward_only_puts_statistics_back_and_draws_as_the_update():
    net, seen = Counted(), []
    net.initialize(mx.init.Xavier())

    def forward(net, loss, data, label):
        prediction = net(data)
        if mx.autograd.is_recording():
            seen.append(prediction.asnumpy())
        return prediction, loss(prediction, label)

    learner = Learner(
        net,
        LOSS,
        mx.optimizer.SGD(),
        SingleWorld(),
        shards=2,
        sample=points(1, 1),
        forward=forward,
        trainable="dense.*",
    )
    before = learner.digest()
    made = learner.forward_only(points(1, 1))
    assert learner.digest() == before
    seen.clear()
    learner.update(points(1, 1), 0.1)
    assert all((one == other).all() for one, other in zip(made, seen, strict=True))
    assert not net.rows.data().asnumpy().any()  # it is no part of what the learner changes
    whole = Learner(net, LOSS, mx.optimizer.SGD(), SingleWorld(), shards=2, sample=points(1, 1), forward=forward)
    whole.forward_only(points(2, 1))
    assert not net.rows.data().asnumpy().any()
    whole.update(points(2, 1), 0.1)
    assert net.rows.data().asnumpy() == 4  # the mean over shards
    learner.update(points(3, 1), 0.1)
    whole.update(points(4, 1), 0.1)
    assert net.rows.data().asnumpy() == 8


def test_no_gradient_of_the_other_part_is_computed():
    learners, generator, judging = learners_of(SingleWorld())
    for t in (1, 2):
        update(t, owned(), generator, judging)
    judging.update(GlobalBatch(3, tuple(Batch(s, (POINT, POINT), ONES) for s in owned()), 8), 0.0)
    gradient = judging.parameters["0.weight"].data().grad  # the array that a backward writes to
    before = gradient.asnumpy()
    generator.update(batch_of(3, owned()), 0.01)
    assert (gradient.asnumpy() == before).all()
    assert learners.digest() == learners.snapshot().digest()


def test_running_statistics_that_two_learners_change():
    """In turns, without a step: what plain Gluon has after the same batches."""
    net, plain = TwoHeads(), TwoHeads()
    for one in (net, plain):
        mx.random.seed(3)
        one.initialize(mx.init.Xavier())
        one(mx.nd.zeros((1, 3)))
    given = {"shards": 1, "sample": points(1, 1)}
    learners = [
        Learner(net, LOSS, mx.optimizer.SGD(), SingleWorld(), forward=head_of(number, everything=True), **given)
        for number in (0, 1)
    ]
    for t in range(1, 6):
        batch = points(t, 1).batches[0]
        learners[t % 2].update(GlobalBatch(t, (batch,), 4), 0.0)
        with mx.autograd.record():
            loss = sum(head.sum() for head in plain(mx.nd.array(batch.data)))
        loss.backward()
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(
            getattr(net.body[1], name).data().asnumpy(), getattr(plain.body[1], name).data().asnumpy()
        )


def test_the_finder_sweeps_over_one_of_them():
    learners, generator, judging = learners_of(SingleWorld())
    for t in (1, 2, 3):
        update(t, owned(), generator, judging)
    before = learners.digest()

    class Stream:
        def __enter__(self):
            return lambda t: batch_of(100 + t, owned())

        def __exit__(self, *_):
            return None

    find_lr(generator, FinderSettings(Sweep(1e-4, 1.0, None, 8)), lambda _: Stream())
    assert learners.digest() == before
    expected, one, other = learners_of(SingleWorld())
    for t in range(1, 7):
        update(t, owned(), one, other)
    for t in range(4, 7):
        update(t, owned(), generator, judging)
    assert learners.digest() == expected.digest()


def test_parts_may_overlap():
    """A body that both train; and two learners of all of it."""
    for patterns in ((["body.*", "one.*"], ["body.*", "two.*"]), (None, None)):
        digests = []
        for contexts in ((), (mx.cpu(0), mx.cpu(1))):
            net = TwoHeads()
            mx.random.seed(3)
            net.initialize(mx.init.Xavier(), ctx=list(contexts) or mx.cpu())
            learners = {
                f"task{number}": Learner(
                    net,
                    LOSS,
                    mx.optimizer.NAG(momentum=0.9),
                    SingleWorld(),
                    shards=2,
                    sample=Batch(0, np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32)),
                    placement=Placement(contexts),
                    forward=head_of(number, everything=pattern is None),
                    trainable=pattern,
                )
                for number, pattern in enumerate(patterns)
            }
            for t in range(1, 5):
                for learner in learners.values():
                    learner.update(points(t, max(1, len(contexts))), 0.05)
            digests.append(Learners(learners).digest())
        assert digests[0] == digests[1]


@pytest.mark.parametrize("by_rows", [False, True])
def test_what_one_learner_leaves_out_the_other_trains_as_if_alone(by_rows):
    found = []
    for has_other in (False, True):
        net = Words(by_rows)
        mx.random.seed(3)
        net.initialize(mx.init.Xavier())
        sample = Batch(0, np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32))
        given = {"shards": 2, "sample": sample}
        first = Learner(
            net,
            LOSS,
            mx.optimizer.Adam(),
            SingleWorld(),
            forward=head_of(0, False),
            trainable=["embed.*", "one.*"],
            **given,
        )
        if has_other:
            head = head_of(1, False)
            other = Learner(net, LOSS, mx.optimizer.SGD(), SingleWorld(), forward=head, trainable="two.*", **given)
        for t in range(1, 5):
            batch = points(t, 1)
            words = tuple(Batch(one.shard, np.abs(one.data).round(), one.label) for one in batch.batches)
            first.update(GlobalBatch(t, words, 8), 0.05)
            if has_other:
                other.update(GlobalBatch(t, words, 8), 0.05)
        state = first.snapshot()
        found.append(({name: state.parameters[name].tobytes() for name in ("embed.weight", "one.weight")}, first.loss))
    assert found[0] == found[1]


class Words(nn.Block):
    def __init__(self, by_rows: bool) -> None:
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(10, 4, sparse_grad=by_rows)
            self.one, self.two = nn.Dense(2, in_units=12), nn.Dense(2, in_units=12)

    def forward(self, x):
        features = self.embed(x).reshape((0, -1))
        return self.one(features), self.two(features)


class TwoHeads(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.body, self.one, self.two = nn.HybridSequential(), nn.Dense(2), nn.Dense(2)
            self.body.add(nn.Dense(8), nn.BatchNorm(), nn.Dropout(0.2))

    def hybrid_forward(self, F, x):
        features = self.body(x)
        return self.one(features), self.two(features)


def head_of(number, everything):
    def forward(net, loss, data, label):
        heads = net(data)
        weights = [1.0, 0.5] if number == 0 else [0.5, 1.0]
        if everything:
            return heads, sum(weight * loss(head, label) for weight, head in zip(weights, heads, strict=True))
        return heads, loss(heads[number], label)

    return forward


def points(t, devices):
    random = np.random.default_rng(t)
    batches = [
        Batch(s, random.normal(size=(4, 3)).astype(np.float32), random.normal(size=(4, 2)).astype(np.float32))
        for s in range(2)
    ]
    return GlobalBatch(t, tuple(batches[s] for s in shards_of_rank(2, SingleWorld(), devices)), 8)


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (
            ["generatr.*"],
            r"trainable: the pattern 'generatr\.\*' \(as in a shell: features\.\*\) matches no parameter; ",
        ),
        (
            ["*.running_mean"],
            r"trainable: \['\*\.running_mean'\] names no parameter that has a gradient; generator\.1\.run",
        ),
        ([], r"trainable: \[\] names no parameter that has a gradient$"),
        (
            ["*"],
            r"network: discriminator\.0\.weight, .* got no gradient from shard 0, because the forward pass does not",
        ),
    ],
)
def test_wrong_patterns(patterns, said):
    def generate(net, loss, data, label):
        made = net.generator(data[1])
        return made, loss(made, data[0])

    def train():
        given = {"shards": SHARDS, "sample": batch_of(1, [0]), "forward": generate, "trainable": patterns}
        learner = Learner(gan(), LOSS, mx.optimizer.Adam(), SingleWorld(), **given)
        learner.update(batch_of(1, owned()), 0.01)

    with pytest.raises(ConfigError, match=said):
        train()


@pytest.mark.parametrize(
    ("names", "said"),
    [([], "Learners: found none; give"), (["a:b"], "Learners: found the name 'a:b'; give learners by")],
)
def test_wrong_names(names, said):
    with pytest.raises(ConfigError, match=said):
        Learners(dict.fromkeys(names))
