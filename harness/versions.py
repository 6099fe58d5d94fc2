"""What the last bits of a result depend on: versions, whatever build of MXNet is installed, and code. Imports none."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from harness.named import code_in

_SHOWN = 16  # hexadecimal digits of a checksum


def versions() -> dict[str, str]:
    """Python, NumPy, MXNet and Horovod by name; one that is not installed is left out.

    MXNet's CUDA builds are distributions with names of their own, and compute other bits: `1.9.1 (mxnet-cu117)` stands
    under `mxnet` like the CPU build's `1.9.1`, so that the two are seen to differ.
    """
    found = {"python": python_version()}
    for package in ("numpy", "horovod"):
        number = package_version(package)
        if number is not None:
            found[package] = number
    builds = _mxnet_builds(tuple(sys.path))
    return {**found, "mxnet": ", ".join(builds)} if builds else found


def package_version(name: str) -> str | None:
    """The version of an installed package, without importing it; `None` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def code_of(settings: Any) -> dict[str, str]:
    """The first digits of sha256 by name: of the harness's files, and of the file of each module of the user's own.

    What those modules import in turn is not looked at.

    Args:
        settings: a configuration as plain data, whose modules have been imported.
    """
    found = {"harness": _checksum_of_harness()}
    for name in sorted({text.partition(":")[0] for text in code_in(settings)} & sys.modules.keys()):
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_file() and not name.startswith("harness."):
            found[name] = _checksum(Path(file).parent, [Path(file)])
    return found


@cache
def _checksum_of_harness() -> str:
    """Read once: hundreds of files, of which this process goes on with what it has imported."""
    package = Path(__file__).parent
    return _checksum(package, sorted(package.rglob("*.py")))


def _checksum(folder: Path, files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.relative_to(folder)} {len(content)}\n".encode() + content)
    return total.hexdigest()[:_SHOWN]


@cache
def _mxnet_builds(path: tuple[str, ...]) -> Sequence[str]:
    """Every distribution that provides the package `mxnet`; only folders that could be one are looked into.

    Looked for once, because a run asks several times and none is installed meanwhile.
    """
    found: dict[str, None] = {}  # in order
    for entry in path:
        for pattern in ("mxnet[-_]*.dist-info", "mxnet[-_]*.egg-info"):
            for folder in sorted(Path(entry or ".").glob(pattern)):
                distribution = Distribution.at(folder)
                name = str(distribution.metadata["Name"] or "").lower().replace("_", "-")
                if name and _provides_mxnet(distribution):
                    number = distribution.metadata["Version"] or "unknown"
                    found[number if name == "mxnet" else f"{number} ({name})"] = None
    return list(found)


def _provides_mxnet(distribution: Distribution) -> bool:
    top_level = distribution.read_text("top_level.txt")
    if top_level is not None:
        return "mxnet" in top_level.split()
    return any(file.parts[0] == "mxnet" for file in distribution.files or [])
