"""Templates to pages that need nothing but themselves: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """Fill a template of `templates/`; every value is escaped.

    Args:
        template: its file's name.
        values: what it asks for; a value that it asks for and that is missing is an error.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "plain": plain, "clock": clock, "breakable": breakable}
    return environment.get_template(template).render(**values)


def write_page(path: Path, page: str) -> None:
    """Write a page.

    Raises:
        ConfigError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # a path need not be UTF-8
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another --output") from None


def number(value: float | None) -> str:
    """Four digits; empty where there is none."""
    return "" if value is None else f"{value:.4g}"


def plain(value: object) -> str:
    """A setting as text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool | None) else str(value)


def clock(seconds: float | None) -> str:
    """Seconds since 1970 as a date and a time."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def breakable(key: str) -> Markup:
    """A key such as `lr.warmup.length`, which a narrow column may break after a dot or an underscore."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[._])", key))
