"""Choices by name: look one up among the known ones, or load the user's own `module:function`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
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
        ConfigError: naming `key`, if the module cannot be imported, or has no such name.
    """
    module_name, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        kind = type(error).__name__
        raise ConfigError(
            f"{key}: {path!r}: cannot import {module_name!r} ({kind}: {error}); run from the folder that holds it"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{key}: {path!r}: the module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)


def call(function: Callable[..., T], arguments: Mapping[str, Any], key: str) -> T:
    """What a function returns for keyword arguments out of a configuration.

    Raises:
        ConfigError: naming `key`, if the function does not take them; a misspelt name comes with a guess.
    """
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind == p.VAR_KEYWORD for p in parameters):
        for name in arguments:
            if name not in known:
                takes = ", ".join(known) or "nothing"
                raise ConfigError(
                    f"{key}.{name}: there is no such parameter; {did_you_mean(name, known)}it takes: {takes}"
                )
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:  # whatever a user's function does with its arguments
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{key}: {dict(arguments)} is not accepted ({type(error).__name__}: {reason[0]}); it takes: "
            f"{', '.join(known) or 'nothing'}"
        ) from error
