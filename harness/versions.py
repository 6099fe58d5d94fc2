"""The versions that the last bits of a result depend on, whatever build of MXNet is installed. Imports none of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from platform import python_version


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
    builds = list(dict.fromkeys(_mxnet_builds()))
    return {**found, "mxnet": ", ".join(builds)} if builds else found


def package_version(name: str) -> str | None:
    """The version of an installed package, without importing it; `None` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _mxnet_builds() -> Iterator[str]:
    """Every distribution that provides the package `mxnet`; only folders that could be one are looked into."""
    for entry in sys.path:
        for pattern in ("mxnet[-_]*.dist-info", "mxnet[-_]*.egg-info"):
            for path in sorted(Path(entry or ".").glob(pattern)):
                distribution = Distribution.at(path)
                name = str(distribution.metadata["Name"] or "").lower().replace("_", "-")
                if name and _provides_mxnet(distribution):
                    number = distribution.metadata["Version"] or "unknown"
                    yield number if name == "mxnet" else f"{number} ({name})"


def _provides_mxnet(distribution: Distribution) -> bool:
    top_level = distribution.read_text("top_level.txt")
    if top_level is not None:
        return "mxnet" in top_level.split()
    return any(file.parts[0] == "mxnet" for file in distribution.files or [])
