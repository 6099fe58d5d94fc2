"""Jobs whose items and batches are made by functions: one digest, wherever they run; what is refused, and how."""

from __future__ import annotations

import re

import pytest

from tests.programs.clients import digests_of, results_of
from tests.programs.functions import HERE, SETTINGS, settings_of

PROGRAM = "tests/programs/functions.py"
NAMES = list(SETTINGS)
QUICK = "finder={lr_start: 1e-3, lr_end: 100, lr_multiplier: 1.2}"
PAD = ["transform=HERE:pass_on", "collate=pad"]


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """Trained in one process: what it wrote, and where."""
    folder = tmp_path_factory.mktemp("functions")
    return start(PROGRAM, folder, "new", *NAMES).stdout, folder


def test_they_learn(alone):
    results = dict(zip(NAMES, results_of(alone[0]), strict=True))
    assert results["words"]["test.loss"] < 0.5
    assert results["boxes"]["test.loss"] < 0.12
    assert results["windows"]["test.loss"] < 0.1
    assert max(results["buckets"]["test.loss"], results["alike"]["test.loss"]) < 0.6
    assert results["mixed"]["test.accuracy"] > 0.3


@pytest.mark.thorough
@pytest.mark.parametrize(("launcher", "ranks"), [("mpirun", 2), ("mpirun", 3), ("horovodrun", 2)])
def test_on_any_number_of_ranks(start, tmp_path, alone, launcher, ranks):
    out = start(PROGRAM, tmp_path, "new", *NAMES, np=ranks, launcher=launcher).stdout
    assert digests_of(out, NAMES) == digests_of(alone[0], NAMES)
    assert results_of(out) == results_of(alone[0])


@pytest.mark.parametrize("ranks", [*(pytest.param(ranks, marks=pytest.mark.thorough) for ranks in (None, 2)), 3])
def test_resumed_in_the_middle(start, tmp_path, alone, ranks):
    """Ranks need not train from the beginning to show that they add up the same; horovodrun's sum by MPI too."""
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    output, folder = alone
    again = start(PROGRAM, tmp_path, folder, *NAMES, **more).stdout
    assert digests_of(again, NAMES) == digests_of(output, NAMES)
    assert results_of(again) == results_of(output)


def test_the_finder_finds_the_same_and_puts_everything_back(launch, tmp_path):
    words = [*settings_of("words"), "optimizer={name: sgd, params: {}}", QUICK, f"output={tmp_path}"]
    settings = [word for one in words for word in ("--set", one)]
    runs = {}, {"np": 2, "launcher": "mpirun"}
    outputs = [launch("launch/find_lr.py", "--overwrite", *settings, **more).stdout for more in runs]
    found = [re.findall(r"suggested: .*|state restored: digest \w+ unchanged", output) for output in outputs]
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_another_function_is_noticed_by_a_run_that_resumes(here, alone):
    words = [*settings_of("windows"), f"output={alone[1]}", f"data.transform={HERE}:other_window"]
    done = here("launch/train.py", *(word for one in words for word in ("--set", one)), "--resume=auto", exit_code=4)
    assert f"data.transform: {HERE}:window -> {HERE}:other_window" in done.stderr


WRONG = [
    (["transform=mean"], 2, "data.transform: found 'mean'; must be package.module:function"),
    (["transform=HERE:nothing"], 2, "data.transform: 'HERE:nothing': no such name in"),
    (["transform=HERE:one_argument"], 2, "data.transform: 'HERE:one_argument': takes (item), but is called with"),
    (
        ["collate=padd"],
        2,
        "data.collate: unknown name 'padd'; did you mean 'pad'? known: cutmix, mixup, pad, stack",
    ),
    (["collate={pad: {valeu: 1}}"], 2, "data.collate.pad.valeu: there is no such parameter; did you mean 'value'?"),
    (["collate={pad: {to: [8, 4]}}"], 2, "to is [8, 4]; allowed: a list of whole numbers from 1, each larger"),
    (["collate=3"], 2, "data.collate: found 3; must be a name (pad), or one name with its parameters"),
    (["collate={mixup: {alpha: 0}}"], 2, "alpha is 0; allowed: a number above 0"),
    ([*PAD, "bucket={by: data}"], 2, "data.bucket.widths: is missing; give the widths of the buckets"),
    (
        [*PAD, "bucket={widths: [4, 2]}"],
        2,
        "data.bucket.widths: found [4, 2]; must be a list of whole numbers from 1",
    ),
    (
        [*PAD, "bucket={widths: 2}", "batches=HERE:alike"],
        2,
        "data.bucket.widths: has no effect beside data.batches",
    ),
    (
        [*PAD, "bucket={widths: 2}", "network.state=HERE:tagger"],
        2,
        "data.bucket: is not possible with network.state",
    ),
    ([*PAD, "batches=HERE:one_argument"], 2, "takes (item), but is called with (lengths, epoch, seed)"),
    ([*PAD, "bucket={widths: [3]}"], 3, "data.bucket: sample 2 has a length of 11, more than the widest bucket, 3"),
    ([*PAD, "bucket={by: 'data[1]', widths: 3}"], 3, "data.bucket.by: 'data[1]': there is no such array"),
    ([*PAD, "batches=HERE:too_many"], 3, "'HERE:too_many': batch 0 of epoch 1 has 100 samples, but a global batch"),
    ([*PAD, "batches=HERE:fewer_later"], 3, "gave 1 batches for epoch 2, but 2 for epoch 1; give equally many in"),
    (["collate=mixup", "transform=HERE:counted"], 3, "labels are classes, but how many is not known"),
    ([], 3, "train: data is <U10; allowed are integers, float32 and float64"),
    (["transform=HERE:raises"], 3, "data.transform: 'HERE:raises': raised KeyError: 'divisor' for item 0 (at"),
    (["transform=HERE:counts"], 3, "'HERE:counts': was called twice with the same arguments, and gave different"),
    (["transform=HERE:draws_globally"], 3, "draws from the global generators of random or np.random"),
    (["transform=HERE:pass_on"], 3, "give all items the same type and shape, or fill up what differs in length"),
    (["transform=HERE:pass_on", "collate=HERE:drops_one"], 3, "its first dimension must be the number of items"),
    (["transform=HERE:pass_on", "collate=HERE:counting"], 3, "'HERE:counting': was called twice with the same"),
]
ON_TWO_RANKS = ("padd", "widest bucket", "for epoch 2", "'HERE:raises'", "'HERE:counts'", "'HERE:counting'")


def wrong_use(folder, settings):
    """The arguments of a command."""
    words = [f"data={{name: {HERE}:sentences, params: {{}}}}", "network.loss=l2", f"output={folder}"]
    words += [(one if one.startswith("network.") else f"data.{one}").replace("HERE", HERE) for one in settings]
    return [word for one in words for word in ("--set", one)]


def says_it_once(errors, said):
    assert said.replace("HERE", HERE) in errors
    assert errors.count("error:") == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize(("settings", "code", "said"), WRONG)
def test_wrong_uses_end_with_one_message(here, tmp_path, settings, code, said):
    done = here("launch/train.py", *wrong_use(tmp_path, settings), exit_code=code)
    says_it_once(done.stderr, said)


@pytest.mark.parametrize(
    ("settings", "code", "said"), [one for one in WRONG if any(word in one[2] for word in ON_TWO_RANKS)]
)
def test_wrong_uses_end_every_rank_with_one_message(start, tmp_path, settings, code, said):
    done = start("launch/train.py", *wrong_use(tmp_path, settings), np=2, launcher="mpirun", exit_code=code)
    says_it_once(done.stderr, said)
