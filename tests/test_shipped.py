"""How messages and pages name the project's commands: as the user typed them."""

import sys

import pytest

from harness.shipped import install_command, name_command, python_command, training_command, typed_words


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
    ("package", "here", "installed"),
    [
        ("mxnet", "make setup", "pip install mxnet==1.9.1"),
        ("mxnet-cu117", "WITH_CUDA=cu117 make setup", "pip uninstall --yes mxnet && pip install mxnet-cu117==1.9.1"),
        ("horovod", "WITH_HOROVOD=1 make setup", "harness-build-horovod"),
        ("mpich", "make setup", "pip install mpich"),
        ("pictures", "WITH_PICTURES=1 make setup", "pip install simplejpeg opencv-python-headless"),
        ("torch", "WITH_TORCH=1 make setup", "pip install torch"),
    ],
)
def test_what_installs_a_part_of_the_stack(monkeypatch, package, here, installed):
    monkeypatch.setattr(sys, "version_info", (3, 12))
    assert install_command(package) == here
    monkeypatch.setattr("harness.shipped.is_checkout", lambda: False)
    assert install_command(package) == installed
    monkeypatch.setattr(sys, "version_info", (3, 13))
    assert install_command(package) == installed.replace("install mxnet", "install --no-deps mxnet")


def test_what_an_installed_package_says_of_gpus_and_of_another_python(monkeypatch):
    assert python_command("3.11") == "PYTHON=python3.11 make setup"
    monkeypatch.setattr("harness.shipped.is_checkout", lambda: False)
    assert python_command("3.11") == "install it with pip of Python 3.11"
    assert install_command("horovod-nccl") == "HOROVOD_GPU_OPERATIONS=NCCL harness-build-horovod"
