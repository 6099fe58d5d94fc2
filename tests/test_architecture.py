"""Imports run one way: up the list. Nobody adds an exception here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = [
    "errors",
    "parsing",
    "causes",
    "interrupts",
    "files",
    "locks",
    "named",
    "units",
    "versions",
    "processes",
    "shipped",
    "build_horovod",
    "schedules",
    "folder",
    "supervising",
    "data",
    "comm",
    "config",
    "plan",
    "checkpoint",
    "guard",
    "hooks",
    "command",
    "model",
    "gluon",
    "finder",
    "report",
    "train",
    "doctor",
    "job",
    "bridge",
    "cli",
]
MXNET_MAY_BE_IN = (
    "harness/gluon/",
    "harness/model/",
    "harness/comm/horovod.py",
    "harness/bridge/of_gluon.py",
    "harness/bridge/orders.py",
)
TORCH_MAY_BE_IN = ("harness/bridge/",)
RANKS_MAY_BE_IN = ("harness/comm/",)
MODULES = sorted(ROOT.glob("harness/**/*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "harness"}
    return names


def imported_at_once(path: Path) -> set[str]:
    """Every module that is imported when a file is: not what its functions import, nor what type checkers read."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {node.module} if isinstance(node, ast.ImportFrom) else {alias.name for alias in node.names}
        else:
            is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            is_late = isinstance(node, ast.FunctionDef) or is_for_types
            assert is_late or not any(isinstance(one, ast.Import | ast.ImportFrom) for one in ast.walk(node)), path
    return names


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "harness" and len(parts) > 1 else None


def room_of(path: Path) -> str | None:
    return room(".".join(path.relative_to(ROOT).with_suffix("").parts)) if path.parent.name != "harness" else path.stem


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_rooms_above_it(path):
    own = room_of(path)
    if own == "__init__":
        assert imported_at_once(path) <= {"typing", "harness_compat"}, "import harness must stay free of charge"
        return
    assert own in ROOMS, f"{own} is no room of the design"
    for name in imports(path):
        other = room(name)
        if other not in (None, own):
            assert ROOMS.index(other) < ROOMS.index(own), (
                f"{path.relative_to(ROOT)} imports {name}, from a room below it"
            )


@pytest.mark.parametrize(
    ("packages", "allowed"),
    [({"mxnet"}, MXNET_MAY_BE_IN), ({"horovod", "mpi4py"}, RANKS_MAY_BE_IN), ({"torch"}, TORCH_MAY_BE_IN)],
)
def test_only_the_edge_knows_the_stack(packages, allowed):
    for path in [*MODULES, *ROOT.glob("launch/*.py")]:
        found = {name.split(".")[0] for name in imports(path)} & packages
        place = str(path.relative_to(ROOT))
        assert not found or place.startswith(allowed), f"{place} imports {found}"


def test_no_import_cycle_inside_a_room():
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): imports(path)
        for path in MODULES
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"cycle: {' -> '.join((*trail, module))}"
        if module in done or module not in graph:
            return
        for name in graph[module]:
            visit(name, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_files_stay_short():
    for path in [*MODULES, *ROOT.glob("launch/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 340, f"{path.relative_to(ROOT)} is long: it holds two ideas"


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """From `def` to the last line; the docstring, comments and blank lines do not make a function long."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    documented = range(first.lineno, first.end_lineno + 1) if has_docstring else range(0)
    return sum(
        number not in documented and not lines[number - 1].strip().startswith("#") and lines[number - 1].strip() != ""
        for number in range(function.lineno, function.end_lineno + 1)
    )


def test_functions_stay_short():
    for path in [*MODULES, *ROOT.glob("launch/*.py")]:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = lines_of_code(node, text.splitlines())
                assert length <= 60, (
                    f"{path.relative_to(ROOT)}: {node.name} is long, {length} lines: it does two things"
                )


def test_no_name_that_a_package_exports_hides_one_of_its_modules():
    """`import harness.room.name as module` would give the exported object, and not the module."""
    for path in ROOT.glob("harness/**/__init__.py"):
        inside = {one.stem for one in path.parent.glob("*.py")} | {one.name for one in path.parent.iterdir()}
        tree = ast.parse(path.read_text(encoding="utf-8"))
        exported = {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        } | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert not exported & inside, f"{path.relative_to(ROOT)}: {exported & inside}"


def test_nothing_is_waved_through():
    folders = ("harness", "harness_compat", "launch", "tests")
    for path in [path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")]:
        for word in ("type: " + "ignore", "no" + "qa"):
            assert word not in path.read_text(encoding="utf-8"), f"{path.relative_to(ROOT)} has a {word}"


def test_contributing_lists_the_rooms_in_this_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| folder of `harness/` |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines() for name in re.findall(r"`(\w+)(?:\.py|/)`", row.split("|")[1])]
    assert listed == ROOMS


def test_the_files_to_read_first_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = text.partition("## Read these six files")[2].partition("\n## ")[0]
    first = re.findall(r"^\d\. \*\*`(.+?)`\*\*", part, re.MULTILINE)
    assert len(first) == 6
    for name in first:
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`(\w+/\w+\.py)", part):
        assert (ROOT / "harness" / name).is_file(), name
