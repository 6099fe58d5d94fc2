"""Choices by name: look one up among the known ones, or load the user's own `module:function`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from harness.errors import ConfigError

T = TypeVar("T")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`did you mean 'x'? ` where one of the known names is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}? " if close else ""


def choose(name: str, known: Mapping[str, T], key: str) -> T:
    """The entry called `name`.

    Raises:
        ConfigError: naming `key`, the closest known name and all of them.
    """
    if name in known:
        return known[name]
    raise ConfigError(
        f"{key}: unknown name {name!r}; {did_you_mean(name, list(known))}known: {', '.join(sorted(known))}"
    )


def load_function(path: str, key: str) -> Any:
    """The object that `package.module:name` points at; modules in the working directory are found too.

    Raises:
        ConfigError: naming `key`, if the module cannot be imported or has no such name.
    """
    module_name, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ConfigError(
            f"{key}: {path!r}: cannot import {module_name!r} ({error}); run from the folder that holds it"
        ) from error
    except AttributeError:
        raise ConfigError(f"{key}: {path!r}: the module {module_name!r} has no {attribute!r}") from None
