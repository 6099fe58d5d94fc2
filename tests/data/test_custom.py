from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from harness.data import Counts, SequenceDataset, count_samples, load
from harness.errors import DataError

HEAD = """
import numpy as np
from harness.data import ArrayDataset, make_splits
from harness.errors import DataError

x, y = np.zeros((6, 2), np.float32), np.arange(6) % 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module to the working directory and name it; it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written = []

    def write(body: str, head: str = HEAD) -> str:
        name = f"custom_data_{len(written)}"
        (tmp_path / f"{name}.py").write_text(head + body)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("returned", "counts", "classes"),
    [
        ("(x, y), (x[:2], y[:2])", Counts(6, 0, 2), 3),
        ("[(x, y), (x[:2], y[:2])]", Counts(6, 0, 2), 3),
        ("{'train': (x, y)}", Counts(6, 0, 0), 3),
        ("{'train': (x, y), 'validation': [x[:1], y[:1]], 'test': None, 'num_classes': 5}", Counts(6, 1, 0), 5),
        ("{'train': (x, y * .5)}", Counts(6, 0, 0), None),
        ("{'train': list(zip(x, y)), 'num_classes': np.int64(3)}", Counts(6, 0, 0), 3),
        ("list(zip(x, y * .5)), list(zip(x, y * .5))[:3]", Counts(6, 0, 3), None),
        ("ArrayDataset(x.astype(np.int16), y, 1000.), ArrayDataset(x, y, 1.).subset(np.arange(2))", Counts(6, 0, 2), 3),
        ("make_splits(ArrayDataset(x, y, 1.), num_classes=4)", Counts(6, 0, 0), 4),
    ],
)
def test_what_a_function_may_return(module, returned, counts, classes):
    name = f"{module(f'def make(): return {returned}')}:make"
    path = [*sys.path, os.getcwd()]
    splits = load(name)
    assert count_samples(name) == counts
    assert Counts(len(splits.train), len(splits.validation or ()), len(splits.test or ())) == counts
    assert (splits.num_classes, splits.sample_shape) == (classes, (2,))
    assert sys.path == path


def test_parameters_and_root_are_passed(module):
    name = module("def make(root, size, factor=1): return {'train': (x[:size], y[:size] * float(len(root)) * factor)}")
    splits = load(f"{name}:make", root="abcd", params={"size": 3, "factor": 2}, validation=1)
    assert sorted([*splits.train.labels(), *splits.validation.labels()]) == [0.0, 8.0, 16.0]


def test_a_function_in_a_package(tmp_path, module):
    (tmp_path / "custom_package").mkdir()
    (tmp_path / "custom_package" / "inner.py").write_text(HEAD + "def make(): return (x, y), (x, y)")
    assert len(load("custom_package.inner:make").train) == 6
    for name in ("custom_package", "custom_package.inner"):
        del sys.modules[name]


def test_gluon_data_sets_are_recognised_by_what_they_can_do(module):
    body = """
class NDArray:
    shape, dtype = (2,), np.float32
    def asnumpy(self): return x[0]
class Gluon:
    def __len__(self): return 4
    def __getitem__(self, index):
        assert isinstance(index, int)
        return NDArray(), np.float32(index)
def make(): return Gluon(), Gluon()
"""
    splits = load(f"{module(body)}:make")
    assert isinstance(splits.train, SequenceDataset)
    assert splits.train.take(np.array([3, 1]))[1].tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("make = 3", "an int in .*custom_data_0.py; name a function"),
        ("other = 3", "no such name in .*custom_data_0.py; name a function"),
        (
            "import not_there_at_all\ndef make(): pass",
            "imports 'not_there_at_all', which is not installed",
        ),
        ("1 / 0", "importing custom_data_0 raised ZeroDivisionError: division by zero"),
        ("def make(", "importing custom_data_0 raised SyntaxError"),
        ("def make(size): pass", r"cannot be called with {}: missing a required argument: 'size'; it takes \(size\)"),
        ("def make():\n  return {}['nothing']", r"raised KeyError: 'nothing' \(at .*custom_data_0.py:8\)"),
        ("def make(): raise DataError('mine')", "^mine$"),
        ("def make(): return None", r"returned None; return \(train, test\), a mapping"),
        ("def make(): return x", r"returned an ndarray; return \(train, test\)"),
        ("def make(): return x, y", r"returned a tuple of 2; return \(train, test\)"),
        ("def make(): return (x, y), (x, y), (x, y)", "returned a tuple of 3"),
        ("def make(): return {'test': (x, y)}", r"returned a mapping with \['test'\]"),
        ("def make(): return {'train': (x, y), 'dev': (x, y)}", r"returned a mapping with \['dev', 'train'\]"),
        ("def make(): return {'train': None}", "returned no training split"),
        ("def make(): return {'train': x}", ", train: found an ndarray; "),
        ("def make(): return {'train': 'folder'}", ", train: found a str; "),
        ("def make(): return {'train': (x, y), 'num_classes': 2.5}", "num_classes 2.5 is not a number of classes"),
        ("def make(): return {'train': (x, y[:3])}", r", train: data has shape \(6, 2\) and labels \(3,\)"),
        ("def make(): return {'train': (x > 0, y)}", r"train: data is bool; .*: convert them to uint8"),
        ("def make(): return {'train': (x, y), 'test': (x, y + 1)}", ", test: label 3 of sample 2 is not in 0..2"),
        ("def make(): return {'train': list(zip(x, y))}", "counting their classes would read every sample"),
    ],
)
def test_what_goes_wrong(module, body, message):
    name = module(body)
    path = [*sys.path, os.getcwd()]
    with pytest.raises(DataError, match=message):
        load(f"{name}:make")
    assert sys.path == path


def test_names_and_settings_that_do_not_fit(module, tmp_path):
    name = module("def make(): return (x, y), (x, y)")
    with pytest.raises(DataError, match=f"no module 'nowhere_at_all' in {tmp_path}"):
        load("nowhere_at_all:make")
    with pytest.raises(DataError, match=rf"no module '{name}\.inner' in"):
        load(f"{name}.inner:make")
    for incomplete in (":make", f"{name}:"):
        with pytest.raises(DataError, match=r"incomplete; write it as package\.module:function"):
            load(incomplete)
    with pytest.raises(DataError, match=r"data\.download: no effect"):
        load(f"{name}:make", download=True)
    with pytest.raises(DataError, match=r"data.root has no effect, because the function takes \(\)"):
        load(f"{name}:make", root="here")


def test_a_count_does_not_ask_what_labels_are(module):
    name = module("def make(): return {'train': (x, y - 1), 'test': list(zip(x, y))}")
    assert count_samples(f"{name}:make") == Counts(6, 0, 6)
    assert load(f"{name}:make", labels_are_numbers=True).num_classes is None
    with pytest.raises(DataError, match="label -1 of sample 0"):
        load(f"{name}:make")
