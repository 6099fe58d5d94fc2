"""Wrong uses of state that is carried end every rank with one message; and what a resumed run may not change."""

from __future__ import annotations

import re

import pytest

from tests.programs.streams import HERE, SETTINGS

COMMON = (
    "train={iterations: 9}",
    "checkpoint.every=4it",
    "optimizer={name: adam, params: {}}",
    "lr={base: 0.02, schedule: 1x}",
    "threads_per_rank=1",
    "log.tensorboard=false",
    "evaluation.metrics=[]",
)


def words(name, *more):
    settings = [*COMMON, *SETTINGS[name], "evaluation.every=null", *more]
    return [word for setting in ("name=streams", *settings) for word in ("--set", setting)]


def changed(state=None, **network):
    """The network of `reader`, otherwise."""
    given = {"name": f"{HERE}:reader", "state": f"{HERE}:{state or 'zeros'}", **network}
    return f"network={{{', '.join(f'{key}: {chr(39)}{value}{chr(39)}' for key, value in given.items())}}}"


WRONG = [
    (
        changed("counting"),
        2,
        "network.state: gave other numbers when it was called again for 2 rows; make the first",
    ),
    (changed("of_two_rows"), 2, "float32 (1, 2, 8)) for 2 rows and for 3; make the number of rows one of the dim"),
    (changed(name=f"{HERE}:forgetful"), 2, "network.state: Forgetful returned float32 (2, 5, 7); a network that"),
    (changed("nowhere"), 2, f"network.state: '{HERE}:nowhere': no such name in"),
    ("network.forward=tests.programs.streams:without_state", 2, "network.forward: returned (float32 (2, 5, 7), ("),
]


@pytest.mark.parametrize(
    ("setting", "code", "said", "ranks"),
    [
        *((*one, None) for one in WRONG),
        *(pytest.param(*one, 2, marks=() if "forgetful" in one[0] else pytest.mark.thorough) for one in WRONG),
    ],
)
def test_wrong_uses_end_every_rank_with_one_message(launch, tmp_path, setting, code, said, ranks):
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    name = "elman" if setting.startswith("network.forward") else "reader"
    done = launch("launch/train.py", *words(name, setting, f"output={tmp_path}"), exit_code=code, **more)
    assert said in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["train.last_batch=keep"],
            "train.last_batch: keep is not possible with network.state, whose rows are streams of",
        ),
        (
            ["data.validation=0.1"],
            "data.validation: is not possible with network.state: samples are held out at random",
        ),
        ([changed(), "network.state=zeros"], "network.state: found 'zeros'; must be"),
        (
            ["network.state=null", "evaluation.streams=3"],
            "evaluation.streams: has no effect without network.state; remove",
        ),
        (["evaluation.streams=0"], "evaluation.streams: found 0; must be at least 1"),
    ],
)
def test_settings_that_do_not_fit(command, tmp_path, more, said):
    code, _, err = command("train", *words("reader", *more, f"output={tmp_path}"))
    assert (code, said in err) == (2, True), err


def test_a_first_state_that_depends_on_the_rank(start, tmp_path):
    settings = words("reader", changed("of_this_rank"), f"output={tmp_path}")
    done = start("launch/train.py", *settings, np=2, launcher="mpirun", exit_code=5)
    assert "every shard carries (float32 (1, 2, 8), float32 (1, 2, 8))" in done.stderr
    assert done.stderr.count("error:") == 1


def test_what_a_resumed_run_may_not_change(launch, tmp_path):
    done = launch("launch/train.py", *words("reader", f"output={tmp_path}"))
    place = tmp_path / "streams" / "checkpoints" / "iteration-000000004"
    for other in ("null", f"{HERE}:of_two_rows"):
        settings = words("reader", f"network.state={other}", f"output={tmp_path}")
        found = launch("launch/train.py", *settings, "--resume", place, exit_code=4)
        assert "trained with other data, seed, batch, frozen parameters or carried state" in found.stderr
        assert "network.state: " in found.stderr
    (digest,) = re.findall(r"digest ([0-9a-f]{64})", done.stdout)
    again = words("reader", f"output={tmp_path}", "name=again")
    assert digest in launch("launch/train.py", *again, "--resume", place, np=3, launcher="mpirun").stdout
    shown = launch("launch/checkpoint.py", "show", place).stdout
    assert re.search(r"carried: 8 arrays, .*\n  0/0  float32 \(1, 3, 8\)", shown)
    compared = launch("launch/checkpoint.py", "diff", place, tmp_path / "streams").stdout
    assert "carried: " in compared


@pytest.mark.parametrize("launcher", ["mpirun", None])
def test_the_finder_puts_it_back(launch, tmp_path, launcher):
    more = {} if launcher is None else {"np": 2, "launcher": launcher}
    quick = "finder={lr_start: 1e-4, lr_multiplier: 1.3}"
    out = launch("launch/find_lr.py", *words("reader", quick, f"output={tmp_path}"), **more).stdout
    assert re.search(r"state restored: digest \w+ unchanged", out)


def test_a_rewound_run_takes_the_states_of_the_checkpoint(launch, tmp_path):
    diverging = "lr={schedule: {sequential: {schedules: [1.0, 1.0e+25], boundaries: [9it]}}}"
    rewind = "guard.divergence={policy: rewind, at_most: 3, lr_factor: 1.0e-24}"
    more = ["optimizer={name: sgd, params: {momentum: 0.9}}", diverging, rewind, "train={iterations: 14}"]
    digests = set()
    for number, launched in enumerate(({}, {"np": 2, "launcher": "mpirun"})):
        done = launch("launch/train.py", *words("reader", *more, f"output={tmp_path}", f"name=run{number}"), **launched)
        assert "rewound to iteration 8 (1 of at most 3)" in done.stdout + done.stderr
        digests |= set(re.findall(r"digest ([0-9a-f]{64})", done.stdout))
    assert len(digests) == 1


def test_a_device_for_every_two_shards(here, tmp_path):
    digests = set()
    for number, more in enumerate(([], ["devices=[cpu(0), cpu(1)]"])):
        settings = words("elman", f"output={tmp_path}", f"name=run{number}", *more)
        digests |= set(re.findall(r"digest ([0-9a-f]{64})", here("launch/train.py", *settings).stdout))
    assert len(digests) == 1
