"""What happens when modules are imported: to MXNet, and to everything else, which nothing happens to."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from harness_compat.names import NAMES

ROOT = Path(__file__).parents[2]
VERSION = tuple(map(int, np.__version__.split(".")[:2]))
SITE = sysconfig.get_path("purelib")
AS_IT_COMES = "import site, sys; sys.path.append(sys.argv[1]); import setuptools; "  # -S: without any .pth file


def python(code, *arguments, options=("-W", "ignore"), cwd=ROOT, exit_code=0):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, *options, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == exit_code, ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def package(tmp_path):
    """Write a package into a folder of its own, and give what makes it be found first, and the shim at all."""

    def write(name, code, **modules):
        folder = tmp_path / name
        folder.mkdir()
        for module, text in {"__init__": code, **modules}.items():
            (folder / f"{module}.py").write_text(text)
        return f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import harness_compat; "

    return write


def test_mxnet_is_imported_with_what_it_misses():
    code = "import harness_compat, mxnet as mx; from harness_compat import added; print(*added()); print(mx.nd.ones(2))"
    told, *array = python(code).splitlines()
    back = {"bool"} if VERSION >= (2, 0) else set()
    assert told.split() == [one.name for one in NAMES if one.gone_since <= VERSION and one.name not in back]
    assert "[1. 1.]" in array


def test_without_the_shim_it_is_imported_with_an_old_numpy_alone():
    code = f"{AS_IT_COMES} import mxnet; print(mxnet.__version__)"
    options = ("-W", "ignore", "-S")
    if VERSION < (1, 24):
        assert python(code, SITE, options=options) == "1.9.1\n"
    else:
        assert "\nAttributeError: " in python(code, SITE, options=options, exit_code=1)


def test_registering_loads_no_other_module():
    code = "import sys; before = set(sys.modules); import harness_compat; print(*set(sys.modules) - before)"
    assert python(code, options=("-S",)) == "harness_compat\n"


def test_the_harness_brings_it_where_no_interpreter_has_it_from_its_start():
    code = "import sys, harness; print(*sorted(name for name in sys.modules if name.startswith('harness')))"
    assert python(code, options=("-S",)) == "harness harness_compat\n"


def test_a_program_without_mxnet_has_numpy_as_it_is():
    ask = "import numpy; print(*sorted(vars(numpy)))"
    told = python(f"{AS_IT_COMES} import harness_compat; from importlib.util import find_spec; {ask}", SITE)
    assert told == python(AS_IT_COMES + ask, SITE, options=("-W", "ignore", "-S"))


def test_looking_for_mxnet_is_not_importing_it():
    code = "import harness_compat, sys; from importlib.util import find_spec; print(find_spec('mxnet').origin); "
    told = python(f"{code} print('numpy' in sys.modules)")
    assert told.endswith(f"mxnet{os.sep}__init__.py\nFalse\n")


def test_a_name_that_begins_alike_is_another_package(package):
    path = package("mxnet_tools", "", mxnet="")
    code = (
        f"{path} import mxnet_tools.mxnet; print([name for name in sys.modules if name.startswith('harness_compat')])"
    )
    assert python(code) == "['harness_compat']\n"


def test_registering_twice_registers_once():
    code = "import harness_compat, importlib, sys; importlib.reload(harness_compat); "
    code += "print([type(finder).__name__ for finder in sys.meta_path].count('MxnetFinder'))"
    assert python(code) == "1\n"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ImportError('libgomp.so.1: cannot open', name='mxnet')", "ImportError: libgomp.so.1: cannot open"),
        ("import absent_library", "ModuleNotFoundError: No module named 'absent_library'"),
        ("raise OSError('libmxnet.so: no such file')", "OSError: libmxnet.so: no such file"),
        ("from . import absent", "ImportError: cannot import name 'absent' from partially initialized module 'mxnet'"),
        ("def", "SyntaxError: invalid syntax"),
    ],
)
def test_errors_of_mxnet_are_its_own(package, code, error):
    path = package("mxnet", code)
    attempt = "\ntry: import mxnet\nexcept Exception as caught: print(f'{type(caught).__name__}: {caught}')"
    attempt += "\nprint('mxnet' in sys.modules)"
    told = python(path + attempt)
    assert told.startswith(error)
    assert told.endswith("\nFalse\n")


def test_no_mxnet_at_all():
    code = f"{AS_IT_COMES} import harness_compat; sys.path.remove(sys.argv[1]); import mxnet"
    told = python(code, SITE, options=("-S",), exit_code=1)
    assert told.endswith("ModuleNotFoundError: No module named 'mxnet'\n")


def test_no_numpy(package):
    path = package("mxnet", "import numpy")
    told = python(f"{path} sys.modules['numpy'] = None; import mxnet", exit_code=1)
    assert told.endswith("ModuleNotFoundError: import of numpy halted; None in sys.modules\n")


def test_modules_are_loaded_from_where_they_are(package):
    """Their loaders still give sources and files, and a module is mended wherever its package was found."""
    path = package("mxnet", "", recordio=RECORDIO)
    code = f"{path} import inspect, mxnet.recordio as r; print(inspect.getsource(r) == open(r.__file__).read()); "
    code += "print(r.pack([1, 2]), r.pack_img(0))"
    assert python(code) == f"True\n{np.array([1, 2], np.uint8).tobytes()} b'\\x07'\n"


RECORDIO = """
import numpy as np

def pack(label):
    return np.asarray(label, np.uint8).tostring()

def pack_img(_):
    return np.array([7], np.uint8).tostring()
"""
