"""What comes with the package, in a checkout and where it is installed: its commands, and its configurations."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_PREFIX = "harness-"
DEFAULT_CONFIG = "digits"


def is_checkout() -> bool:
    """Whether the package lies in the project's folder, beside the programs in `launch/`."""
    return (_PACKAGE.parent / "launch" / "train.py").is_file()


def name_command(name: str) -> str:
    """How the user types a command: as this process was started, or else as it can be here.

    Args:
        name: of the program in `launch/`, such as `find_lr`.

    Returns:
        `harness-find-lr`, where the package is installed, or `python launch/find_lr.py` in a checkout.
    """
    is_installed = os.path.basename(sys.argv[0] if sys.argv else "").startswith(_PREFIX) or not is_checkout()
    return _PREFIX + name.replace("_", "-") if is_installed else f"python launch/{name}.py"


def typed_words(arguments: Sequence[str]) -> list[str]:
    """The words that start a program again, from its `sys.argv`.

    >>> typed_words(["launch/train.py", "--quiet"]), typed_words(["/venv/bin/harness-train", "--quiet"])
    (['python', 'launch/train.py', '--quiet'], ['harness-train', '--quiet'])
    """
    program = os.path.basename(arguments[0])
    return [program, *arguments[1:]] if program.startswith(_PREFIX) else ["python", *arguments]


def training_command(command: str) -> str:
    """The start of a command that trains once more: the launcher and the program, without the program's options.

    >>> training_command("mpirun -np 2 python launch/train.py --quiet"), training_command("harness-train --quiet")
    ('mpirun -np 2 python launch/train.py', 'harness-train')
    """
    found = re.match(rf"(|.*? )(?:python|({_PREFIX}train)) ", f"{command} ")
    launcher, installed = found.groups() if found else ("", None)
    return f"{launcher}{installed or 'python launch/train.py'}"


def install_command(package: str) -> str:
    """The command that installs a part of the stack here.

    Args:
        package: such as `mxnet`, `mxnet-cu117`, `horovod`, `horovod-nccl`, which is Horovod built for
            GPUs too, `pictures`, what decodes picture files, or `torch`.
    """
    if is_checkout():
        if package.startswith("mxnet-"):
            return f"WITH_CUDA={package.removeprefix('mxnet-')} make setup"
        if package in ("horovod", "pictures", "torch"):
            return f"WITH_{package.upper()}=1 make setup"
        return "make setup"
    if package == "pictures":
        return "pip install simplejpeg opencv-python-headless"
    if package.startswith("horovod"):  # pip builds one without MXNet, and does not say so
        return f"{'HOROVOD_GPU_OPERATIONS=NCCL ' * package.endswith('nccl')}{_PREFIX}build-horovod"
    if package == "mxnet":
        return _pip_install(package)
    if package.startswith("mxnet-"):  # all builds of MXNet share a folder
        return f"pip uninstall --yes mxnet && {_pip_install(package)}"
    return f"pip install {package}"


def _pip_install(build: str) -> str:
    """The command for a build of MXNet, whose metadata, from Python 3.13 on, forbids every NumPy that there is."""
    return f"pip install {'--no-deps ' if sys.version_info >= (3, 13) else ''}{build}==1.9.1"


def python_command(version: str) -> str:
    """What installs the project for another Python, such as `3.11`."""
    return f"PYTHON=python{version} make setup" if is_checkout() else f"install it with pip of Python {version}"


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with the package, by name.

    `setup.py` copies them into an installed package from `configs/`, where they lie in a checkout.
    """
    inside = _PACKAGE / "configs"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
