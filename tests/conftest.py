"""What all tests share: guards against things left behind, jobs with a time limit, the real data if they are there."""

from __future__ import annotations

import base64
import gc
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.files import replace_file
from tests.jobs.counter import JobCounter

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("HARNESS_DATA", ROOT.parent / "shared" / "data"))

# settled before MXNet is imported by any test: the number of threads is part of the bits
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred jobs would compile the same modules


THOROUGH = os.environ.get("HARNESS_THOROUGH") == "1"
CLIENT = ROOT / "tests/jobs/client.py"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}  # of every job
# a PNG of one pixel
DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR4nGP4DwQACfsD/fteaysAAAAASUVORK5CYII=")
STARTING = {"fork_server", "launch"}  # fixtures of tests that start jobs
WITHOUT_HOROVOD = "" if find_spec("horovod") else "Horovod is not installed (WITH_HOROVOD=0)"


class _NoBridge:
    """Where there is no torch, what imports it is not collected; `tests/launch/test_bridge_command.py` says so."""

    def pytest_ignore_collect(self, collection_path):
        is_bridge = any(collection_path.is_relative_to(ROOT / name) for name in ("harness/bridge", "tests/bridge"))
        return True if is_bridge else None


def pytest_configure(config):
    config.pluginmanager.register(JobCounter(), "jobs")
    if find_spec("torch") is None:
        config.pluginmanager.register(_NoBridge(), "without torch")
    config.addinivalue_line("markers", "thorough: is run by `make thorough` alone (HARNESS_THOROUGH=1)")
    config.addinivalue_line("markers", "horovod: needs Horovod without starting horovodrun, which needs no mark")
    config.addinivalue_line("markers", "long: is begun first; a test or file of ten seconds or more")


def pytest_collection_modifyitems(config, items):
    """Leave out what `make thorough` alone runs, and begin with what takes long.

    One worker of pytest-xdist waits for jobs while the others run the many short tests, and then take over what the
    first has not begun; a long test at the end would have no other beside it.
    """
    for item in items:
        if WITHOUT_HOROVOD and item.get_closest_marker("horovod"):
            item.add_marker(pytest.mark.skip(reason=WITHOUT_HOROVOD))
    if not THOROUGH:
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: (item.get_closest_marker("long") is None, STARTING.isdisjoint(item.fixturenames)))


def launched_by(launcher: str, np: int) -> list[str]:
    """The words that start `np` ranks; `--gloo` saves horovodrun the second in which it asks what Horovod has.

    A test that wants to start `horovodrun` where there is no Horovod is skipped here.
    """
    if launcher == "horovodrun" and WITHOUT_HOROVOD:
        pytest.skip(WITHOUT_HOROVOD)
    options = ["--gloo"] if launcher == "horovodrun" else []
    return [str(Path(sys.executable).with_name(launcher)), *options, "-np", str(np)]


def job_of(arguments: Sequence[object], np: int | None, launcher: str = "horovodrun", fresh: bool = False) -> list[str]:
    """The command of a job on `np` ranks, or (None) of one process; forked by the server, or fresh processes.

    What starts it gives it the `environ` of the fork server.
    """
    python = [sys.executable] if fresh else [sys.executable, "-I", "-S", str(CLIENT)]
    launch = [] if np is None else launched_by(launcher, np)
    if launch and launcher == "horovodrun" and not fresh:
        launch = [*python, *launch]  # it is a Python program as well
    return [*launch, *python, *map(str, arguments)]


def signal_handlers() -> dict[signal.Signals, object]:
    """Of all but SIGCHLD, which PyTorch handles from its first loader with workers on."""
    return {number: signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGCHLD}}


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """A test that leaks a thread, a handler of a signal or an environment variable fails.

    Some libraries set a variable when they are first used. A signal that is ignored here is ignored by every process
    that later tests start.
    """
    threads, environ, handlers = set(threading.enumerate()), dict(os.environ), signal_handlers()
    yield
    leaked = set(threading.enumerate()) - threads
    for thread in leaked:
        thread.join(5)  # one that was told to end, which nobody has waited for
    leaked = {thread for thread in leaked if thread.is_alive()}
    assert not leaked, f"left running: {leaked}"
    changed = {key for key in environ.keys() | os.environ.keys() if environ.get(key) != os.environ.get(key)}
    # the last three are of OpenCV, PyTorch and tensorboardX
    changed -= {"PYTEST_CURRENT_TEST", "LD_LIBRARY_PATH", "TORCHINDUCTOR_CACHE_DIR", "CRC32C_SW_MODE"}
    assert not changed, f"environment variables left changed: {changed}"
    assert signal_handlers() == handlers, "handlers of signals left changed"


@pytest.fixture
def _handlers_put_back():
    """For a test whose hooks replace handlers of signals where no guard puts them back."""
    handlers = signal_handlers()
    yield
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _pictures_are_not_drawn():
    """Runs and finders write one dot in place of each picture, which takes longer to draw than most tests train.

    What is drawn is tested in `tests/report`, whose fixture `drawn` has the finders' pictures.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.report.plan_files.plot_plan", lambda plan, path, title: replace_file(path, DOT))
        for page in ("finder", "across"):
            patch.setattr(f"harness.report.{page}.as_png", lambda figure: DOT)
        yield


@pytest.fixture
def shared_data():
    """The folder with real data sets, or a skip."""

    def folder(name: str) -> str:
        if not (SHARED / name).is_dir():
            pytest.skip(f"no {SHARED / name}; set HARNESS_DATA to the folder that has {name}")
        return str(SHARED / name)

    return folder


class Ended(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capfd):
    """Run the `main` of a command in this process, from the project's folder."""

    def run(script, *arguments, cwd=ROOT):
        monkeypatch.chdir(cwd)
        module = importlib.import_module(f"harness.cli.{script}")
        monkeypatch.setattr(sys, "argv", [f"launch/{script}.py", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capfd.readouterr()
        try:
            code = module.main()
        except SystemExit as leaving:
            code = leaving.code
        return Ended(code, *capfd.readouterr())

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return run


@pytest.fixture
def here(command):
    """As `start` on one process, but in this one: a second less, and nothing of how a process starts or ends."""

    def run(script: str, *arguments: object, exit_code: int | None = 0, cwd: Path = ROOT):
        ended = command(Path(script).stem, *arguments, cwd=cwd)
        if ended.code:  # what an error has kept alive holds locks of folders, which end with a process
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
        assert exit_code in (None, ended.code), f"{ended.out[-4000:]}\n{ended.err[-4000:]}"
        return subprocess.CompletedProcess([script, *arguments], ended.code, ended.out, ended.err)

    return run


class ForkServer:
    """A process that has everything imported, and forks one for each job (see `tests/jobs/server.py`)."""

    def __init__(self, process: subprocess.Popen, address: str) -> None:
        self.process, self.address = process, address

    @property
    def environ(self) -> dict[str, str]:
        """What `job_of` needs in its environment."""
        return {**ENVIRONMENT, "FORK_SERVER": self.address}

    def num_jobs(self) -> int:
        """How many forked processes there are; tests run one after the other, so they are of the test that asks."""
        pid = self.process.pid
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.fixture(scope="session")
def fork_server():
    """The server of this session, or of this worker of pytest-xdist."""
    with tempfile.TemporaryDirectory(prefix="harness-jobs-") as folder:
        address = os.path.join(folder, "socket")
        server = subprocess.Popen(
            [sys.executable, "tests/jobs/server.py", address],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        while not os.path.exists(address):
            assert server.poll() is None, "the server that forks jobs has ended"
            time.sleep(0.01)
        yield ForkServer(server, address)
        server.stdin.close()
        server.wait(timeout=60)


@pytest.fixture(scope="session")
def start(fork_server):
    """Run a program of the project, on `np` ranks under a launcher or (np=None) as one plain process.

    The processes are forked from one that has everything imported; `fresh=True` starts ordinary ones, for what is about
    start-up itself. The whole process group is killed at the time limit, and what was printed is shown when the exit
    code is unexpected.
    """

    def run(
        *arguments: object,
        np: int | None = None,
        launcher: str = "horovodrun",
        timeout_s: float = 300,
        exit_code: int | None = 0,
        cwd: Path = ROOT,
        fresh: bool = False,
        **environ: str,
    ):
        command = job_of(arguments, np, launcher, fresh)
        environment = {**os.environ, **fork_server.environ, **environ}
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"no end after {timeout_s} s: {' '.join(command)}\n{out[-4000:]}\n{err[-4000:]}")
        if exit_code is not None and process.returncode != exit_code:
            pytest.fail(f"exit code {process.returncode}: {' '.join(command)}\n{out[-4000:]}\n{err[-4000:]}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


@pytest.fixture
def launch(request, here):
    """`here` for a command on one process, and `start` for ranks, for other programs, and for what needs a process."""

    def run(script: object, *arguments: object, np: int | None = None, **how: Any):
        if np is None and how.keys() <= {"exit_code", "cwd"} and str(script).startswith("launch/"):
            return here(script, *arguments, **how)
        return request.getfixturevalue("start")(script, *arguments, np=np, **how)

    return run
