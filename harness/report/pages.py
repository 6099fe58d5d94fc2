"""Turns templates into self-contained pages: no scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

import functools
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.files import replace_file
from harness.folder import LATEST_S, seen

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_LINE = 2000  # characters of a text that is one of many
_PLACE = 1_000_000  # of one that fills a page, such as the stacks of all threads


def render(template: str, **values: Any) -> str:
    """Fill a template from `templates/`; every value is escaped, made displayable and limited in length.

    Args:
        template: its file's name.
        values: what it asks for; a value that it asks for and that is missing is an error.
    """
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    """The environment, cached because compiling templates takes longer than filling them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"number": number, "plain": plain, "clock": clock, "breakable": breakable, "short": short}
    return environment


def write_page(path: Path, page: str) -> None:
    """Write a page, completely or not at all.

    Raises:
        ConfigError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, page.encode("utf-8", errors="xmlcharrefreplace"))  # a path may not be UTF-8
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --output") from None


def number(value: float | None) -> str:
    """Four significant digits; empty for None."""
    return "" if value is None else f"{value:.4g}"


def plain(value: object) -> str:
    """A setting as text."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool | None) else str(value)
    return short(text)


def short(text: str, most: int = _LINE) -> str:
    """Text shortened to fit a table row, or to a number of characters."""
    return seen(text, most)


def clock(seconds: float | None) -> str:
    """Seconds since 1970 as date and time; empty if out of range."""
    if seconds is None or not 0 <= seconds <= LATEST_S:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def breakable(key: str) -> Markup:
    """A key such as `lr.warmup.length` that can wrap after a dot or an underscore."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[._])", seen(key, 200)))


def _shown(value: Any) -> Any:
    """The final filter for every value in a template: no control characters, limited length."""
    return seen(str(value), _PLACE) if type(value) is str or isinstance(value, Path) else value
