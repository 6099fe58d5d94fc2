"""Imports everything that a job needs, then forks a process for each job that a client asks for: SOCKET.

A forked process is a program like any other: it has its own arguments, environment, folder and files, draws random
numbers of its own, and ends like any Python: its threads and exit functions come first, then libraries unload. It
differs from a fresh one in four points: the modules are imported, hashes of strings are those of the server, its parent
in `/proc` is the server, and where it ends well or by `sys.exit` its objects are not freed one by one, which would copy
every page that it shares with the server. What it spawns through `multiprocessing` is forked from the server too:
horovodrun spawns one process for each rank, which would import Horovod again. Every job writes the same picture as
`plan.png`, `curve.png` and `scaling.png`, which take longer to draw than most jobs train. A job whose environment is
read when modules are imported (the number of threads, for example), or whose PYTHONPATH has other modules under names
that are imported already, is refused, and becomes an ordinary process.

mpirun kills all ranks as soon as one has failed. Ordinary ones that end at the same time have ended by then; so that
clients have as well, the code of a rank that failed is held back until the other ranks have ended, at most for
`HELD_S`, and what started them is stopped until all their clients have ended.

Ends when its standard input does.
"""

import array
import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib.util
import json
import multiprocessing.spawn
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import struct
import sys
import tempfile
import time
import types
from contextlib import suppress
from pathlib import Path

READ_AT_IMPORT = ("OMP_", "KMP_", "GOMP_", "MXNET_", "MKL", "DNNL_", "ONEDNN_", "DMLC_", "PYTHON", "LD_", "MALLOC_")
PDEATHSIG = 1  # of prctl(2)
SPAWNED = "--multiprocessing-fork"  # in the arguments of what `multiprocessing` spawns
NOT_IMPORTED = ("harness.comm.smoke", "harness.hooks.mlflow", "harness.hooks.wandb")  # whose packages are extras
HELD_S = 5.0  # at most, for the other ranks to end
HIGH = 500  # numbers of files from here on are in nobody's way
LIBRARIES = ("matplotlib.backends.backend_agg", "mxnet", "horovod.mxnet", "horovod.runner.launch")
# of `make clients`; most of what its jobs would do is import these
LIBRARIES += ("gluoncv.model_zoo", "gluonnlp", "gluonts.mx", "sockeye.model")


def import_all():
    """Every module of the harness, and what they import late."""
    import harness

    for name in LIBRARIES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:  # Horovod need not be installed
            importlib.import_module(name)
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        # torch ends the process with a segmentation fault if Horovod has been imported before it
        if module.name not in NOT_IMPORTED and not module.name.startswith("harness.bridge"):
            importlib.import_module(module.name)


def draw_once():
    """A plan and a page: fonts are found, templates compiled, and what they import late is imported.

    What a run asks of its code and packages is found once as well.
    """
    from harness.config import load_config
    from harness.files import replace_file
    from harness.folder.event_file import import_tensorboardx
    from harness.plan import LRPlan, Sizes
    from harness.report import across, finder, plan_files, write_plan, write_run_report
    from harness.versions import code_of, versions

    versions()
    code_of({})
    import_tensorboardx()
    importlib.import_module("tensorboardX.event_file_writer")
    importlib.import_module("tensorboardX.summary")
    config = load_config("configs/digits.yaml")
    sizes = Sizes.of(config.train, num_samples=1437, shards=1, batch_size=config.batch.size)
    with tempfile.TemporaryDirectory() as folder:
        write_plan(Path(folder), config, LRPlan(config.lr, sizes), ())
        write_run_report(Path(folder))
        picture = (Path(folder) / "plan.png").read_bytes()
    plan_files.plot_plan = lambda plan, path, title: replace_file(path, picture)
    finder.as_png = across.as_png = lambda figure: picture


def early(environ):
    """The variables that are read when modules are imported; PYTHONPATH is read by the forked process again."""
    return {key: value for key, value in environ.items() if key.startswith(READ_AT_IMPORT) and key != "PYTHONPATH"}


def python_path(environ, cwd):
    """The folders of PYTHONPATH, of which an empty one is the current folder."""
    told = environ.get("PYTHONPATH")
    return [os.path.abspath(os.path.join(cwd, folder)) for folder in told.split(os.pathsep)] if told else []


BEGAN_WITH = early(os.environ)  # modules may change it for processes that they start, as OpenCV's does
OWN_PATH = python_path(os.environ, os.getcwd())


def is_imported_from_elsewhere(folder):
    """Whether a job that finds this folder first would import other modules than those that are imported already."""
    try:
        names = {name.partition(".")[0] for name in os.listdir(folder)}
    except OSError:
        return False
    files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name in names]
    others = [file for file in files if file is not None and not file.startswith(f"{folder}{os.sep}")]
    return bool(others or names & {"sitecustomize", "usercustomize"})


def can_be_forked(job):
    """Whether an ordinary process with this environment would have the modules that are imported here."""
    path = python_path(job["environ"], job["cwd"])
    if early(job["environ"]) != BEGAN_WITH or not set(OWN_PATH) <= set(path):
        return False
    return not any(is_imported_from_elsewhere(folder) for folder in path)


def receive(connection):
    """The job that a client asks for, and its files; the client is on this machine and sends at once."""
    size = array.array("i").itemsize
    head, rights, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(250 * size))
    files = array.array("i")
    for _, _, content in rights:
        files.frombytes(content[: len(content) - len(content) % size])
    (length,) = struct.unpack("!I", head)
    message = b""
    while len(message) < length:
        message += connection.recv(length - len(message))
    return json.loads(message), list(files)


class Server:
    """Forks, and stands between the forked processes and their clients."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.ready = selectors.DefaultSelector()
        self.ready.register(self.listener, selectors.EVENT_READ, self.accept)
        self.ready.register(0, selectors.EVENT_READ, lambda: sys.exit(0))
        self.clients = {}  # by process
        self.ranks = {}  # the process of mpirun that started each of its ranks
        self.held = []  # ranks that have failed: when to tell it at the latest, by whom it was started, whom, and what

    def serve(self):
        """The job, in a forked process; the server itself never returns."""
        while True:
            for key, _ in self.ready.select(HELD_S if self.held else None):
                job = key.data()
                if job is not None:
                    return job
            self.release()

    def accept(self):
        connection, _ = self.listener.accept()
        try:
            job, files = receive(connection)
        except (OSError, ValueError, struct.error):
            connection.close()
            return None
        if not can_be_forked(job):
            connection.send(b"n")
            connection.close()
            for file in files:
                os.close(file)
            return None
        connection.send(b"y")
        pid = os.fork()
        if pid == 0:
            self.forget()
            connection.detach()
            become(job, files)
            return job
        for file in files:
            os.close(file)
        self.clients[pid] = connection
        if "PMI_RANK" in job["environ"]:
            self.ranks[pid] = job["parent"]
        watched = os.pidfd_open(pid)
        self.ready.register(watched, selectors.EVENT_READ, lambda: self.ended(pid, watched))
        self.ready.register(connection, selectors.EVENT_READ, lambda: self.forward(pid, connection))
        return None

    def forward(self, pid, connection):
        """Send the process what its client has received; kill it when that is gone."""
        if pid not in self.clients:  # it has ended in the same moment
            return
        try:
            received = connection.recv(64)
        except OSError:
            received = b""
        if not received:
            self.ready.unregister(connection)
        for number in received or [signal.SIGKILL]:
            os.kill(pid, number)  # still there, if only as a zombie: `ended` has not been called

    def ended(self, pid, watched):
        self.ready.unregister(watched)
        os.close(watched)
        connection = self.clients.pop(pid)
        _, status = os.waitpid(pid, 0)
        if connection in self.ready.get_map():
            self.ready.unregister(connection)
        code, started_by = os.waitstatus_to_exitcode(status), self.ranks.pop(pid, None)
        is_held = code > 0 and started_by in self.ranks.values()
        self.held.append((time.monotonic() + HELD_S * is_held, started_by, connection, code))

    def release(self):
        """Tell the clients whose processes have ended, but for those that are to wait for other ranks."""
        now, running = time.monotonic(), set(self.ranks.values())
        due = [one for one in self.held if now >= one[0] or one[1] not in running]
        self.held = [one for one in self.held if one not in due]
        launchers = {one[1] for one in due if one[0] > now}  # of ranks that have waited for each other
        with stopped(launchers):
            for _, _, connection, code in due:
                with suppress(OSError):  # the client has gone
                    connection.send(struct.pack("!i", code))
            for _, launcher, connection, _ in due:
                if launcher in launchers:
                    connection.settimeout(HELD_S)
                    with suppress(OSError):
                        connection.recv(64)  # until the client has ended
                connection.close()

    def forget(self):
        """In a forked process: close all that is the server's."""
        self.ready.close()
        self.listener.detach()
        for connection in (*self.clients.values(), *(one[2] for one in self.held)):
            connection.detach()


@contextlib.contextmanager
def stopped(pids):
    """Have these processes wait."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def become(job, files):
    """Take over a job's files, environment and folder."""
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if SPAWNED not in job["arguments"]:  # of those, horovodrun's make sessions of their own, which works only once
        os.setsid()
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, HIGH) for file in files]
    os.closerange(0, HIGH)
    for source, number in zip(moved, job["files"], strict=True):
        os.dup2(source, number, inheritable=True)
    os.closerange(HIGH, max(moved, default=HIGH) + 1)
    os.environ.clear()
    os.environ.update(job["environ"])
    os.chdir(job["cwd"])
    path = dict.fromkeys(python_path(job["environ"], job["cwd"]))
    sys.path[1:] = [*path, *(folder for folder in sys.path[1:] if folder not in path)]
    os.sched_setaffinity(0, job["cpus"])
    os.getppid = lambda: job["parent"]  # of the client: the launcher
    import numpy

    random.seed()
    numpy.random.seed()


def fork_what_is_spawned():
    """Let processes that `multiprocessing` spawns be clients of the server, as this one's own client is."""
    client = [sys.executable, "-I", "-S", str(Path(__file__).resolve().with_name("client.py"))]
    command_line = multiprocessing.spawn.get_command_line

    def of_client(**handles):
        words = command_line(**handles)
        return client + words[words.index("-c") :]

    multiprocessing.spawn.get_command_line = of_client


def run(arguments):
    """Do what `python ARGUMENTS` does, for a script, a module (`-m`) and code (`-c`)."""
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[0] = ""
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), vars(main))
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


class End:
    """Ends a job whose code is known, once all else that is due at an exit has been done."""

    def __init__(self):
        self.code, self.is_launcher = None, False
        atexit.register(self.leave)  # before any other, to be called last

    def leave(self):
        if self.code is not None:
            with suppress(OSError, ValueError):  # a stream that is closed or broken: Python itself says so, and goes on
                sys.stdout.flush()
                sys.stderr.flush()
                if self.is_launcher:  # an ordinary one has not loaded MXNet, which takes a third of its time to unload
                    os._exit(self.code)
                ctypes.PyDLL(None).exit(self.code)  # with what C libraries have registered; other threads stay blocked

    def of(self, arguments):
        """Run the job; an exception is left to Python."""
        self.is_launcher = SPAWNED in arguments or os.path.basename(arguments[0]) == "horovodrun"
        try:
            run(arguments)
        except SystemExit as leaving:
            if leaving.code is None or isinstance(leaving.code, int):
                self.code = (leaving.code or 0) & 0xFF
            raise
        self.code = 0


if __name__ == "__main__":
    end = End()
    import_all()
    draw_once()
    server = Server(sys.argv[1])
    fork_what_is_spawned()
    gc.freeze()
    end.of(server.serve()["arguments"])
