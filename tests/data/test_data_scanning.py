"""Which files of a folder are the data set: each real image once, nothing hidden, the rest counted."""

import os
import random
import shutil
import socket
from pathlib import Path

import pytest
from data_helpers import make_folder, open_folder, refused
from torchvision.datasets.folder import make_dataset

from bench.data.scanning import scan_folder
from bench.data.sources import EXTENSIONS
from bench.errors import DataError


@pytest.fixture
def train(tmp_path):
    """train/ of three classes with eight images each."""
    return make_folder(tmp_path) / "train"


def listed(folder: Path) -> list[str]:
    """'class/.../name' of every image of a scan, in order."""
    source = scan_folder(folder)
    paths = [os.path.relpath(source.where(i), folder) for i in range(len(source))]
    assert [source.class_names[label] for label in source.labels] == [path.split(os.sep)[0] for path in paths]
    return paths


def scan_error(folder: Path) -> str:
    with pytest.raises(DataError) as error:
        scan_folder(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("seed", range(8))
def test_a_healthy_tree_is_listed_as_torchvision_does(tmp_path, seed):
    """Nested folders whose names sort differently as paths and as names ('a', 'a-b', 'a/b'), links to elsewhere."""
    rng = random.Random(seed)
    for number in range(120):
        parts = [rng.choice(("ant", "bee", "bee x")), *rng.choices(("a", "a-b", "B", "b.png", "ä"), k=rng.randrange(4))]
        folder = tmp_path.joinpath("train", *parts)
        folder.mkdir(parents=True, exist_ok=True)
        suffix = rng.choice((*EXTENSIONS, ".JPEG", ".txt"))
        if rng.random() < 0.2:
            target = tmp_path / "elsewhere" / f"{number}{suffix}"
            target.parent.mkdir(exist_ok=True)
            target.touch()
            (folder / f"{rng.random()}{suffix}").symlink_to(target)
        else:
            (folder / f"{rng.random()}{suffix}").touch()
    for name in ("ant", "bee", "bee x"):
        (tmp_path / "pool" / name).mkdir(parents=True)
        (tmp_path / "pool" / name / "1.png").touch()
        (tmp_path / "train" / name / "a-link").symlink_to(tmp_path / "pool" / name)
    (tmp_path / "pool" / "cat").mkdir()
    (tmp_path / "pool" / "cat" / "2.png").touch()
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "pool" / "cat")
    source = scan_folder(tmp_path / "train")
    index = {name: number for number, name in enumerate(("ant", "bee", "bee x", "cat"))}
    expected = make_dataset(str(tmp_path / "train"), index, extensions=EXTENSIONS)
    assert [(source.where(i), int(source.labels[i])) for i in range(len(source))] == expected


HIDDEN = (".ipynb_checkpoints/a.png", ".Trash-0/files/a.png", "__MACOSX/a.png", "deep/.cache/a.png", "._000.jpg",
          "deep/._a.png", "deep/@eaDir/a.jpg/SYNO.jpg", ".hidden.png")  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_names_are_no_images(train, name):
    before = listed(train)
    path = train / "bee" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(train / "bee" / "000.jpg", path)
    assert listed(train) == before
    assert scan_folder(train).left_out.hidden == 1


def test_hidden_names_beside_the_classes_are_no_class(train):
    before = listed(train)
    for name in ("__MACOSX/ant", ".ipynb_checkpoints"):
        (train / name).mkdir(parents=True)
        shutil.copy(train / "ant" / "000.jpg", train / name / "000.jpg")
    shutil.copy(train / "ant" / "000.jpg", train / "._ant.jpg")
    assert listed(train) == before
    assert scan_folder(train).left_out.hidden == 3


def link_to(kind: str, train: Path) -> None:
    if kind == "parent":
        (train / "bee" / "up").symlink_to("..")
    elif kind == "itself":
        (train / "bee" / "self").symlink_to(".")
    elif kind == "root":
        (train / "ant" / "all").symlink_to(train.parent, target_is_directory=True)
    elif kind == "sibling class":  # which comes before the class that the images lie in
        (train / "ant" / "bees").symlink_to(train / "bee")
    elif kind == "file":
        (train / "bee" / "000 again.jpg").symlink_to("000.jpg")
    elif kind == "file, linked first":
        (train / "bee" / "0.jpg").symlink_to("007.jpg")
    elif kind == "hard link":
        os.link(train / "bee" / "003.jpg", train / "bee" / "zzz.jpg")
    elif kind == "two links to one file":
        shutil.copy(train / "bee" / "000.jpg", train.parent / "outside.jpg")
        (train / "bee" / "000.jpg").unlink()
        (train / "bee" / "000.jpg").symlink_to(train.parent / "outside.jpg")
        (train / "bee" / "outside again.jpg").symlink_to(train.parent / "outside.jpg")


@pytest.mark.parametrize("kind", ["parent", "itself", "root", "sibling class", "file", "file, linked first",
                                  "hard link", "two links to one file"])  # fmt: skip
def test_each_real_file_counts_once(train, kind):
    before = listed(train)
    link_to(kind, train)
    assert listed(train) == before
    assert str(scan_folder(train).left_out) == "1 link to images counted elsewhere"


def test_linked_class_folders_are_classes(train, tmp_path):
    before = listed(train)
    (tmp_path / "big").mkdir()
    for name in ("ant", "cat"):
        (train / name).rename(tmp_path / "big" / name)
        (train / name).symlink_to(tmp_path / "big" / name)
    (train / "bee" / "everything").symlink_to(tmp_path / "big")
    assert listed(train) == before


def test_one_folder_under_two_classes_is_refused(train):
    (train / "dog").symlink_to("cat")
    assert f"no images in {train}/dog" in scan_error(train)
    assert "1 link to images counted elsewhere" in scan_error(train)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_one_file_in_two_classes_is_refused(train, link):
    link(train / "cat" / "000.jpg", train / "ant" / "001 a cat.jpg")
    text = scan_error(train)
    assert "is the same file as" in text
    assert f"{train}/cat/000.jpg" in text
    assert f"{train}/ant/001 a cat.jpg" in text


def test_equal_inode_numbers_alone_hide_nothing(train, monkeypatch):
    """Some network file systems give every file of a listing the same number."""
    from bench.data import scanning

    before, entries = listed(train), scanning._entries

    class Entry:
        def __init__(self, entry):
            self.entry, self.name, self.path = entry, entry.name, entry.path
            self.is_dir, self.is_file, self.is_symlink = entry.is_dir, entry.is_file, entry.is_symlink

        def inode(self):
            return 2**32 - 1

    monkeypatch.setattr(scanning, "_entries", lambda folder: [Entry(entry) for entry in entries(folder)])
    assert listed(train) == before


def test_other_files_are_counted_by_extension(train):
    names = ("a.gif", "b.GIF", "c.jfif", "d.avif", "e.heic", "notes.txt", "README")
    for name in names:
        (train / "bee" / name).touch()
    left = scan_folder(train).left_out
    assert str(left) == "2 .gif, 1 without an extension, 1 .avif, 1 .heic, 1 .jfif, 1 .txt"
    assert left.images() == "2 .gif, 1 .avif, 1 .heic, 1 .jfif"


def test_images_of_other_formats_are_a_warning(train, caplog):
    (train / "bee" / "a.gif").touch()
    (train / "bee" / "notes.txt").touch()
    open_folder(train.parent)
    assert [record.getMessage() for record in caplog.records] == [
        f"{train}: images of other formats are not read: 1 .gif"
    ]


def test_a_class_whose_images_are_all_left_out_says_so(train):
    for path in (train / "bee").iterdir():
        path.rename(path.with_suffix(".gif"))
    assert "; left out: 8 .gif" in scan_error(train)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "dangling", "circle", "dangling folder"])
def test_what_cannot_be_an_image_is_refused_by_name(train, kind, monkeypatch):
    path = train / "bee" / ("more" if kind == "dangling folder" else "a.png")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    else:
        path.symlink_to(path.name if kind == "circle" else train / "gone")
    text = scan_error(train)
    assert str(path) in text
    assert {"pipe": "a pipe", "device": "a device", "socket": "a socket", "dangling": "is not there",
            "circle": "in a circle", "dangling folder": "is not there"}[kind] in text  # fmt: skip


def test_a_folder_that_cannot_be_read_is_an_error(train, monkeypatch):
    """torchvision passes over it, and the class is smaller without a word."""
    scandir = os.scandir

    def fail(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (train / "bee" / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", fail)
    assert scan_error(train) == f"cannot read the folder {train}/bee/locked: Permission denied"


def test_odd_class_names_make_one_line(tmp_path):
    make_folder(tmp_path, classes=("ant", "two\nlines", "h\udcfcte", "\x1b[31mred"))
    text = refused(DataError, name="image_folder", root=str(tmp_path), num_classes=3)
    assert text == "data.num_classes says 3 classes, but there are 4"
    for name in ("two\nlines", "h\udcfcte", "\x1b[31mred"):
        shutil.rmtree(tmp_path / "val" / name)
    text = refused(DataError, name="image_folder", root=str(tmp_path))
    assert text.endswith(r"are not those of train: 3 missing (\x1b[31mred, h\xfcte, two\nlines)")
