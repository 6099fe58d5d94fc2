"""Measures of the code's shape: `python benchmarks/measures.py [ROOT] [--update]`.

Prints, for the package `harness` below ROOT (by default the current folder):

- the longest signatures, and the functions with the most lines of code;
- the classes with the most fields (attributes that methods assign to `self`, and annotated fields of the body);
- how many annotations are `dict[str, Any]`;
- comments per 100 lines of code in the files where things happen;
- the longest chain of imports;
- with `--update`, the files and classes that the third update of a real run passes through: the learner's update alone,
  and everything from the end of the update before it (the guard, the plan, the batch, what is logged or saved).
  `launch/train.py` of ROOT trains for five iterations in a process of its own, under a profiler.

Everything else is read from the source, so no layout is assumed. A function's lines are counted from `def` to its last
line, without its docstring; `self` and `cls` are not parameters.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from pathlib import Path

COMMENTED = ("loop", "learner", "watch", "monitor", "saving", "resume")
# the methods that one update is, under the names of both layouts; the profiler counts between entry and return
UPDATE = ("update", "iteration")
PROFILED = """
import json, os, runpy, sys
root = os.path.realpath(sys.argv.pop(1)) + os.sep
names = sys.argv.pop(1).split(",")
out = sys.argv.pop(1)
found = {"update": (set(), set(), set()), "iteration": (set(), set(), set())}
depth, updates = 0, 0
def profile(frame, event, argument):
    global depth, updates
    code = frame.f_code
    if not code.co_filename.startswith(root + "harness" + os.sep):
        return
    is_update = code.co_filename.endswith("gluon/learner.py") and code.co_name in names
    if is_update and event == "call":
        depth += 1
    if event == "call" and updates == 2:
        for files, classes, functions in [found["iteration"], *([found["update"]] if depth else [])]:
            owner, dot, _ = code.co_qualname.partition(".")
            files.add(code.co_filename[len(root):])
            functions.add((code.co_filename, code.co_qualname))
            if dot and owner.lstrip("_")[:1].isupper():
                classes.add(owner)
    if is_update and event == "return":
        depth -= 1
        updates += depth == 0
        if depth == 0 and updates == 3:
            with open(out, "w") as file:
                json.dump({name: [sorted(a), sorted(b), len(c)] for name, (a, b, c) in found.items()}, file)
sys.setprofile(profile)
sys.argv = ["launch/train.py", *sys.argv[1:]]
runpy.run_path("launch/train.py", run_name="__main__")
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path("."))
    parser.add_argument("--update", action="store_true", help="train for five iterations, and count what one passes")
    options = parser.parse_args()
    paths = sorted((options.root / "harness").rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    names = {path: str(path.relative_to(options.root)) for path in paths}
    print(f"{len(paths)} files, {sum(path.read_text(encoding='utf-8').count(chr(10)) for path in paths)} lines")
    _print_top("longest signatures (parameters)", signatures(trees, names), 5)
    _print_top("longest functions (lines without docstring)", lengths(trees, names), 5)
    _print_top("widest classes (fields)", widths(trees, names), 5)
    print(f"\ndict[str, Any]: {sum(untyped(tree) for tree in trees.values())}")
    print("\ncomments per 100 lines")
    for path in paths:
        if path.stem in COMMENTED:
            print(f"{comments(path):8.1f}  {names[path]}")
    chain = longest_chain({module_of(names[path]): imported(tree) for path, tree in trees.items()})
    print(f"\nimport depth: {len(chain)}\n  {' > '.join(name.removeprefix('harness.') for name in chain)}")
    if options.update:
        for name, (files, classes, number) in one_update(options.root).items():
            print(f"\none {name}: {len(files)} files, {len(classes)} classes, {number} functions")
            print(f"  files: {', '.join(files)}\n  classes: {', '.join(classes)}")


def _print_top(title: str, found: list[tuple[int, str]], count: int) -> None:
    print(f"\n{title}")
    for number, name in sorted(found, key=lambda one: (-one[0], one[1]))[:count]:
        print(f"{number:8d}  {name}")


def functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield f"{owner}{node.name}", node
            yield from functions(node, f"{owner}{node.name}.")
        else:
            yield from functions(node, f"{owner}{node.name}." if isinstance(node, ast.ClassDef) else owner)


def signatures(trees: dict[Path, ast.Module], names: dict[Path, str]) -> list[tuple[int, str]]:
    """Parameters of each function."""
    return [
        (
            len([one for one in (*a.posonlyargs, *a.args, *a.kwonlyargs) if one.arg not in ("self", "cls")]),
            f"{names[path]}: {name}",
        )
        for path, tree in trees.items()
        for name, function in functions(tree)
        for a in [function.args]
    ]


def lengths(trees: dict[Path, ast.Module], names: dict[Path, str]) -> list[tuple[int, str]]:
    """Lines of each function."""
    return [
        (code_lines(function), f"{names[path]}: {name}")
        for path, tree in trees.items()
        for name, function in functions(tree)
    ]


def code_lines(function: ast.FunctionDef) -> int:
    """Lines from `def` to the last one, without the docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def widths(trees: dict[Path, ast.Module], names: dict[Path, str]) -> list[tuple[int, str]]:
    """Fields of each class."""
    return [
        (len(fields(node)), f"{names[path]}: {node.name}")
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]


def fields(node: ast.ClassDef) -> set[str]:
    """Annotated names of a class's body, and attributes that its methods assign to `self`."""
    found = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}
    assigned = (one for one in ast.walk(node) if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store))
    return found | {one.attr for one in assigned if isinstance(one.value, ast.Name) and one.value.id == "self"}


def untyped(tree: ast.Module) -> int:
    """How often `dict[str, Any]` stands in the code."""
    return sum(isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]" for node in ast.walk(tree))


def comments(path: Path) -> float:
    """Comments per 100 lines that are neither blank nor in a docstring."""
    text = path.read_text(encoding="utf-8")
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    number = sum(token.type == tokenize.COMMENT for token in tokens)
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = [k for k, line in enumerate(text.splitlines(), start=1) if line.strip() and k not in documented]
    return 100 * number / max(1, len(lines))


def module_of(name: str) -> str:
    """The dotted name of a file."""
    return name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def imported(tree: ast.Module) -> set[str]:
    """Modules that a file imports, at its top or inside a function, and names that may be modules."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """The longest chain of modules of which each imports the next."""
    chains: dict[str, list[str]] = {}

    def chain_from(module: str) -> list[str]:
        if module not in chains:
            chains[module] = [module]  # while it is sought: the imports of a package by its own parts count once
            below = [chain_from(name) for name in sorted(graph[module] & graph.keys() - {module})]
            chains[module] = [module, *max(below, key=len, default=[])]
        return chains[module]

    return max((chain_from(module) for module in sorted(graph)), key=len)


def one_update(root: Path) -> dict[str, tuple[list[str], list[str], int]]:
    """Files and classes of which code runs in the third update of a run, and the number of functions."""
    with tempfile.TemporaryDirectory() as folder:
        program, out = Path(folder) / "profiled.py", Path(folder) / "out.json"
        program.write_text(PROFILED, encoding="utf-8")
        settings = ("train.epochs=null", "train.iterations=5", "evaluation.every=null", f"output={folder}")
        words = [word for setting in settings for word in ("--set", setting)]
        subprocess.run(
            [sys.executable, str(program), str(root), ",".join(UPDATE), str(out), *words],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return json.loads(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
