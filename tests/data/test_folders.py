"""Folders of pictures: a class for each, as im2rec numbers them, or a list."""

from __future__ import annotations

import os
import re

import pytest

from harness.data.folders import listed_file, listed_folder
from harness.errors import DataError


def filled(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def said(action):
    with pytest.raises(DataError) as found:
        action()
    return str(found.value)


def test_a_listing_tells_the_same_pictures_from_others_wherever_they_are(tmp_path):
    listed = tmp_path / "a.lst"

    def listing(*lines):
        listed.write_text("".join(f"{line}\n" for line in lines))
        return listed_file(tmp_path, listed).listing()

    first = listing("7\t2\tb/1.jpg", "3\t0\ta/1.jpg")
    assert listing("3\t0\ta/1.jpg", "7\t2\tb/1.jpg") == first, "in which order they stand does not matter"
    others = [listing("7\t1\tb/1.jpg", "3\t0\ta/1.jpg"), listing("7\t2\tb/2.jpg", "3\t0\ta/1.jpg")]
    others += [listing("3\t2\tb/1.jpg", "7\t0\ta/1.jpg"), listing("3\t0\ta/1.jpg")]
    assert len({first, *others}) == 5
    one, other = (listed_folder(filled(tmp_path / name, "x/1.jpg", "y/2.jpg")).listing() for name in ("here", "there"))
    assert one == other


def test_a_folder_is_a_class_in_sorted_order(tmp_path):
    found = listed_folder(filled(tmp_path, "b/2.jpg", "b/1.PNG", "a/9.jpeg", "c/readme.txt", "b/10.webp", "a/x.gif"))
    assert found.classes == ("a", "b")
    assert tuple(found.names) == ("a/9.jpeg", "b/1.PNG", "b/10.webp", "b/2.jpg")
    assert found.labels.tolist() == [[0], [1], [1], [1]]
    content, labels = found.read(1)
    assert (bytes(content), labels.tolist()) == (b"b/1.PNG", [1])


def test_folders_within_folders_are_classes_of_their_own_as_for_im2rec(tmp_path):
    found = listed_folder(filled(tmp_path, "b/1.jpg", "a/y/1.jpg", "a/x/1.jpg", "a/1.jpg"))
    assert found.classes == ("a", "a/x", "a/y", "b")


def test_class_names_order_the_classes_and_leave_others_out(tmp_path):
    filled(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg")
    names = tmp_path / "names.txt"
    names.write_text("c\na\n")
    found = listed_folder(tmp_path, names)
    assert (found.classes, tuple(found.names)) == (("c", "a"), ("c/1.jpg", "a/1.jpg"))
    names.write_text("c\nd\n")
    assert f"{names}: there is no picture in {tmp_path / 'd'}" in said(lambda: listed_folder(tmp_path, names))
    names.write_text("c\na\nc\n")
    assert said(lambda: listed_folder(tmp_path, names)) == f"{names}: c is there twice; remove one"
    names.write_text("\n")
    assert said(lambda: listed_folder(tmp_path, names)) == f"{names}: is empty"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), "has no picture; allowed: a folder for each class, with files ending in .jpg, .jpeg, .png, .webp"),
        (("a/1.txt",), "has no picture"),
        (("1.jpg", "a/2.jpg"), "1.jpg lies beside the folders of classes; move it into one, or give a list"),
    ],
)
def test_a_folder_without_classes_is_refused(tmp_path, paths, message):
    filled(tmp_path, *paths)
    assert f"{tmp_path}: {message}" in said(lambda: listed_folder(tmp_path))


def test_a_list_is_read_in_the_order_of_its_keys(tmp_path):
    listed = tmp_path / "a.lst"
    listed.write_text("7\t2.5\t1\tb/1.jpg\n3\t0\t-4\ta b/1.jpg\n")
    found = listed_file(tmp_path, listed)
    assert tuple(found.names) == ("a b/1.jpg", "b/1.jpg")
    assert found.labels.tolist() == [[0, -4], [2.5, 1]]
    assert found.classes is None
    assert re.match(rf"{tmp_path}/a b/1.jpg: cannot be read \(No such file", said(lambda: found.read(0)))


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        ("1\ta.jpg\n", 1, "one or more"),
        ("1\t0\ta.jpg\n1\t0\tb.jpg\n", 2, "1"),
        ("5\t0\ta.jpg\n\n4\t0\tb.jpg\n5\t0\tc.jpg\n4\t0\td.jpg\n", 4, "1"),
        ("1\t0\ta\0.jpg\n", 1, "1"),
        ("99999999999999999999\t0\ta.jpg\n", 1, "one or more"),
        ("1\t0\ta.jpg\n2\t0\t1\tb.jpg\n", 2, "1"),
        ("x\t0\ta.jpg\n", 1, "one or more"),
        ("1\tcat\ta.jpg\n", 1, "one or more"),
        ("a.jpg\n", 1, "one or more"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, text, line, wanted):
    listed = tmp_path / "a.lst"
    listed.write_text(text)
    found = said(lambda: listed_file(tmp_path, listed))
    assert found.startswith(f"{listed}, line {line}: found ")
    assert found.endswith(f"allowed: a key that no other line has, {wanted} numbers, and a path, between tabs")


def test_a_held_out_set_has_the_numbers_of_the_training_set(tmp_path):
    train = listed_folder(filled(tmp_path / "train", "circle/1.jpg", "square/1.jpg", "star/1.jpg"))
    held_out = listed_folder(filled(tmp_path / "val", "star/7.jpg", "circle/8.jpg"), of_training=train.classes)
    assert held_out.classes == train.classes
    assert dict(zip(held_out.names, held_out.labels[:, 0], strict=True)) == {"circle/8.jpg": 0, "star/7.jpg": 2}
    names = tmp_path / "names.txt"
    names.write_text("star\nsquare\ncircle\n")
    ordered = listed_folder(tmp_path / "train", names)
    by_names = listed_folder(tmp_path / "val", names, ordered.classes)
    assert dict(zip(by_names.names, by_names.labels[:, 0], strict=True)) == {"star/7.jpg": 0, "circle/8.jpg": 2}
    filled(tmp_path / "val", "triangle/1.jpg")
    assert said(lambda: listed_folder(tmp_path / "val", of_training=train.classes)) == (
        f"{tmp_path}/val/triangle: the training set has no pictures of a class 'triangle'; remove the folder, or add "
        "some there. Its classes number those of every set"
    )
    (tmp_path / "empty").mkdir()
    assert "has no picture" in said(lambda: listed_folder(tmp_path / "empty", of_training=train.classes))


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    filled(tmp_path, "a/1.jpg", "b/1.jpg")
    plain = os.scandir

    def refusing(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", refusing)
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    expected = f"{tmp_path}/b: cannot be read (Permission denied); no folder is left out"
    assert said(lambda: listed_folder(tmp_path)) == expected
    assert said(lambda: listed_folder(tmp_path, names)) == expected
