"""A lock that one process at a time holds, and what the others are told of it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest

from harness.locks import FileLock, HeldError, holder_of, lock_of_name

HOLDER = """
import sys, pathlib
from harness.locks import FileLock
lock = FileLock(pathlib.Path(sys.argv[1]))
lock.acquire(*sys.argv[2:])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock `tmp_path/lock`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock"), "some process", "a word"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_holder_is_told(tmp_path, holder):
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(HeldError) as caught:
        lock.acquire()
    assert caught.value.owner == f"some process {holder.pid} on {socket.gethostname()}"
    assert holder_of(lock.path).note == "a word"
    holder.kill()
    holder.wait()
    assert holder_of(lock.path) is None
    lock.acquire()
    assert lock.is_held
    lock.release(remove=True)
    assert not lock.path.exists()
    assert holder_of(lock.path) is None


@pytest.mark.parametrize(
    "text", ["process {dead} on {host}\n\n", "process {alive} on {host}\n\n", "\x00" * 99, "", "{"]
)
def test_what_a_lock_file_says_is_believed_only_of_who_holds_it(tmp_path, text):
    """A killed run leaves its words behind; the holder that comes next may not have written its own yet."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "lock"
    path.write_text(
        text.replace("{dead}", str(ended.pid)).replace("{alive}", "1").replace("{host}", socket.gethostname())
    )
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(HeldError) as caught:
            FileLock(path).acquire()
    assert caught.value.owner == "another process"
    lock = FileLock(path)
    lock.acquire()
    lock.release()


def test_another_host_is_believed(tmp_path):
    path = tmp_path / "lock"
    path.write_text("process 7 on elsewhere.example\n\n")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(HeldError) as caught:
            FileLock(path).acquire()
    assert caught.value.owner == "process 7 on elsewhere.example"


def test_a_file_that_was_removed_while_it_was_waited_for_is_no_lock(tmp_path, monkeypatch):
    """The last holder removes the file after this one has opened it: the name leads to another file, or none."""
    path, flock, tries = tmp_path / "lock", fcntl.flock, []

    def flock_late(file, operation):
        if not tries:
            path.unlink()
        tries.append(operation)
        flock(file, operation)

    monkeypatch.setattr("harness.locks.fcntl.flock", flock_late)
    lock, other = FileLock(path), FileLock(path)
    lock.acquire()
    assert len(tries) == 2
    with pytest.raises(HeldError):
        other.acquire()
    lock.release()


def test_a_lock_is_not_taken_through_a_link(tmp_path):
    path = tmp_path / "lock"
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="is a symbolic link"):
        FileLock(path).acquire()
    assert not (tmp_path / "victim").exists()
    assert holder_of(path) is None


def test_without_locks_a_living_process_of_this_host_keeps_others_out(tmp_path, holder, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("harness.locks.fcntl.flock", no_locks)
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(HeldError, match=str(holder.pid)):
        lock.acquire()
    holder.kill()
    holder.wait()
    lock.acquire()
    assert not lock.is_real
    lock.release()
    lock.acquire()  # its own words are not another's
    lock.release(remove=True)


def test_a_disk_that_fails_is_no_file_system_without_locks(tmp_path, monkeypatch):
    def fails(file, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("harness.locks.fcntl.flock", fails)
    with pytest.raises(OSError, match="Input/output"):
        FileLock(tmp_path / "lock").acquire()


def test_the_lock_of_a_name_lies_beside_it(tmp_path):
    assert lock_of_name(tmp_path / "run").path == tmp_path / ".run.lock"
