"""How messages and pages name the project's commands: as the user typed them."""

import sys

import pytest

from harness.shipped import name_command, training_command, typed_words


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("launch/train.py", "python launch/find_lr.py"),
        ("/venv/bin/harness-train", "harness-find-lr"),
        ("mine.py", "python launch/find_lr.py"),
    ],
)
def test_a_command_is_named_as_this_one_was_typed(monkeypatch, program, named):
    monkeypatch.setattr(sys, "argv", [program])
    assert name_command("find_lr") == named


def test_words_that_start_a_program_again():
    assert typed_words(["launch/train.py", "--quiet"]) == ["python", "launch/train.py", "--quiet"]
    assert typed_words(["/venv/bin/harness-train", "--quiet"]) == ["harness-train", "--quiet"]


@pytest.mark.parametrize(
    ("command", "start"),
    [
        ("python launch/train.py --config x.yaml", "python launch/train.py"),
        ("mpirun -np 2 python launch/train.py", "mpirun -np 2 python launch/train.py"),
        ("srun -n 4 python own/train.py --set 'name=python x'", "srun -n 4 python launch/train.py"),
        ("harness-train", "harness-train"),
        ("mpirun -np 2 harness-train --config digits", "mpirun -np 2 harness-train"),
        ("", "python launch/train.py"),
    ],
)
def test_the_start_of_a_command_that_trains_again(command, start):
    assert training_command(command) == start
