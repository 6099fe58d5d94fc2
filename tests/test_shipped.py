"""How messages and pages name the project's commands: as the user typed them."""

import sys

import pytest

from harness.shipped import install_command, name_command, training_command, typed_words


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


@pytest.mark.parametrize(
    ("python", "package", "command"),
    [
        ((3, 12), "mxnet", "pip install mxnet==1.9.1"),
        ((3, 13), "mxnet", "pip install --no-deps mxnet==1.9.1"),
        ((3, 12), "horovod", "harness-build-horovod"),
        ((3, 12), "mpich", "pip install mpich"),
    ],
)
def test_what_installs_a_part_of_the_stack(monkeypatch, python, package, command):
    assert install_command(package) == ("WITH_HOROVOD=1 make setup" if package == "horovod" else "make setup")
    monkeypatch.setattr("harness.shipped.is_checkout", lambda: False)
    monkeypatch.setattr(sys, "version_info", python)
    assert install_command(package) == command
