"""`as_schedule`, `from_mx` and `as_mx` without MXNet: its schedulers are known by what they have."""

import copy
import pickle
import random
import sys
import threading

import pytest

from harness.schedules import (
    LinearWarmUp,
    PolySchedule,
    SequentialSchedule,
    TriangularSchedule,
    as_mx,
    as_schedule,
    breakpoints_of,
    from_mx,
    length_of,
)


class Remembering:
    """Halves its rate at every question, and answers as often as it was asked."""

    def __init__(self):
        self.base_lr = 1024.0
        self.asked = []

    def __call__(self, t):
        self.asked.append(t)
        if t:
            self.base_lr /= 2
        return self.base_lr


def test_schedules_and_callables_pass_through():
    ours = PolySchedule(1, 4)
    assert as_schedule(ours) is ours

    def theirs(t):
        return 1.0 / (1 + t)

    assert as_schedule(theirs) is theirs


def test_what_remembers_is_replayed_from_1():
    scheduler = Remembering()
    schedule = as_schedule(scheduler)
    assert [schedule(t) for t in (3, 1, 0, 10, 3, 2)] == [128, 512, 1024, 1, 128, 256]
    assert scheduler.asked == []
    assert scheduler.base_lr == 1024


def test_each_iteration_is_played_once_and_in_turn():
    heard = []

    class Telling(Remembering):
        def __call__(self, t):
            heard.append(t)
            return super().__call__(t)

    schedule = from_mx(Telling())
    for t in (5, 2, 7, 7, 0):
        schedule(t)
    assert heard == [0, 1, 2, 3, 4, 5, 6, 7]


def test_what_happens_to_the_scheduler_later_makes_no_difference():
    scheduler = Remembering()
    schedule = from_mx(scheduler)
    scheduler(1)
    scheduler.base_lr = 0.5
    assert schedule(1) == 512
    assert copy.deepcopy(schedule)(1) == 512


def test_what_it_was_asked_before_counts():
    scheduler = Remembering()
    scheduler(1)
    assert from_mx(scheduler)(1) == 256


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda schedule: pickle.loads(pickle.dumps(schedule))])
def test_a_replay_can_be_copied(duplicate):
    schedule = from_mx(Remembering())
    schedule(5)
    twin = duplicate(schedule)
    assert [twin(t) for t in (2, 7)] == [256, 8]
    assert schedule == schedule
    assert isinstance(hash(schedule), int)


def test_a_replay_has_no_known_end():
    schedule = from_mx(Remembering())
    assert (length_of(schedule), breakpoints_of(schedule, 100)) == (None, ())


def test_threads_get_what_one_gets():
    class Summing(Remembering):
        def __call__(self, t):
            self.base_lr += t
            return self.base_lr

    schedule = from_mx(Summing())
    results = []

    def ask(seed):
        rng = random.Random(seed)
        asked = [rng.randrange(20_000) for _ in range(300)]
        results.append([(t, schedule(t)) for t in asked])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(results) == 4
    assert all(value == 1024 + t * (t + 1) // 2 for result in results for t, value in result)


def test_inside_other_schedules_it_is_wrapped_too():
    warm = LinearWarmUp(Remembering(), 0, 2)
    assert [warm(t) for t in (5, 4, 1, 3)] == [128, 256, 512, 512]
    both = SequentialSchedule([Remembering(), Remembering()], [3])
    assert [both(t) for t in (5, 2, 3, 4)] == [256, 256, 1024, 512]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.1, "0.1 is not a schedule, a callable from the iteration to a number, or an object of mx.lr_scheduler"),
        (None, "None is not a schedule"),
        ("cosine", "'cosine' is not a schedule"),
        (TriangularSchedule, "TriangularSchedule is a class; give an instance"),
        (Remembering, "Remembering is a class; give an instance"),
    ],
)
def test_anything_else_is_refused(value, message):
    with pytest.raises(TypeError, match=message):
        as_schedule(value)
    with pytest.raises(TypeError, match=message):
        as_mx(value)


@pytest.mark.parametrize("value", [0.1, len, Remembering, PolySchedule])
def test_from_mx_wants_an_object_like_theirs(value):
    with pytest.raises(TypeError, match=r"is not an object of mx\.lr_scheduler: it needs base_lr and to be callable"):
        from_mx(value)


def test_as_mx_survives_the_assignment_of_base_lr():
    schedule = PolySchedule(1, 4, 1)
    scheduler = as_mx(schedule)
    assert scheduler.base_lr == 1.0
    scheduler.base_lr = 0.001
    assert scheduler.base_lr == 0.001
    assert [scheduler(t) for t in (4, 1, 2)] == [0, 0.75, 0.5]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_as_mx_can_be_copied(duplicate):
    scheduler = as_mx(PolySchedule(1, 4, 1))
    scheduler.base_lr = 7.0
    twin = duplicate(scheduler)
    assert (twin(1), twin.base_lr) == (0.75, 7.0)
    assert repr(twin) == "as_mx(PolySchedule(base_lr=1.0, max_update=4, pwr=1.0, final_lr=0.0))"


def test_there_and_back_is_the_same():
    schedule = PolySchedule(1, 4)
    assert as_schedule(as_mx(schedule)) is schedule
