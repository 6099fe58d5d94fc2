"""Files that are opened as what they are, and never through a link."""

from __future__ import annotations

import os
import socket

import pytest

from harness.files import make_folder, open_regular, read_regular, replace_file, special_entries

MODES = ("rb", "r+b", "ab", "a+b", "xb")


def plant(path, kind, elsewhere):
    """Something at a path that is not a file of its own."""
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "dangling":
        path.symlink_to(elsewhere.with_name("absent"))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/full")
    elif kind == "socket":
        here = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")  # a path of a test is too long for a socket
        os.close(here)
    elif kind == "folder":
        path.mkdir()


PLANTED = {
    "link": "is a symbolic link",
    "dangling": "is a symbolic link",
    "fifo": "is a FIFO",
    "device": "is a symbolic link",
    "socket": "is a socket",
    "folder": "Is a directory",
}


@pytest.fixture(params=PLANTED)
def planted(request, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    path = tmp_path / "place"
    plant(path, request.param, elsewhere)
    yield path, PLANTED[request.param]
    assert elsewhere.read_bytes() == b"mine"
    assert not (tmp_path / "absent").exists()
    assert {entry.name for entry in tmp_path.iterdir()} <= {"elsewhere", "place"}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_a_file_is_opened(planted, mode):
    path, said = planted
    with pytest.raises(OSError, match=said):
        open_regular(path, mode)


def test_nothing_but_a_file_is_read_or_replaced(planted):
    path, said = planted
    with pytest.raises(OSError, match=said):
        read_regular(path)
    with pytest.raises(OSError, match=said):
        replace_file(path, "new")


def test_a_folder_must_be_one_itself(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    make_folder(tmp_path / "there")
    make_folder(tmp_path / "new")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(OSError, match="is a symbolic link, not a folder"):
        make_folder(tmp_path / "link")


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a"
    replace_file(path, "é")
    assert path.read_bytes() == "é".encode()
    replace_file(path, b"\x00" * 10, force=True)
    assert path.read_bytes() == bytes(10)
    (tmp_path / "closed").mkdir()
    with pytest.raises(OSError, match="No such file"):
        replace_file(tmp_path / "absent" / "a", "x")
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["a", "closed"]


def test_a_link_planted_under_the_temporary_name_is_not_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "a"
    victim.write_text("mine")
    path.with_name(f".writing-a-{os.getpid()}").symlink_to(victim)
    replace_file(path, "x")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("mine", "x", False)


def test_a_file_that_is_longer_than_wanted_is_not_read(tmp_path):
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="has 1099511627776 bytes; at most 10 are read"):
        read_regular(path, 10)


def test_modes(tmp_path):
    path = tmp_path / "a"
    for mode in ("rb", "r+b"):
        with pytest.raises(FileNotFoundError):
            open_regular(path, mode)
    with open_regular(path, "ab") as file:
        file.write(b"12")
    with open_regular(path, "a+b") as file:
        file.write(b"3")
        file.seek(0)
        assert file.read() == b"123"
    with pytest.raises(FileExistsError):
        open_regular(path, "xb")
    with open_regular(path, "r+b") as file:
        file.truncate(1)
    assert read_regular(path) == b"1"
    with open_regular(path) as file:
        assert os.get_inheritable(file.fileno()) is False


def test_a_second_name_of_ones_own_file_is_a_file_and_of_anothers_is_not(tmp_path, monkeypatch):
    """`cp -al` makes backups of that kind; a link to another user's file is a trap."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1")
    second.hardlink_to(first)
    assert read_regular(second) == b"1"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(OSError, match="second name of another user's file"):
        open_regular(second, "ab")


def test_what_is_special_in_a_folder_is_found_at_any_depth(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "link").symlink_to("/")
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "mine").symlink_to("/")
    found = {(path.name, what) for path, what in special_entries(tmp_path, lambda path: path.name != "mine")}
    assert found == {("link", "a symbolic link"), ("pipe", "a FIFO")}
