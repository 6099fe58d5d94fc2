"""The event files, read by TensorBoard itself."""

from __future__ import annotations

import json
import os
import warnings

import pytest
from matplotlib import image

from harness.errors import CheckpointError
from harness.folder import EventFile, MetricsFile
from harness.folder.event_file import import_tensorboardx

import_tensorboardx()  # it sets a variable of the environment: here, and not in a test
SETTINGS = (
    "train={iterations: 60}",
    "evaluation.every=20it",
    "log.every=5it",
    "checkpoint.every=20it",
    "network.params={hidden: [8]}",
)


def events_in(folder):
    """Scalars as `{tag: [(step, value), ...]}`, the tags of texts, and pictures by tag, as TensorBoard sees them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
    tags = found.Tags()
    scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {*tags["tensors"]}, {tag: found.Images(tag) for tag in tags["images"]}


def lines_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(folder):
    scalars, texts, pictures = events_in(folder / "tensorboard")
    for tag, (picture,) in pictures.items():
        file = folder / ("plan.png" if tag == "plan" else "finder/curve.png")
        assert picture.encoded_image_string == file.read_bytes()
        assert image.imread(file).shape[:2] == (picture.height, picture.width)
    expected = {}
    for line in lines_in(folder):
        for name in ("loss", "accuracy", "gradient_norm", "images_per_s"):
            if name in line:
                expected.setdefault(f"{line['split']}/{name}", []).append((line["iteration"], line[name]))
        if line["split"] == "train":
            for name in ("lr", "momentum"):
                expected.setdefault(name, []).append((line["iteration"], line[name]))
    assert scalars.keys() == expected.keys()
    for tag, values in expected.items():
        assert [step for step, _ in scalars[tag]] == [step for step, _ in values]
        assert [value for _, value in scalars[tag]] == pytest.approx([value for _, value in values], rel=1e-6)
    return {*texts, *pictures}


def words(tmp_path, *more):
    return [word for setting in (*SETTINGS, f"output={tmp_path}", *more) for word in ("--set", setting)]


def test_tensorboard_shows_what_metrics_say_also_after_a_resume_from_an_older_set(here, tmp_path):
    here("launch/train.py", *words(tmp_path))
    folder = tmp_path / "digits"
    assert assert_same(folder) == {"config/text_summary", "plan/text_summary", "plan"}
    here("launch/train.py", "--resume", folder / "checkpoints/iteration-000000020", *words(tmp_path))
    assert_same(folder)
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_the_finder_s_curve_is_a_picture(here, tmp_path):
    here("launch/train.py", *words(tmp_path, "lr.base=auto", "finder.num_iterations=60", "finder.lr_end=10"))
    assert "finder" in assert_same(tmp_path / "digits")


def test_pytorch_does_not_come_along(start, tmp_path):
    """Its Gloo and Horovod's do not live in one process."""
    (tmp_path / "torch.py").write_text("raise SystemExit('PyTorch was imported')")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    start("launch/train.py", *words(tmp_path), fresh=True, PYTHONPATH=path)
    assert_same(tmp_path / "digits")


def test_without(here, tmp_path):
    here("launch/train.py", *words(tmp_path, "log.tensorboard=false"))
    assert not (tmp_path / "digits/tensorboard").exists()


def test_a_cut_is_a_cut_there_too(tmp_path):
    events = EventFile(tmp_path / "tensorboard", {}, {"no picture": tmp_path / "none.png"})
    with MetricsFile(tmp_path / "metrics.jsonl") as metrics:
        metrics.show_in(events)
        for t in range(1, 6):
            metrics.write({"split": "train", "iteration": t, "loss": 1 / t, "lr": 0.1, "momentum": None})
        metrics.cut_back(3)
        metrics.write({"split": "train", "iteration": 4, "loss": 9.0, "lr": 0.1, "momentum": None})
    scalars, *_ = events_in(tmp_path / "tensorboard")
    assert scalars.keys() == {"train/loss", "lr"}
    assert [step for step, _ in scalars["train/loss"]] == [1, 2, 3, 4]
    assert scalars["train/loss"][-1] == (4, 9.0)


def test_what_cannot_be_read_of_the_metrics_is_left_out(tmp_path):
    whole = '{"split": "train", "iteration": %d, "loss": 0.5, "lr": 0.1, "momentum": null}\n'
    hostile = ['{"iteration": 2}\n', "[" * 100_000 + "\n", '{"split": "train", "iteration": 1e999}\n', "torn\n", "\n"]
    (tmp_path / "metrics.jsonl").write_text("".join([whole % 1, *hostile, whole % 3]))
    with MetricsFile(tmp_path / "metrics.jsonl", after=9) as metrics:
        metrics.show_in(EventFile(tmp_path / "tensorboard", {}, {}))
        metrics.write({"split": "train", "iteration": 4, "loss": float("nan"), "lr": 0.1})
    scalars, *_ = events_in(tmp_path / "tensorboard")
    assert [step for step, _ in scalars["train/loss"]] == [1, 3, 4]
    assert [part.line for part in metrics.unread.parts] == [3, 4, 5, 6]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="an event file could not be written"):
        EventFile(tmp_path / "file" / "tensorboard", {}, {}).rewrite([])
