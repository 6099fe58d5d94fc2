"""Choices by name: look one up among the known ones, or load the user's own `module:function`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import ConfigError, HarnessError

T = TypeVar("T")
LONGEST_NAME = 100  # characters; anything longer is not a typo in a name
CODE_PATTERN = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
"""How the user's own code is written: `package.module:function`."""


def flat(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as one list: the path of each, joined by dots, and its value; an empty mapping is a value.

    >>> list(flat({"lr": {"base": 0.1, "params": {}}, "seed": 1}))
    [('lr.base', 0.1), ('lr.params', {}), ('seed', 1)]

    Args:
        content: the settings.
        key: where they stand.
    """
    if isinstance(content, Mapping) and content:
        for name, value in content.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, content


def cut(text: str, longest: int = 60) -> str:
    """A text, shortened if it is long."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def brief(value: object, longest: int = 60) -> str:
    """A value as Python shows it, shortened if it is long, without formatting all of it first.

    >>> brief([[1] * 1000] * 1000, 10)
    '[[1, 1, 1,...'
    """
    return cut("".join(itertools.takewhile(_Room(longest), _pieces(value))), longest)


class _Room:
    """Whether there is room for one more piece of text, including the one that exceeds the limit."""

    def __init__(self, longest: int) -> None:
        self.left = longest + 1

    def __call__(self, piece: str) -> bool:
        room, self.left = self.left > 0, self.left - len(piece)
        return room


def _pieces(value: object) -> Iterator[str]:
    """The result of `repr`, piece by piece."""
    if type(value) is dict:
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield ", " if number else ""
            yield from _pieces(key)
            yield ": "
            yield from _pieces(item)
        yield "}"
    elif type(value) is list:
        yield "["
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(item)
        yield "]"
    elif isinstance(value, str):
        yield repr(value[:1000])  # a message is shorter than that
    elif type(value) is int and value.bit_length() > 14_000:  # Python refuses to format more than 4300 digits
        yield f"a whole number of {value.bit_length()} bits"
    else:
        yield repr(value)


def kind_of(value: object) -> str:
    """What a value is, for messages: its type with its article, or `None`.

    >>> kind_of(3), kind_of("3"), kind_of(None)
    ('an int', 'a str', 'None')
    """
    return "None" if value is None else with_article(type(value).__name__)


def with_article(name: str) -> str:
    """A type's name with its article: `an Augmentation`, `a World`, `an NDArray`, `a ufunc`.

    >>> with_article("Augmentation"), with_article("World"), with_article("NDArray"), with_article("uint8")
    ('an Augmentation', 'a World', 'an NDArray', 'a uint8')
    """
    is_spelt = name[:2].isupper() or name[:2] == "nd"  # letter by letter, as NDArray
    return f"{'an' if name[:1] in ('AEFHILMNORSXn' if is_spelt else 'aeioAEIO') else 'a'} {name}"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`did you mean 'x'? ` if one of the known names is close, otherwise nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6) if len(name) <= LONGEST_NAME else []
    return f"did you mean {close[0]!r}? " if close else ""


def choose(name: str, known: Mapping[str, T], key: str, error: type[HarnessError] = ConfigError) -> T:
    """The entry called `name`.

    Raises:
        HarnessError: of the type `error`, naming `key`, the closest known name and all known names.
    """
    if name in known:
        return known[name]
    raise error(
        f"{key}: unknown name {brief(name)}; {did_you_mean(name, list(known))}known: {', '.join(sorted(known))}"
    )


def name_and_params(choice: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A choice by name and its parameters, of which a plain name has none.

    >>> name_and_params("f1"), name_and_params({"top_k": {"k": 3}}), name_and_params({"f1": None})
    (('f1', {}), ('top_k', {'k': 3}), ('f1', {}))
    """
    if isinstance(choice, str):
        return choice, {}
    ((name, params),) = choice.items()
    return name, dict(params or {})


def load_function(
    path: str, key: str, error: type[HarnessError] = ConfigError, what: str = "function"
) -> Callable[..., Any]:
    """The function, or other callable, that `package.module:function` names.

    The module is looked up in the working directory first, then on Python's path, whichever setting names it. From
    then on the working directory is the last entry of the path, for later imports by the module.

    Raises:
        HarnessError: of the type `error`, naming `key`, if the module cannot be imported or has no such function.
    """
    where = f"{key}: {brief(path)}"
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise error(f"{where}: incomplete; write it as package.module:{what}")
    try:
        with _working_directory_first():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (module_name == missing.name or module_name.startswith(f"{missing.name}.")):
            raise error(
                f"{where}: there is no module {missing.name!r} in {os.getcwd()} or on Python's path; start from the "
                "folder that contains it, or install it"
            ) from missing
        raise error(f"{where}: {module_name} imports {missing.name!r}, which is not installed") from missing
    except (Exception, SystemExit) as failure:  # anything that a user's module does on import
        reason = f"{type(failure).__name__}: {cut(str(failure), 300)}"
        raise error(f"{where}: importing {cut(module_name)} raised {reason}; fix the module") from failure
    function = getattr(module, name, None)
    if not callable(function):
        file = getattr(module, "__file__", None) or module_name
        found = f"no such name in {file}" if function is None else f"{kind_of(function)} in {file}"
        guess = did_you_mean(name, [one for one, value in vars(module).items() if callable(value)])
        raise error(f"{where}: {found}; {guess}name a {what}")
    checked: Callable[..., Any] = function
    return checked


def code_in(value: object) -> Iterator[str]:
    """The texts in plain data, keys included, that could name the user's own code: `package.module:function`.

    >>> list(code_in({"lr": {"schedule": {"mine:sawtooth": {"low": 0.1}}}, "data": {"name": "digits"}}))
    ['mine:sawtooth']
    """
    if isinstance(value, str):
        yield from [value] if re.fullmatch(CODE_PATTERN, value) else []
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from code_in(key)
            yield from code_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from code_in(item)


@contextmanager
def _working_directory_first() -> Iterator[None]:
    """Put the working directory first on the path; Python itself adds only the script's folder."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def call(function: Callable[..., T], arguments: Mapping[str, Any], key: str) -> T:
    """Call a function with keyword arguments from a configuration.

    Raises:
        ConfigError: naming `key`, if the function does not accept them; with a suggestion for a misspelt name.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C have no signature
        parameters = inspect.signature(lambda **_: None).parameters.values()
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
    except (Exception, SystemExit) as error:  # anything that a user's function does with its arguments
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{key}: {brief(dict(arguments), 300)} is not accepted ({type(error).__name__}: {cut(reason[0], 300)}"
            f"{_own_line(function, error)}); it takes: {', '.join(known) or 'nothing'}"
        ) from error


def where_raised(error: BaseException) -> str:
    """File and line that raised an error, for messages about a user's code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def _own_line(function: Callable[..., Any], error: BaseException) -> str:
    """The line of the function's own file that raised, because the fault may be in the code."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not lines or str(function.__module__).partition(".")[0] in ("harness", "mxnet"):
        return ""
    return f", raised at {Path(str(file)).name}:{lines[-1]}"
