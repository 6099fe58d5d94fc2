"""What holds for the tests themselves: public names alone, and witnesses for what the README and other pages claim."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

FILES = sorted(ROOT.glob("tests/**/*.py"))
STANDARD = {"sys._getframe", "os._exit"}
OF_MXNET = {"_collect_params_with_prefix", "_data", "_index_update_count"}  # it has no public way there


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(tree: ast.Module) -> list[str]:
    """Private names of other modules that a file reaches for: attributes, imports, and those that it replaces."""
    found = []
    of_own_class = {
        id(node)
        for definition in ast.walk(tree)
        if isinstance(definition, ast.ClassDef)
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and id(node) not in of_own_class:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("setattr", "getattr"):
            words = [word.value for word in node.args[:2] if isinstance(word, ast.Constant)]
            found += [word for word in words if isinstance(word, str) and is_private(word.rpartition(".")[2])]
    return [name for name in found if name not in STANDARD and name.rpartition(".")[2] not in OF_MXNET]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_reaches_for_a_private_name(path):
    assert private_names(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_private_names_are_found_however_they_are_reached():
    for text, name in (
        ("from harness.gluon import _run", "harness.gluon._run"),
        ("x.learner._applier.step()", "x.learner._applier"),
        ("monkeypatch.setattr(guard, '_look', 1)", "_look"),
        ("monkeypatch.setattr('harness.gluon.probe._run', 1)", "harness.gluon.probe._run"),
        ("def f(self): self._x = 1", "self._x"),
    ):
        assert private_names(ast.parse(text)) == [name]
    assert private_names(ast.parse("class A:\n    def f(self): self._x = self.__class__")) == []


def test_every_promise_has_witnesses():
    page = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|") and "::" in line]
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What it promises")[2].partition("\n## ")[0]
    promises = re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE)
    assert len(promises) >= 7
    assert not set(promises) - {promise for promise, _ in rows}
    for promise, witnesses in rows:
        assert named_tests(promise, witnesses)


def named_tests(claim: str, text: str) -> list[str]:
    """The tests that a text names: each is there, and is not left to make thorough."""
    named = re.findall(r"`([\w/.]+)::(\w+)`", text)
    assert len(named) == text.count("::"), f"{claim}: a test is written `path::name`"
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert found, f"{claim}: there is no {path}::{name}"
        marks = " ".join(ast.unparse(mark) for mark in found[0].decorator_list if not isinstance(mark, ast.Call))
        assert "thorough" not in marks, f"{claim}: {name} is left to make thorough"
    return [name for _, name in named]


def test_every_row_about_peers_is_shown_or_says_what_is_missing():
    page = (ROOT / "docs/peers.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| \d", line)]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 88)]
    named_tests("beside the rows", re.sub(r"^\|.*", "", page, flags=re.MULTILINE))
    for number, feature, peers, here, why in rows:
        claim = f"row {number}, {feature}"
        assert int(peers) in range(11), claim
        tests = named_tests(claim, why)
        if here == "Y":  # test_docs.py tries the commands of every page
            assert tests or re.search(r"`(python|horovodrun|mpirun) ", why), f"{claim}: which test or command shows it?"
        else:
            words = re.sub(r"`[^`]*`", "", why)
            assert len(re.findall(r"\w+", words)) >= 3, f"{claim}: say in words what is missing"
    counts = [sum(row[3] == verdict for row in rows) for verdict in "YPN"]
    assert "Here {} rows are Y, {} are P and {} are N".format(*counts) in page
    assert sum(counts) == len(rows)
