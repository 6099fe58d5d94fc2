"""From a file and `--set` to a `RunConfig`, and back to YAML; all errors at once, each with its origin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from harness.config.finding import find_config
from harness.config.lr import OWN_PLATEAU, LRConfig
from harness.config.messages import config_error, explain, show
from harness.config.model import RunConfig
from harness.config.reading import apply_override, dump_yaml, path_of, read_yaml
from harness.config.values import Problem
from harness.errors import ConfigError
from harness.named import cut
from harness.parsing import plain_numbers

_LONGEST_SHOWN = 80


def parse_config(raw: object, source: str = "config") -> RunConfig:
    """Check plain data and turn it into a `RunConfig`.

    Raises:
        ConfigError: with every problem, a line each: `source: key.path: what was found; what is allowed`.
    """
    return _parse(raw, source, ())


def parse_lr(raw: object, source: str = "config") -> LRConfig:
    """Check only the section `lr`, for your own loop.

    >>> parse_lr({"base": 0.1, "schedule": {"poly": {"base_lr": "1x", "max_update": "100%"}}}).base
    0.1

    Raises:
        ConfigError: with every problem, as in `parse_config`.
    """
    try:
        section = LRConfig.model_validate(plain_numbers(raw))
    except ValidationError as error:
        problems = [Problem(("lr", *path), message) for path, message in explain(error, LRConfig)]
        raise config_error(source, problems) from None
    if section.plateau is not None:
        raise config_error(source, [Problem(("lr", "plateau"), OWN_PLATEAU)])
    return section


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file and apply `--set` overrides, each `key.path=value` with the value in YAML.

    Args:
        path: of the file; or, where no file is called so, the name of one in `configs/` or of a shipped configuration.
        overrides: from `--set`.

    Raises:
        ConfigError: if the file cannot be read, is not valid YAML, holds anything that is not allowed, or gives no
            name and has a file name that is not allowed as one.
    """
    path = find_config(path)
    raw = read_yaml(path)
    problems: list[Problem] = []
    for override in overrides if isinstance(raw, dict) else ():
        try:
            apply_override(raw, override)
        except ConfigError as error:
            problems.append(Problem((), f"--set {cut(override, _LONGEST_SHOWN)}: {error}"))
    if problems:
        raise config_error(str(path), problems)
    config = _parse(raw, str(path), overrides)
    config.check_run_name()
    return config


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, which `load_config` reads back as an equal object."""
    return dump_yaml(config.plain())


def _parse(raw: object, source: str, overrides: Sequence[str]) -> RunConfig:
    if not isinstance(raw, dict):
        found = "is empty" if raw is None else f"found {show(raw)}"
        message = f"{found}; must be a mapping of settings with at least train, network and lr"
        raise config_error(source, [Problem((), message)])
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        raise config_error(source, [_blame(problem, overrides) for problem in explain(error, RunConfig)]) from None
    config._source = source
    return config


def _blame(problem: Problem, overrides: Sequence[str]) -> Problem:
    """The problem, with the override that caused it, unless it is in the file."""
    path = tuple(map(str, problem.path))
    for override in reversed(overrides):
        keys = path_of(override)
        shared = min(len(path), len(keys))
        if shared and path[:shared] == keys[:shared]:
            return Problem(problem.path, f"{problem.message} (from --set {cut(override, _LONGEST_SHOWN)})")
    return problem
