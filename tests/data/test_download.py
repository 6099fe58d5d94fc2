from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import multiprocessing
import random
import tarfile
import threading

import pytest

from harness.data import cifar, count_samples, idx, load
from harness.data.download import Remote, download, extract
from harness.errors import DataError


def digest(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A web server on this machine: its folder, its URL, and the paths it was asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path_factory.mktemp("server")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    httpd.daemon_threads = False  # so that closing it waits for those that still answer
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}/", asked
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_missing_files_of_mnist_are_fetched_once(tmp_path, mnist_folder, server, monkeypatch):
    folder, url, asked = server
    mnist_folder()
    digests = {path.name: digest(path.read_bytes()) for path in tmp_path.iterdir()}
    for path in list(tmp_path.iterdir()):
        path.rename(folder / path.name)
    monkeypatch.setitem(idx.REMOTES, "mnist", Remote(url, digests))
    root = tmp_path / "new" / "folder"
    assert len(load("mnist", root=str(root), download=True).train) == 20
    assert sorted(path.name for path in root.iterdir()) == sorted(digests)
    assert len(asked) == 4
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    load("mnist", root=str(root), download=True)
    assert asked[4:] == ["/t10k-labels-idx1-ubyte.gz"]
    load("mnist", root=str(root))


def test_the_archive_of_cifar10_is_fetched_and_unpacked(tmp_path, write_cifar, server, monkeypatch):
    folder, url, asked = server
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for number, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
            write_cifar(name, 2, number)
            tar.add(tmp_path / name, f"cifar-10-batches-bin/{name}")
        escaping = tarfile.TarInfo("../escaped")
        tar.addfile(escaping, io.BytesIO())
    remote = Remote(url, {"cifar-10-binary.tar.gz": digest((folder / "cifar-10-binary.tar.gz").read_bytes())})
    monkeypatch.setitem(cifar.REMOTES, "cifar10", remote)
    root = tmp_path / "new"
    assert count_samples("cifar10", root=str(root), download=True).official
    for _ in range(2):
        assert len(load("cifar10", root=str(root), download=True).train) == 10
    assert asked == ["/cifar-10-binary.tar.gz"]
    assert len(list((root / "cifar-10-batches-bin").iterdir())) == 6
    assert not (tmp_path / "escaped").exists()
    assert count_samples("cifar10", root=str(root)).train == 10


def test_an_archive_without_a_member(tmp_path, server, monkeypatch):
    folder, url, _ = server
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz"):
        pass
    remote = Remote(url, {"cifar-10-binary.tar.gz": digest((folder / "cifar-10-binary.tar.gz").read_bytes())})
    monkeypatch.setitem(cifar.REMOTES, "cifar10", remote)
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: cannot be unpacked .*remove it and start again"):
        load("cifar10", root=str(tmp_path), download=True)


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_member_that_is_not_a_file_is_refused(tmp_path, kind):
    archive, member = tmp_path / "archive.tar.gz", "folder/data.bin"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo(member)
        entry.type = kind
        entry.linkname = member  # a link to itself, which tarfile would follow for ever
        tar.addfile(entry)
    with pytest.raises(DataError, match=rf"^{archive}: {member} is not a file; remove the archive and start again"):
        extract(archive, [member], tmp_path)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("place", [3, 12, 40, 60, 90, -9, -3])
def test_a_damaged_archive_is_one_message(tmp_path, place):
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("data.bin")
        entry.size = 100_000
        tar.addfile(entry, io.BytesIO(random.Random(0).randbytes(entry.size)))
    content = archive.read_bytes()
    for damaged in (content[:place], content[:place] + b"\xff" * 2 + content[place:][2:]):
        archive.write_bytes(damaged)
        with contextlib.suppress(DataError):
            extract(archive, ["data.bin"], tmp_path)
            assert (tmp_path / "data.bin").stat().st_size == 100_000


def test_a_file_with_another_digest_is_not_kept(tmp_path, server):
    folder, url, _ = server
    (folder / "file").write_bytes(b"not this")
    with pytest.raises(DataError, match=f"{url}file could not be downloaded to {tmp_path} .*(?s:.*)its digest is md5:"):
        download(Remote(url, {"file": digest(b"this")}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_server_does_not_have(tmp_path, server):
    with pytest.raises(DataError, match="404"):
        download(Remote(server[1], {"absent": digest(b"")}), tmp_path)


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(idx.REMOTES, "mnist", Remote("http://127.0.0.1:9/", idx.REMOTES["mnist"].digests))
    with pytest.raises(DataError) as error:
        load("mnist", root=str(tmp_path), download=True)
    text = str(error.value)
    assert text.startswith("data.download: http://127.0.0.1:9/train-images-idx3-ubyte.gz could not be downloaded")
    assert "(its digest is md5:f68b3c2dcbeaaa9fbdd348bbdeb94873), and put it there or into the folder" in text
    assert not list(tmp_path.iterdir())


def test_ranks_may_fetch_at_once(tmp_path, server):
    folder, url, _ = server
    content = bytes(range(256)) * 20_000
    (folder / "file").write_bytes(content)
    remote = Remote(url, {"file": digest(content)})
    ranks = [multiprocessing.get_context("spawn").Process(target=download, args=(remote, tmp_path)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "npy"])
def test_a_download_is_offered_where_there_is_one(tmp_path, name):
    with pytest.raises(DataError, match="not found in") as caught:
        load(name, root=str(tmp_path))
    assert ("set `data.download: true`" in str(caught.value)) == (name != "npy")
