"""The rates of a plan in PyTorch: equal at every iteration, by the iteration alone."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch

from harness.bridge.rates import as_torch
from harness.config import load_config, parse_config
from harness.errors import ConfigError
from harness.plan import Cut, LRPlan, Sizes
from harness.schedules import LinearWarmUp, PolySchedule
from harness.shipped import shipped_configs
from tests.conftest import THOROUGH
from tests.plan.test_golden import GOLDEN, plan_of

SAMPLES = {"digits": 1437, "mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "records": 1_281_167}
MANY = 30_000  # iterations: of a longer run every 97th is looked at, and with HARNESS_THOROUGH=1 all are
WARM = LinearWarmUp(PolySchedule(base_lr=0.8, max_update=90), start_lr=0.1, length=10)


def sgd(*factors, **settings):
    """SGD over as many groups as there are factors of the rate; None stands for none."""
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(2))], **({} if factor is None else {"lr_mult": factor})}
        for factor in factors or (None,)
    ]
    return torch.optim.SGD(groups, **{"lr": 1.0, **settings})


def step(optimizer, rates):
    optimizer.step()
    rates.step()


def planned(plan, t, own):
    """What an update has to be stepped with."""
    momentum = plan.momentum(t)
    return plan.lr(t), own if momentum is None else momentum


def applied(optimizer, number=0):
    return optimizer.param_groups[number]["lr"], optimizer.param_groups[number]["momentum"]


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_iteration_of_every_configuration(name, shards):
    config = load_config(shipped_configs()[name])
    sizes = Sizes.of(config.train, num_samples=SAMPLES[config.data.name], shards=shards, batch_size=config.batch.size)
    plan = LRPlan(config.lr, sizes, name)
    optimizer = sgd(None, 0.1, momentum=0.5)
    rates = as_torch(plan, optimizer)
    total = sizes.num_iterations
    every = 1 if THOROUGH or total <= MANY else 97
    for t in range(1, total + 1, every):
        if every > 1:
            rates.load_state_dict({"iteration": t - 1})
        assert applied(optimizer) == planned(plan, t, 0.5), t
        assert optimizer.param_groups[1]["lr"] == plan.lr(t) * 0.1
        assert rates.get_last_lr() == [plan.lr(t), plan.lr(t) * 0.1]
        if every == 1:
            step(optimizer, rates)
    if every == 1:
        assert rates.state_dict() == {"iteration": total}
    for t in (1, 2, total // 2, total):  # the state is one number, and the rates of the next update follow from it
        again = sgd(None, 0.1, momentum=0.5)
        resumed = as_torch(plan, again)
        resumed.load_state_dict({"iteration": t - 1})
        assert applied(again) == planned(plan, t, 0.5)
        step(again, resumed)
        assert applied(again) == planned(plan, t + 1, 0.5)
        begun = sgd(None, 0.1, momentum=0.5)
        as_torch(plan, begun, iteration=t - 1)
        assert applied(begun) == planned(plan, t, 0.5)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: "-".join(golden["lr"]["schedule"])[:12])
def test_plans_that_were_amended_on_the_way(golden):
    plan = plan_of(golden)
    optimizer = sgd(2.0, None, momentum=0.9)
    if plan.in_units_of_base:
        with pytest.raises(ConfigError, match=r"the base of this plan is still to be found; find it"):
            as_torch(plan, optimizer)
        return
    rates = as_torch(plan, optimizer)
    for t in range(1, 121):
        lr, momentum = planned(plan, t, 0.9)
        assert (applied(optimizer, 0), applied(optimizer, 1)) == ((lr * 2.0, momentum), (lr, momentum))
        step(optimizer, rates)


def test_a_plan_that_was_cut_and_has_a_momentum():
    config = parse_config(
        {
            "train": {"iterations": 40},
            "network": {"name": "mlp"},
            "optimizer": {"params": {"momentum": 0.9}},
            "lr": {
                "base": 0.1,
                "schedule": {"one_cycle": {"start_lr": 0.1, "max_lr": "1x", "cycle_length": "100%"}},
                "momentum": {"opposite": {"high": 0.95, "low": 0.85}},
            },
        }
    )
    plan = LRPlan(config.lr, Sizes.of(config.train, num_samples=640, shards=2, batch_size=8), cuts=[Cut(20, 0.5)])
    found = []
    for kind, where in (("SGD", "momentum"), ("AdamW", "betas"), ("RMSprop", "momentum")):
        optimizer = getattr(torch.optim, kind)([torch.nn.Parameter(torch.zeros(2))], lr=1.0)
        rates = as_torch(plan, optimizer)
        of_kind = []
        for _ in range(40):
            value = optimizer.param_groups[0][where]
            of_kind.append((optimizer.param_groups[0]["lr"], value if where == "momentum" else value[0]))
            step(optimizer, rates)
        found.append(of_kind)
    assert found == [[(plan.lr(t), plan.momentum(t)) for t in range(1, 41)]] * 3
    assert optimizer.param_groups[0]["alpha"] == 0.99
    assert plan.lr(21) < 0.6 * plan.lr(20)


@pytest.mark.parametrize(
    "kind", ["Adam", "AdamW", "NAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Rprop", "ASGD"]
)
def test_any_optimizer(kind):
    optimizer = getattr(torch.optim, kind)([torch.nn.Parameter(torch.zeros(2))])
    betas = optimizer.param_groups[0].get("betas")
    rates = as_torch(WARM, optimizer)
    for t in range(1, 100):
        assert optimizer.param_groups[0]["lr"] == WARM(t)
        step(optimizer, rates)
    assert optimizer.param_groups[0].get("betas") == betas


def test_the_own_momentum_holds_where_none_is_planned():
    def planned_late(t):
        return math.nan if t < 3 else 0.1 * t

    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], betas=(0.8, 0.99))
    rates = as_torch(WARM, optimizer, momentum=planned_late)
    found = []
    for _ in range(4):
        found.append(optimizer.param_groups[0]["betas"])
        step(optimizer, rates)
    assert found == [(0.8, 0.99), (0.8, 0.99), (0.1 * 3, 0.99), (0.4, 0.99)]
    rates.load_state_dict({"iteration": 0})
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.99)


def test_saved_and_resumed_as_pytorch_programs_do():
    def begin():
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        groups = [{"params": [module.weight]}, {"params": [module.bias], "lr_mult": 2.0}]
        optimizer = torch.optim.SGD(groups, lr=0.3, momentum=0.9)
        return module, optimizer, as_torch(WARM, optimizer, momentum=lambda t: 0.5 + t / 100)

    def train(parts, count):
        module, optimizer, rates = parts
        for _ in range(count):
            optimizer.zero_grad()
            module(torch.ones(4, 3)).square().sum().backward()
            step(optimizer, rates)

    unbroken = begin()
    train(unbroken, 4)
    file = io.BytesIO()
    torch.save([one.state_dict() for one in unbroken], file)
    train(unbroken, 5)
    file.seek(0)
    resumed = begin()
    for one, state in zip(resumed, torch.load(file), strict=True):
        one.load_state_dict(state)
    train(resumed, 5)
    assert resumed[2].state_dict() == {"iteration": 9}
    for own, other in zip(unbroken[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(own, other)


def test_a_factor_is_kept_when_a_state_without_it_is_loaded():
    optimizer = sgd(0.5)
    rates = as_torch(WARM, optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    del state["param_groups"][0]["lr_mult"]
    optimizer.load_state_dict(state)
    step(optimizer, rates)
    assert optimizer.param_groups[0]["lr"] == WARM(2) * 0.5


def test_a_rate_that_is_a_tensor_stays_the_one_that_a_graph_has_captured():
    rate = torch.tensor(1.0, dtype=torch.float64)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=rate)
    rates = as_torch(WARM, optimizer)
    own = optimizer.param_groups[0]["lr"]
    rates.load_state_dict({"iteration": 4})
    assert (own is optimizer.param_groups[0]["lr"], own.item()) == (True, WARM(5))
    step(optimizer, rates)
    assert own.item() == WARM(6)


WRONG = [
    (lambda: as_torch(WARM, sgd(), iteration=-1), "found {'iteration': -1}; must be {'iteration': N}"),
    (lambda: as_torch(WARM, sgd()).load_state_dict({"last_epoch": 3}), "found {'last_epoch': 3}"),
    (lambda: as_torch(WARM, sgd()).load_state_dict({"iteration": True}), "found {'iteration': True}"),
    (lambda: as_torch(lambda t: math.nan, sgd()), "iteration 1: found the learning rate nan"),
    (lambda: as_torch(lambda t: -0.1, sgd()), "iteration 1: found the learning rate -0.1"),
    (
        lambda: as_torch(WARM, torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1))]), momentum=WARM),
        "Adagrad has neither momentum nor betas",
    ),
    (lambda: as_torch(plan_of(GOLDEN[0]), sgd(), momentum=WARM), "the plan has its own"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_what_is_refused(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert message in str(error.value)
