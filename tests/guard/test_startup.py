"""Before ranks have any connection: who has started, who has not, and how a job ends whose ranks do not connect."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.causes import Cause
from harness.comm import Launch
from harness.comm.launcher_store import LauncherStore
from harness.guard.missing import JOINING, current_code, explain_missing
from harness.guard.registry import Entry, NoRegistry
from harness.guard.registry_files import FileRegistry
from harness.guard.registry_server import ServerRegistry
from harness.guard.startup import open_registry
from harness.processes import began
from tests.conftest import job_of

ROOT = Path(__file__).parents[2]
TWO = Launch("mpirun (MPICH)", 0, 2, 0, 2)
FOUR_ON_TWO_HOSTS = Launch("mpirun (MPICH)", 0, 4, 0, 2)


def entry(rank, activity=JOINING, pid=None):
    found = Entry.of_this_process(rank, activity)
    return found if pid is None else replace(found, pid=pid)


@pytest.fixture
def child():
    """Another process, with an entry on it; it is stopped when the test says so."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield process
    process.kill()
    process.wait()


def entry_of(process, rank, activity=JOINING):
    return replace(entry(rank, activity), pid=process.pid, began=began(process.pid))


def test_a_rank_that_left_no_note_has_not_come():
    assert explain_missing(TWO, {}, entry(0), sees_all_hosts=False) == "rank 1 has not started"
    five = Launch("horovodrun", 0, 5, 0, 1)
    assert explain_missing(five, {3: entry(3)}, entry(0), sees_all_hosts=True) == "ranks 1, 2, 4 have not started"


def test_of_other_hosts_only_what_is_true_is_said():
    said = explain_missing(FOUR_ON_TWO_HOSTS, {}, entry(0), sees_all_hosts=False)
    assert said == "1 of the 2 ranks of this host have not started"
    said = explain_missing(FOUR_ON_TWO_HOSTS, {1: entry(1)}, entry(0), sees_all_hosts=False)
    assert said == "all 2 ranks of this host have started; a rank of another host has not"
    assert "it is unknown which" in explain_missing(TWO, None, entry(0), sees_all_hosts=False)


def test_a_rank_that_is_stopped_has_ended_or_is_busy_is_named_with_its_place(child):
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    said = explain_missing(TWO, {1: entry_of(child, 1, "the beginning, x.py:3 (f)")}, entry(0), sees_all_hosts=False)
    assert f"rank 1 (pid {child.pid} on" in said
    assert "is stopped (SIGSTOP, a debugger), at the beginning, x.py:3 (f)" in said
    gone = entry_of(child, 1)
    child.kill()
    child.wait()
    assert "has ended, last at" in explain_missing(TWO, {1: gone}, entry(0), sees_all_hosts=False)
    other = replace(entry(1), began=1)  # the id is another process's by now
    assert "has ended" in explain_missing(TWO, {1: other}, entry(0), sees_all_hosts=False)
    busy = entry(1, f"{JOINING}, importing mxnet")
    assert "still at joining the other ranks, importing mxnet" in explain_missing(
        TWO, {1: busy}, entry(0), sees_all_hosts=False
    )
    assert "do not find each other" in explain_missing(TWO, {1: entry(1)}, entry(0), sees_all_hosts=False)


def test_where_a_thread_is(tmp_path, monkeypatch):
    (tmp_path / "imported_by_a_test.py").write_text("from tests.guard.test_startup import look\nlook()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import imported_by_a_test

    assert imported_by_a_test.look.seen == "importing imported_by_a_test"
    assert current_code(sys._getframe()).endswith("(test_where_a_thread_is)")


def look():
    look.seen = current_code(sys._getframe())


def test_entries_in_a_folder_of_this_user(tmp_path, monkeypatch):
    files, other = (FileRegistry(tmp_path / "own" / "job") for _ in range(2))
    assert files.entries() == {}
    files.register(entry(0))
    other.register(entry(1, "here"))
    other.register(entry(1, "there"))
    assert {rank: found.activity for rank, found in files.entries().items()} == {0: JOINING, 1: "there"}
    for damage in (
        b"",
        b"{",
        b"[" * 9000,
        b"null",
        b'{"rank": 3}',
        json.dumps({**vars(entry(3)), "pid": "x"}).encode(),
    ):
        (tmp_path / "own" / "job" / "rank-3").write_bytes(damage)
        assert sorted(files.entries()) == [0, 1]
    assert files.failure() is None
    assert other.fail(Cause("rank 0 has not started", 7))
    assert not files.fail(Cause("me too", 3))
    assert files.failure() == Cause("rank 0 has not started", 7)
    files.clear()
    assert not (tmp_path / "own" / "job").exists()


def test_the_last_rank_to_unregister_leaves_nothing(tmp_path):
    ranks = [FileRegistry(tmp_path / "own" / "job") for _ in range(2)]
    for rank, files in enumerate(ranks):
        files.register(entry(rank))
    for rank, files in enumerate(ranks):
        files.unregister(rank)
    assert list((tmp_path / "own").iterdir()) == []


def test_a_folder_that_somebody_else_has_planted_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    planted = tmp_path / f"harness-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    planted.symlink_to(tmp_path / "elsewhere")
    assert isinstance(open_registry(TWO, {}), NoRegistry)
    planted.unlink()
    planted.mkdir()
    planted.chmod(0o777)
    assert isinstance(open_registry(TWO, {}), NoRegistry)
    planted.chmod(0o700)
    assert isinstance(open_registry(TWO, {}), FileRegistry)


def test_what_jobs_left_that_were_killed_is_swept_away(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    base = tmp_path / f"harness-{os.getuid()}"
    open_registry(TWO, {}).register(entry(0))
    (own,) = base.iterdir()
    namespace, pid, ticks = own.name.split("-")
    (base / f"{namespace}-{pid}-{int(ticks) + 1}").mkdir()
    (base / f"another-{pid}-1").mkdir()  # of a container that shares the folder
    open_registry(TWO, {})
    assert sorted(path.name for path in base.iterdir()) == sorted([own.name, f"another-{pid}-1"])


@pytest.fixture
def server():
    """What Horovod's launcher has: a store of keys and values over HTTP."""
    kept = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, code, body=b""):
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer(*((200, kept[self.path]) if self.path in kept else (404, b"")))

        def do_PUT(self):
            kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(200)

        def do_DELETE(self):
            kept.pop(self.path, None)
            self.answer(200)

        def log_message(self, *arguments):
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield httpd.server_address[1], kept
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_entries_at_horovodruns_server_are_seen_on_every_host(server):
    port, kept = server
    launch = Launch("horovodrun", 1, 3, 0, 1)
    store = open_registry(
        launch, {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port)}
    )
    assert isinstance(store, ServerRegistry)
    assert store.entries() == {}
    store.register(replace(entry(2), host="another host"))
    assert explain_missing(launch, store.entries(), entry(1), sees_all_hosts=True) == "rank 0 has not started"
    assert store.fail(Cause("rank 0 has not started", 7))
    assert store.failure() == Cause("rank 0 has not started", 7)
    assert not store.fail(Cause("another", 7))
    store.unregister(2)
    assert sorted(kept) == ["/harness/claim", "/harness/failure"]


def test_of_ranks_that_fail_together_one_has_the_word(server):
    port, _ = server
    together = threading.Barrier(6)

    def fail(rank):
        together.wait()
        time.sleep(0.05 * (rank % 2))  # three at once, and three before anybody has the word
        return ServerRegistry(LauncherStore("127.0.0.1", port, "harness"), 6).fail(Cause(f"rank {rank}", 7))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(fail, range(6))) == 1


def test_if_the_one_that_has_the_word_ends_another_tells_its_cause(server, monkeypatch):
    port, kept = server
    store = ServerRegistry(LauncherStore("127.0.0.1", port, "harness"), 2)

    def sleep(seconds):
        kept["/harness/claim"] = b"of one that has been killed"

    monkeypatch.setattr("harness.guard.registry_server.time.sleep", sleep)
    assert store.fail(Cause("rank 1", 7))
    assert store.failure() == Cause("rank 1", 7)


def test_a_server_that_does_not_answer_keeps_nobody():
    store = ServerRegistry(LauncherStore("127.0.0.1", 1, "harness"), 2)
    store.register(entry(0))
    assert store.entries() is None
    assert store.failure() is None
    assert store.fail(Cause("x", 7))
    assert isinstance(open_registry(Launch("horovodrun", 0, 2), {}), NoRegistry)
    assert isinstance(open_registry(Launch(), {}), NoRegistry)


@pytest.mark.parametrize(
    ("launcher", "fault", "said"),
    [
        ("mpirun", "absent:1", "rank 1 has not started"),
        (
            "mpirun",
            "early:1",
            "rank 1 has not started; rank 0 .* at joining the other ranks, importing (mpi4py|mxnet)",
        ),
        ("horovodrun", "absent:0", "rank 0 has not started"),
        ("mpirun", "frozen:1", r"rank 1 \(pid \d+ on .*\) is stopped \(SIGSTOP"),
        ("mpirun", "import:0", r"rank 0 \(pid \d+ on .*\) has started but is still at .*importing (mpi4py|mxnet)"),
    ],
)
def test_a_job_that_does_not_come_together_ends_by_name(start, tmp_path, launcher, fault, said):
    within_s = 2 if fault.startswith("absent") else 4  # the others need some time for what is to be seen of them
    settings = ("--set", f"guard.stall_after_start_s={within_s}", "--set", f"output={tmp_path}")
    done = start(
        *("tests/programs/absent_rank.py", fault, *settings),
        np=2,
        launcher=launcher,
        exit_code=7 if launcher == "mpirun" else 1,
        timeout_s=60,
    )
    lines = [line for line in done.stderr.splitlines() if f"were not connected within {within_s} s" in line]
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines[0]


def test_the_supervisor_hears_of_it_and_starts_again(start, tmp_path):
    settings = ("--set", "guard.stall_after_start_s=2", "--set", f"output={tmp_path}")
    ranks = job_of(["tests/programs/absent_rank.py", "absent:1", *settings], 2, "mpirun")
    done = start("launch/supervise.py", "--pause", "0", "--at-most", "1", "--", *ranks, exit_code=7, timeout_s=90)
    said = "supervise: exit code 7: the ranks were not connected within 2 s: rank 1 has not started"
    assert done.stderr.count(said) == 2


def test_the_supervisor_ends_a_job_of_which_no_rank_has_come(start):
    """A launcher that hangs: nothing of the job has told that it is there."""
    options = ("--pause", "0", "--at-most", "1", "--start", "0.5")
    program = (sys.executable, "-c", "import time; time.sleep(600)")
    done = start("launch/supervise.py", *options, "--", *program, exit_code=7, timeout_s=60)
    assert done.stderr.count("exit code 7: no rank has started within 0.5 s") == 2


def test_the_supervisor_does_not_end_a_job_whose_rank_has_come(start):
    program = "import os, pathlib, time; pathlib.Path(os.environ['HARNESS_JOB'], 'rank-0.pid').touch(); time.sleep(1.5)"
    options = ("--at-most", "0", "--start", "0.5")
    done = start("launch/supervise.py", *options, "--", sys.executable, "-c", program, exit_code=1)
    assert "no outcome" in done.stderr
    for wrong in ("0", "-1", "nan"):
        assert "--start" in start("launch/supervise.py", "--start", wrong, "--", "true", exit_code=2).stderr


@pytest.mark.horovod
def test_a_configuration_that_one_rank_cannot_read_is_2_whatever_world_the_others_join(start, tmp_path):
    (tmp_path / "bad.yaml").write_text("nonsense: 3\n")
    options = ("--set", "comm=horovod", "--set", "guard.stall_after_start_s=30", "--set", f"output={tmp_path}")
    files = ("configs/digits.yaml", tmp_path / "bad.yaml")
    done = start("tests/programs/other_config.py", *files, "--", *options, np=2, launcher="mpirun", exit_code=2)
    assert "rank 1: " in done.stderr
    assert "nonsense: unknown key" in done.stderr
