"""What a job cannot use is refused by its name, in one message, before it costs an update."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.checkpoint import verify
from harness.comm import SingleWorld
from harness.errors import ConfigError, DataError
from harness.finder import FinderSettings, Sweep
from harness.model import Sums
from harness.schedules import LinearWarmUp
from tests.job.small import DIGITS, finished, job_of

FLOATS = np.zeros((40, 64), np.float32)
CLASSES = np.zeros(40, np.int64)


def test_updates_are_made_in_order(tmp_path):
    with job_of(tmp_path) as job:
        job.update(1)
        for t in (1, 3):
            with pytest.raises(ConfigError, match=f"update {t} is out of order, 2 is next"):
                job.update(t)
        with pytest.raises(ConfigError, match=r"the loop did not call job\.update\(2\)"):
            for _ in job:
                pass


def test_numbers_of_numpy_count_updates_and_checkpoints(tmp_path):
    with job_of(tmp_path) as job:
        for t in np.arange(1, 3):
            job.update(t)
        assert verify(job.save(keep=np.int64(1)))["state"]["iteration"] == 2
        assert type(job.iteration) is int


def test_what_is_no_number_of_an_update_or_of_checkpoints_is_refused(tmp_path):
    with job_of(tmp_path) as job:
        for wrong in (True, 1.0, "1", None, np.array([1, 2])):
            with pytest.raises(ConfigError, match=r"Job: update: found .* must be a whole number"):
                job.update(wrong)
        job.update(1)
        for wrong in (0, -1, "3", None, 1.5):
            with pytest.raises(ConfigError, match=r"Job: keep: found .* must be"):
                job.save(keep=wrong)
        with pytest.raises(ConfigError, match="settings: found a dict; give a FinderSettings"):
            job.find_lr({})


def test_outside_of_with_it_says_so(tmp_path):
    job = job_of(tmp_path)
    with pytest.raises(ConfigError, match="Job: is not open yet, so it cannot be updated"):
        job.update(1)
    finished(job)
    for use in (lambda: job.evaluate(DIGITS.test), job.save, job.resume, job.find_lr, lambda: job.plan):
        with pytest.raises(ConfigError, match="Job: is closed"):
            use()
    with pytest.raises(ConfigError, match="was opened before"):
        job.__enter__()


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"net": "mlp"}, ConfigError, r"net: found a str; give a gluon\.Block"),
        ({"net": nn.Dense(10)}, ConfigError, r"net: .*weight.* no value yet; call net\.initialize"),
        ({"optimizer": 3}, ConfigError, "optimizer: found an int; give"),
        ({"optimizer": "sdg"}, ConfigError, "'sdg'.*did you mean 'sgd'"),
        ({"optimizer": {"sgd": {"momentun": 0.9}}}, ConfigError, "no such parameter; did you mean 'momentum'"),
        ({"optimizer": mx.optimizer.SGD(lr_scheduler=mx.lr_scheduler.PolyScheduler(9))}, ConfigError, "lr_scheduler"),
        ({"optimizer": mx.optimizer.LARS()}, ConfigError, "give it by name"),
        ({"batch": 0}, ConfigError, "Job: batch: found 0; must be at least 1"),
        ({"batch": "32"}, ConfigError, "Job: batch: found '32'; must be a whole number"),
        ({"iterations": None}, ConfigError, "found neither of epochs and iterations"),
        ({"epochs": 2}, ConfigError, "found both of epochs and iterations"),
        ({"lr": "fast"}, ConfigError, "Job: lr.schedule: "),
        ({"lr": {"schedule": "1x"}}, ConfigError, "Job: lr.base: is missing"),
        ({"lr": {"schedule": 0.1, "momentum": 0.5}, "optimizer": "rmsprop"}, ConfigError, "no effect on this RMSProp"),
        ({"clip_nrom": 1.0}, ConfigError, "Job: clip_nrom: unknown key; did you mean 'clip_norm'"),
        ({"augmentation": True}, ConfigError, "Job: augmentation: found a bool; give an Augmentation"),
        ({"world": 2}, ConfigError, "Job: world: found an int"),
        ({"last_batch": "pad"}, ConfigError, "Job: last_batch: "),
        ({"batch": 10_000}, ConfigError, "Job: batch: a global batch is 2 shards x 10000"),
        ({"train": None}, DataError, "train: found None; give a gluon.data.Dataset"),
        ({"train": np.zeros((4, 2))}, DataError, "train: found an ndarray; give a gluon"),
        ({"train": (np.zeros((40, 2)), np.zeros(39))}, DataError, "train"),
        ({"train": mx.gluon.data.DataLoader([(1, 2)], 1)}, DataError, "train: found a DataLoader"),
        ({"train": (np.zeros((40, 2), np.float32), np.full(40, 10))}, DataError, r"label 10 of sample 0 is not in"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_name(changed, kind, message, tmp_path):
    with pytest.raises(kind, match=message), job_of(tmp_path, **changed):
        pass


def test_what_cannot_be_evaluated_is_refused_by_its_name(tmp_path):
    with job_of(tmp_path) as job:
        for data, metrics, message in (
            (None, None, "evaluate: found None"),
            (DIGITS.test, ["acuracy"], "did you mean 'accuracy'"),
            (DIGITS.test, "accuracy", "give a list of names"),
            (DIGITS.test, {"own": 3}, "'own' is not a function"),
            (DIGITS.test, {"own": Sums}, "'own' is not a function"),
            (DIGITS.test, [{"top_k": {}}], "top_k: {} is not accepted"),
            (DIGITS.test, [{"f1": 3}], r"found \[{'f1': 3}\]; give a list of names"),
            (DIGITS.test, [{"f1": {}, "mcc": {}}], "give a list of names"),
            (DIGITS.test, {"own": Sums(lambda p, t: p.mean(0), len)}, r"^Job: metrics: 'own' does not fit .*add up"),
            (DIGITS.test, ["rmse"], "does not fit predictions"),
        ):
            with pytest.raises((ConfigError, DataError), match=message):
                job.evaluate(data, metrics)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            (FLOATS[:, :5], CLASSES),
            r"evaluate: HybridSequential and its loss do not take data of shape \(5,\), float32",
        ),
        ((FLOATS, np.zeros((40, 2), int)), r"with labels of shape \(2,\), int64 \(.*Shape inconsistent"),
        (
            (FLOATS.astype(int), CLASSES),
            r"integers are left as they are; data\.astype\('float32'\) makes floats of them",
        ),
        ((FLOATS, FLOATS, CLASSES), r"do not take data of \(float32 \(64,\), float32 \(64,\)\)"),
        (5, r"evaluate: found an int; give a gluon\.data\.Dataset, a pair \(data, label\) of arrays"),
    ],
)
def test_data_that_do_not_fit_are_refused_and_training_goes_on(data, message, whole, tmp_path):
    with job_of(tmp_path) as job:
        for t in job:
            if t == 5:
                with pytest.raises((ConfigError, DataError), match=message):
                    job.evaluate(data)
            job.update(t)
        assert job.learner.digest() == whole
        assert job.evaluate(DIGITS.test)["accuracy"] > 0


def test_labels_that_do_not_fit_the_loss_are_refused_before_training(tmp_path):
    train = FLOATS, np.zeros((40, 2), int)
    with (
        pytest.raises(ConfigError, match=r"^train: HybridSequential and its loss do not take .*labels of shape \(2,\)"),
        job_of(tmp_path, train=train, batch=4),
    ):
        pass


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (5, "found 5; give a list of names"),
        (True, "found True; give a list of names"),
        (b"accuracy", "found b'accuracy'; give"),
        ({"accuracy"}, "found {'accuracy'}; give"),  # its order is another one in every process
        ((name for name in ["accuracy"]), "found <generator .*; give"),
        (np.mean, "found <function mean.*; give"),
        ({5: np.mean}, "5 is not a name, which is text"),
        ({"loss": np.mean}, "'loss' is the name of the mean loss"),
        ({"text": lambda prediction, label: label.astype(str)}, "'text' gave values of type <U"),
        ({"complex": lambda prediction, label: label * 1j}, "'complex' gave values of type complex128"),
        ({"short": lambda prediction, label: label[:1]}, r"'short' gave shape \(1,\) for 2 samples"),
    ],
)
def test_what_is_no_metric_is_refused(metrics, message, tmp_path):
    with job_of(tmp_path) as job, pytest.raises(ConfigError, match=f"^Job: metrics: {message}"):
        job.evaluate(DIGITS.test, metrics)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (5, "found 5; must be text"),
        (b"x", "found b'x'; must be text"),
        (["x"], r"found \['x'\]; must be text"),
        ("", "found ''; must be a path, not empty text"),
        ("a\0b", r"found 'a\\x00b'; must be a path in UTF-8 without NUL"),
        ("\ud800", "must be a path in UTF-8"),
        (Path("."), r"found '\.'; must be a folder with a name of its own"),
        ("..", "must be a folder with a name of its own"),
        ("/", "must be a folder with a name of its own"),
    ],
)
def test_what_is_no_folder_is_refused_at_once(folder, message):
    with pytest.raises(ConfigError, match=f"^Job: folder: .*{message}"):
        job_of(folder)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, np.int64, Fraction, np.array])
def test_a_number_of_any_real_type_is_a_rate(kind, tmp_path):
    number = kind(1) if kind in (np.int64, Fraction) else kind(0.25)
    for lr in (
        number,
        {"schedule": number},
        {"base": number, "schedule": "1x"},
        {"schedule": {"constant": {"lr": number}}},
    ):
        with job_of(tmp_path, lr=lr, clip_norm=number, stall_after_s=number, shards=np.int8(1)) as job:
            assert job.lr(1) == float(number)


@pytest.mark.parametrize("number", [True, np.bool_(True), 1j, np.complex64(1), np.array([0.1]), mx.nd.array([0.1])])
def test_what_is_no_real_number_is_no_rate(number, tmp_path):
    with pytest.raises(ConfigError, match=r"Job: lr\.schedule: must be a mapping .*or for a constant a number"):
        job_of(tmp_path, lr=number)


class Scheduler(mx.lr_scheduler.LRScheduler):
    """Gives its answers one after the other, from iteration 0."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = answers

    def __call__(self, t):
        return self.answers[t]


def third(t):
    if t == 3:
        raise ValueError("no third")
    return 0.1


CALLS = []


def counts(t):
    CALLS.append(t)
    return 0.1 / len(CALLS)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (third, r"'third' failed at its iteration 3 \(ValueError: no third\); fix the function"),
        (lambda t: None, "'<lambda>' gave NoneType at its iteration 1; it must give a finite number of at least 0"),
        (lambda t: "0.1", "gave str '0.1' at its iteration 1"),
        (lambda t: float("nan") if t == 7 else 0.1, "gave nan at its iteration 7"),
        (lambda t: -0.1, "gave -0.1 at its iteration 1"),
        (lambda t: np.zeros(3), r"gave ndarray array\(\[0\., 0\., 0\.\]\) at its iteration 1"),
        (lambda t: mx.nd.array([0.1]), r"gave NDArray \[0.1\] <NDArray 1 @cpu\(0\)> at its iteration 1"),
        (lambda t: True, "gave bool True at its iteration 1"),
        (lambda: 0.1, "failed at its iteration 1 .*positional argument"),
        (lambda t: exit(3), "failed at its iteration 1 .SystemExit: 3"),
        (counts, "'counts' gave .* when it is evaluated again; a schedule must be a function of the iteration alone"),
        (lambda t: np.random.rand() / 2, "when it is evaluated again"),
        (Scheduler(None), "'Scheduler' failed at its iteration 0"),
        (Scheduler(0.1, 0.1, "x"), "'Scheduler' failed at its iteration 2 .*could not convert string to float"),
        (LinearWarmUp(third, 0.0, 2), r"failed at iteration 5 \(ValueError: no third\); every function in it must"),
    ],
)
@pytest.mark.parametrize("key", ["schedule", "momentum"])
def test_a_function_that_fails_is_named_with_the_iteration_and_what_it_gave(key, function, message, tmp_path):
    lr = function if key == "schedule" else {"schedule": 0.1, "momentum": function}
    with pytest.raises(ConfigError, match=f"(?s)^Job: lr.{key}: .*{message}"), job_of(tmp_path, lr=lr):
        pass


def test_the_rate_of_an_iteration_that_is_none_is_refused(tmp_path):
    with job_of(tmp_path) as job:
        assert [job.lr(t) for t in (0, np.int64(12))] == [0.0, job.plan.lr(12)]
        for wrong in (-1, 13, 10**400):
            with pytest.raises(ConfigError, match=r"^Job: lr\(t\): found .*; must be 0 to 12$"):
                job.lr(wrong)
        for wrong in (1.0, "1", None, True, np.array([1])):
            with pytest.raises(ConfigError, match=r"^Job: lr\(t\): found .*; must be a whole number$"):
                job.lr(wrong)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("NAG", {"momentum": NAN}, r"optimizer\.momentum: found nan; must be a number of at least 0 and below 1"),
        ("SGD", {"momentum": 2}, r"optimizer\.momentum: found 2; must be a number of at least 0 and below 1"),
        ("SGD", {"momentum": -0.9}, "momentum: found -0.9"),
        ("SGD", {"momentum": 1e-44}, "momentum: found 1e-44"),
        ("Signum", {"momentum": 1}, "momentum: found 1;"),
        ("SGD", {"momentum": "x"}, "momentum: found 'x'"),
        ("SGD", {"momentum": None}, "momentum: found None"),
        ("SGD", {"momentum": np.array([0.9])}, r"momentum: found array\(\[0\.9\]\)"),
        ("SGD", {"wd": NAN}, r"optimizer\.wd: found nan; must be a number of at least 0"),
        (
            "Adam",
            {"wd": -1, "beta2": 2},
            r"optimizer\.wd: found -1.*\noptimizer\.beta2: found 2; must be a number of at least 0 and below 1",
        ),
        ("Adam", {"beta1": 1}, "beta1: found 1;"),
        ("Adam", {"epsilon": -1}, "epsilon: found -1"),
        ("RMSProp", {"gamma1": 1.5}, "gamma1: found 1.5"),
        ("AdaDelta", {"rho": INF}, "rho: found inf"),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_numbers_of_an_optimizer_that_mean_nothing_are_refused(name, params, message, by_name, tmp_path):
    optimizer = {name.lower(): params} if by_name else getattr(mx.optimizer, name)(**params)
    with pytest.raises(ConfigError, match=f"^{message}|^optimizer.*{message}"):
        job_of(tmp_path, optimizer=optimizer)


def test_an_optimizer_that_cannot_make_an_update_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^optimizer: this SGD cannot make an update \(.*clip_gradient"):
        job_of(tmp_path, optimizer=mx.optimizer.SGD(clip_gradient="x"))
    with pytest.raises(ConfigError, match=r"^optimizer\.5: 'sgd' has no such parameter"):
        job_of(tmp_path, optimizer={"sgd": {5: 1}})


def test_it_is_closed_once_and_only_after_it_was_opened(tmp_path):
    job = job_of(tmp_path)
    with pytest.raises(ConfigError, match="Job: is not open yet, so it cannot be closed"):
        job.__exit__(None, None, None)
    with job as same:
        assert same is job
        with pytest.raises(ConfigError, match="was opened before"), job:
            pass
        iterations = iter(job)
        assert next(iterations) == 1
        job.update(1)
    job.__exit__(None, None, None)
    with pytest.raises(ConfigError, match="Job: is closed, so it cannot be iterated over"):
        next(iterations)
    failed = job_of(tmp_path, train=None)
    with pytest.raises(DataError):
        failed.__enter__()
    failed.__exit__(None, None, None)
    with pytest.raises(ConfigError, match="Job: is closed, so it cannot be updated"):
        failed.update(1)


class Told(SingleWorld):
    """A rank that remembers what it would compare with others."""

    def __init__(self):
        super().__init__()
        self.facts = {}

    def must_be_equal(self, name, facts, what_to_do, own=None):
        self.facts[name] = dict(facts)
        return super().must_be_equal(name, facts, what_to_do, own)


def test_ranks_compare_what_they_were_given_and_what_they_evaluate(tmp_path):
    world = Told()
    with job_of(tmp_path, world=world, clip_norm=2) as job:
        job.evaluate(DIGITS.test, ["error", {"top_k": {"k": 3}}, {"f1": {}}])
        with_parameters = world.facts["evaluate"]["metrics"]
        job.evaluate(DIGITS.test, ["error", "accuracy"])
        job.find_lr(FinderSettings(sweep=Sweep(max_iterations=3), probes=2))
    given, evaluated = world.facts["preflight"], world.facts["evaluate"]
    assert (given["optimizer"]["momentum"], given["loss"]["axis"], given["clip_norm"]) == (0.9, "-1", 2.0)
    assert (evaluated["samples"], evaluated["metrics"]) == (360, ["error", "accuracy"])
    assert with_parameters == ["error", {"top_k": {"k": 3}}, "f1"]
    assert len(evaluated["data"]) == 64
    swept = world.facts["finder"]["settings"]
    assert (swept["probes"], swept["sweep"]["max_iterations"]) == (2, 3)
