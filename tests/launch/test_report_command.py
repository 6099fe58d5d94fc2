"""`launch/report.py`."""

import pytest

from tests.report.folders import make_run, trained


def test_one_run(command, tmp_path):
    folder = make_run(tmp_path, metrics=[trained(100, 0.5)])
    sentence = "digits is done after 100 iterations (4 epochs); its training loss was 0.5."
    assert command("report", folder) == (0, f"{sentence}\nwrote {folder}/report.html\n", "")
    assert sentence in (folder / "report.html").read_text()
    ended = command("report", folder, "--output", tmp_path / "new" / "page.html")
    assert ended.out.endswith(f"wrote {tmp_path}/new/page.html\n")
    assert (tmp_path / "new/page.html").exists()


def test_several_runs(command, tmp_path):
    folders = [make_run(tmp_path, name) for name in ("a", "b")]
    ended = command("report", *folders)
    assert ended.out.splitlines() == [
        "a is done after 0 iterations (0 epochs); nothing was measured.",
        "b is done after 0 iterations (0 epochs); nothing was measured.",
        f"wrote {tmp_path}/comparison.html",
    ]
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()


def test_bad_folders_are_told_at_once(command, tmp_path):
    ended = command("report", make_run(tmp_path), tmp_path / "none", tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"error: {tmp_path}/none: is not the folder of a run (it is not a folder); give one, such as runs/digits\n"
        f"{tmp_path}: is not the folder of a run (it has no config.yaml); give one, such as runs/digits\n"
    )


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "\x00"])
def test_a_configuration_that_is_none(command, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    ended = command("report", tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {tmp_path}/config.yaml")


def test_a_page_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").write_text("")
    ended = command("report", make_run(tmp_path), "--output", tmp_path / "file" / "page.html")
    assert (ended.code, ended.out) == (2, "")
    assert "cannot be written" in ended.err
    assert "choose another --output" in ended.err
