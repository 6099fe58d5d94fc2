"""Against MXNet itself: its schedulers as ours, ours as its."""

import copy
import pickle
import random

import pytest

from harness.schedules import (
    CosineAnnealingSchedule,
    CyclicalSchedule,
    FactorSchedule,
    LinearWarmUp,
    MultiFactorSchedule,
    PolySchedule,
    TriangularSchedule,
    as_mx,
    as_schedule,
    from_mx,
)

mx = pytest.importorskip("mxnet")

SCHEDULERS = {
    "factor": lambda **more: mx.lr_scheduler.FactorScheduler(25, 0.5, base_lr=0.8, **more),
    "factor_to_the_floor": lambda **more: mx.lr_scheduler.FactorScheduler(10, 0.5, 0.1, base_lr=0.8, **more),
    "multi_factor": lambda **more: mx.lr_scheduler.MultiFactorScheduler([25, 60], 0.1, base_lr=0.8, **more),
    "poly": lambda **more: mx.lr_scheduler.PolyScheduler(100, 0.8, 2, 0.1, **more),
    "cosine": lambda **more: mx.lr_scheduler.CosineScheduler(100, 0.8, 0.1, **more),
}
OURS = {
    "factor": FactorSchedule(0.8, 25, 0.5),
    "factor_to_the_floor": FactorSchedule(0.8, 10, 0.5, 0.1),
    "multi_factor": MultiFactorSchedule(0.8, [25, 60], 0.1),
    "poly": PolySchedule(0.8, 100, 2, 0.1),
    "cosine": CosineAnnealingSchedule(0.1, 0.8, 100),
}
WARM_UPS = [
    {},
    {"warmup_steps": 30, "warmup_begin_lr": 0.2},
    {"warmup_steps": 30, "warmup_begin_lr": 0.2, "warmup_mode": "constant"},
]


def shuffled(last):
    iterations = list(range(last)) * 2
    random.Random(2).shuffle(iterations)
    return iterations


@pytest.mark.parametrize("name", SCHEDULERS)
def test_ours_is_theirs_asked_in_turn_and_past_the_end(name):
    theirs = SCHEDULERS[name]()
    in_turn = {t: theirs(t) for t in range(150)}
    # 1e-12: theirs multiplies drop by drop where ours takes a power
    assert {t: OURS[name](t) for t in shuffled(150)} == pytest.approx(in_turn, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("warm_up", WARM_UPS)
def test_from_mx_in_any_order_is_theirs_asked_in_turn(name, warm_up):
    scheduler, in_turn = SCHEDULERS[name](**warm_up), SCHEDULERS[name](**warm_up)
    expected = {0: SCHEDULERS[name](**warm_up)(0)} | {t: in_turn(t) for t in range(1, 150)}
    before = copy.deepcopy(vars(scheduler))
    schedule = from_mx(scheduler)
    assert {t: schedule(t) for t in shuffled(150)} == expected
    assert vars(scheduler) == before


def test_theirs_do_not_do_that_themselves():
    scheduler = SCHEDULERS["factor"]()
    scheduler(1000)
    assert scheduler(10) != SCHEDULERS["factor"]()(10)
    assert SCHEDULERS["cosine"]()(150) == 0.8
    assert as_schedule(SCHEDULERS["cosine"]())(150) == pytest.approx(0.1)


def test_their_scheduler_may_stand_inside_ours():
    schedule = LinearWarmUp(SCHEDULERS["multi_factor"](), 0, 10)
    assert [schedule(t) for t in (71, 5, 36, 35, 10)] == pytest.approx([0.008, 0.4, 0.08, 0.8, 0.8])


def trainer(name, options):
    net = mx.gluon.nn.Dense(1, use_bias=True)
    net.initialize(mx.init.Constant(1.0))
    net(mx.nd.ones((1, 3)))
    return net, mx.gluon.Trainer(net.collect_params(), name, options, kvstore=None)


def update(net, trainer):
    with mx.autograd.record():
        loss = net(mx.nd.ones((2, 3))).sum()
    loss.backward()
    trainer.step(1)


SCHEDULE = LinearWarmUp(CyclicalSchedule(TriangularSchedule, 4, 1.5, 0.5, min_lr=0.1, max_lr=0.4), 0.0, 3)


@pytest.mark.parametrize("name", ["sgd", "nag", "adam", "lamb", "rmsprop"])
@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.123}])
def test_update_t_applies_the_rate_of_t(name, options):
    net, gluon_trainer = trainer(name, {"lr_scheduler": as_mx(SCHEDULE), **options})
    assert gluon_trainer.learning_rate == SCHEDULE(0)
    for t in range(1, 16):
        update(net, gluon_trainer)
        assert gluon_trainer.learning_rate == SCHEDULE(t)


@pytest.mark.parametrize("options", [{}, {"learning_rate": 0.123}])
def test_the_weights_of_sgd_move_by_the_rate(options):
    net, gluon_trainer = trainer("sgd", {"lr_scheduler": as_mx(SCHEDULE), **options})
    for t in range(1, 16):
        before = net.weight.data().asnumpy()
        update(net, gluon_trainer)  # the gradient of the sum over 2 samples of ones is 2
        moved = before - net.weight.data().asnumpy()
        assert moved.ravel().tolist() == pytest.approx([2 * SCHEDULE(t)] * 3, abs=2e-6)  # float32 weights up to 8


def test_an_optimizer_with_it_can_be_pickled():
    optimizer = mx.optimizer.Adam(lr_scheduler=as_mx(SCHEDULE))
    twin = pickle.loads(pickle.dumps(optimizer))
    twin.num_update = 5
    assert twin.learning_rate == SCHEDULE(5)
