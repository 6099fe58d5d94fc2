"""The gallery of schedules: complete, fresh to the byte, and right in its formulas."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from harness.config import LRConfig
from harness.schedules import Frame, Schedule
from harness.schedules.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module", autouse=True)
def _modules_of_docs():
    """Modules of `docs/` are found, as they are by `python docs/generate.py`."""
    before = list(sys.path)
    sys.path.insert(0, str(DOCS))
    yield
    sys.path[:] = before


@pytest.fixture(scope="module")
def entries():
    import gallery

    return gallery.entries()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All pictures that the generator makes, drawn anew."""
    import generate

    folder = tmp_path_factory.mktemp("docs")
    return {path: (folder / path).read_bytes() for path in generate.draw(folder)}


def test_every_schedule_and_modifier_is_in_the_gallery(entries):
    assert sorted(entry.of for entry in entries if entry.of) == sorted(CATALOGUE)
    assert all(entry.formula for entry in entries if entry.of)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pictures are drawn with the NumPy of Python 3.11")
def test_pictures_regenerate_to_the_same_bytes(drawn):
    assert len(drawn) > 20
    for path, content in drawn.items():
        assert (DOCS / path).read_bytes() == content, f"docs/{path} is stale: python docs/generate.py"
        assert len(content) < 40_000, f"docs/{path} is large"


def test_no_picture_is_left_over(drawn):
    assert {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.svg")} == set(drawn)


def test_the_page_shows_every_picture_once_in_the_grid_and_once_beside_its_yaml(entries):
    page = (DOCS / "schedules.md").read_text(encoding="utf-8")
    for entry in entries:
        assert page.count(f"(schedules/{entry.picture})") == 2
        assert page.count(f"(#{entry.anchor})") == 1
        assert f"\n## {entry.title}\n" in page
        assert all(text in page for text in entry.curves.values())
    assert len({entry.anchor for entry in entries}) == len(entries)


def twister(seed: int, count: int) -> list[int]:
    return np.random.RandomState(seed).randint(0, 2**32, count, np.uint32).tolist()


def uniform(seed: int, bound: float) -> float:
    return bound * (2 * (twister(seed, 1)[0] & 0xFFFFFF) / 2**24 - 1)


def normal(seed: int, bound: float) -> float:
    """The first standard normal number inside, by Box and Muller, from 53 of 64 bits each."""
    words = twister(seed, 4000)
    parts = [((high << 32 | low) & (2**53 - 1)) / 2**53 for high, low in zip(words[::2], words[1::2], strict=True)]
    for turn, far in zip(parts[::2], parts[1::2], strict=True):
        for number in (math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)):
            found = float(np.float32(math.sqrt(-2 * math.log1p(-far)) * number))
            if abs(found) < bound:
                return found
    raise AssertionError("no number is inside")


def value(formula: str, arguments: dict, t: int) -> float:
    """What the first line of a formula says whose condition holds."""
    names = {name: getattr(math, name) for name in ("ceil", "cos", "pi", "sqrt")}
    names |= {"max": max, "min": min, "sum": sum, "uniform": uniform, "normal": normal, **arguments, "t": t}
    for line in formula.splitlines():
        expression, _, condition = line.partition("  if ")
        if " = " in expression:
            exec(expression, names)
        elif not condition or eval(condition.strip(), names):
            return eval(expression.strip(), names)
    raise AssertionError(f"no line of the formula holds at {t}")


FORMULAS = [name for name in CATALOGUE if name != "cyclical"]  # a recursion; its cycles are checked below


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_says_what_the_schedule_does(entries, name):
    (entry,) = (entry for entry in entries if entry.of == name)
    for text in entry.curves.values():
        spec = LRConfig.model_validate(yaml.safe_load(text)["lr"]).schedule
        schedule = spec.build(Frame(iterations_per_epoch=100, span=1000, x=0.1))
        assert isinstance(schedule, Schedule)
        if spec.name == name:
            written = {key: value for key, value in spec.arguments if isinstance(value, int | float)}
            arguments = written | dict(getattr(schedule, "kwargs", ())) | vars(schedule)
            for t in range(1, 1101):
                assert value(entry.formula, arguments, t) == pytest.approx(schedule(t), rel=1e-9, abs=1e-15), t


def test_the_cycles_are_as_their_formula_says(entries):
    for title, lengths, heights in (
        ("cyclical", [200] * 5, [1] * 5),
        ("cyclical with lower cycles", [200] * 5, [1, 0.5, 0.25, 0.125, 0.0625]),
        ("the amplitude", [200] * 5, [0.3 + 0.7 * height for height in (1, 0.5, 0.25, 0.125, 0.0625)]),
        ("cyclical with longer cycles", [100, 150, 225, 338], [1] * 4),
    ):
        plans = {named.name or entry.title: named for entry in entries for named in entry.plans()}
        plans["cyclical with lower cycles"] = plans["towards 0"]
        named = plans[title]
        begin = 0
        for length, height in zip(lengths, heights, strict=True):
            cycle = [named.plan.lr(t) for t in range(begin, begin + length)]
            assert max(cycle) == pytest.approx(0.1 * height, rel=0.01)
            assert min(cycle) == cycle[0]
            begin += length


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["schedules.md", "scaling.md", "concepts.md"])
def test_links_lead_somewhere(name):
    prose = re.sub(r"```.*?```", "", (DOCS / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", prose)
    assert len(links) > 2
    for file, anchor in links:
        target = DOCS / (file or name)
        assert target.exists(), f"{name}: {file}"
        assert not anchor or anchor in anchors(target), f"{name}: {file}#{anchor}"
