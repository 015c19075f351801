"""The fingerprint of a data set: what changes it, what does not, and in which words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_helpers import make_folder

from bench.config.schema import Data
from bench.data import fingerprint as module
from bench.data import open_data
from bench.data.fingerprint import Fingerprint, read_fingerprint, take_fingerprint
from bench.errors import DataError


def look(root: Path, **more: bool) -> Fingerprint:
    return take_fingerprint(Data(name="image_folder", root=str(root)), **more)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "data")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def change(root: Path, how: str) -> None:
    bee, cat = root / "train" / "bee", root / "val" / "cat"
    if how == "one image more":
        shutil.copy(cat / "000.jpg", cat / "zz.jpg")
    elif how == "one image less":
        (bee / "000.jpg").unlink()
    elif how == "a byte":
        flip_a_bit(cat / "001.jpg")
    elif how == "a longer file":
        (bee / "001.jpg").write_bytes((bee / "001.jpg").read_bytes() + b"more")
    elif how == "two images of different classes exchanged":
        one, other = cat / "001.jpg", root / "val" / "bee" / "001.jpg"
        held = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(held)
    elif how == "labels permuted":
        for part in ("train", "val"):
            for name in ("ant", "bee"):
                (root / part / name).rename(root / part / f"was-{name}")
            (root / part / "was-ant").rename(root / part / "bee")
            (root / part / "was-bee").rename(root / part / "ant")
    elif how == "a name":
        (bee / "000.jpg").rename(bee / "new.jpg")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("one image more", "test part: 13 images instead of 12"),
        ("one image less", "training part: 23 images instead of 24"),
        ("a byte", "test part: the same names with other contents"),
        ("a longer file", "training part: the same names with other contents"),
        ("two images of different classes exchanged", "test part: the same images with other labels"),
        ("labels permuted", "both parts: the same images with other labels"),
        ("a name", "training part: other file names"),
    ],
)
def test_every_change_is_noticed_and_named(root: Path, how: str, words: str) -> None:
    before = look(root)
    change(root, how)
    now = look(root)
    assert now.difference(before) == words
    train, test = "train" in words or "both" in words, "test" in words or "both" in words
    assert (now.train.digest != before.train.digest, now.test.digest != before.test.digest) == (train, test)


def test_places_and_times_do_not_count(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = look(root)
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    moved = Path(shutil.move(root, tmp_path / "elsewhere"))
    assert look(moved) == before
    monkeypatch.chdir(tmp_path)
    assert look(Path("elsewhere")) == before
    opened = open_data(Data(name="image_folder", root=str(moved), val_size=6))
    assert take_fingerprint(Data(name="image_folder", root=str(moved)), sources=opened.sources) == before
    assert read_fingerprint(before.model_dump(mode="json")) == before


def test_large_folders_are_read_only_when_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest, and so the address of what is trained, does not depend on whether it was asked."""
    small = look(root)
    monkeypatch.setattr(module, "SMALL", small.test.bytes)  # the training part is larger
    before, verified = look(root), look(root, verify=True)
    assert before.train.content == "" != before.test.content == small.test.content
    assert (verified.train.digest, verified.test.digest) == (before.train.digest, before.test.digest)
    assert verified.train.verified == small.train.content
    flip_a_bit(root / "train" / "ant" / "003.jpg")
    assert look(root).difference(before) == look(root).difference(verified) == ""
    assert look(root, verify=True).difference(before) == ""  # which does not know
    assert look(root, verify=True).difference(verified) == "training part: the same names with other contents"
    change(root, "a longer file")
    assert look(root).difference(before) == "training part: the same names with other contents"


def test_a_label_that_only_a_file_of_annotations_says(tmp_path: Path) -> None:
    """Tiny ImageNet as its archive has it: all validation images lie in one folder."""
    root = make_folder(tmp_path)
    lines = []
    for label in ("ant", "bee", "cat"):
        for path in sorted((root / "val" / label).iterdir()):
            (root / "val" / "images").mkdir(exist_ok=True)
            path.rename(root / "val" / "images" / f"{label}_{path.name}")
            lines.append(f"{label}_{path.name}\t{label}\t0\t0\t1\t1")
        (root / "val" / label).rmdir()
    data = Data(name="image_folder", root=str(root))
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("\n".join(lines))
    before = take_fingerprint(data)
    annotations.write_text("\n".join([lines[0].replace("\tant", "\tbee"), *lines[1:]]))
    assert take_fingerprint(data).difference(before) == "test part: the same images with other labels"


@pytest.mark.parametrize("name", ["synthetic", "fashion_mnist_mini"])
def test_sets_without_files_are_always_the_same(name: str) -> None:
    found = take_fingerprint(Data(name=name))
    bundle = open_data(Data(name=name))
    assert take_fingerprint(Data(name=name), sources=bundle.sources) == found
    assert (found.train.images, found.test.images) == tuple(len(source) for source in bundle.sources)
    assert found.train.digest != found.test.digest
    bundle.sources[1].labels[0] += 1
    assert take_fingerprint(Data(name=name), sources=bundle.sources).difference(found) == (
        "test part: the same names with other contents"
    )


def test_known_sets_are_known_by_the_bytes_of_their_files(tmp_path: Path) -> None:
    """Which are not opened as images for it."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(f"{part} {kind}".encode() * 9)
    data = Data(name="fashion_mnist", root=str(tmp_path))
    before = take_fingerprint(data)
    assert (before.train.images, before.test.images) == (60_000, 10_000)
    flip_a_bit(raw / "t10k-labels-idx1-ubyte")
    assert take_fingerprint(data).difference(before) == "test part: the same names with other contents"
    shutil.move(tmp_path / "FashionMNIST", tmp_path / "fashion_mnist" / "FashionMNIST")
    flip_a_bit(tmp_path / "fashion_mnist" / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte")
    assert take_fingerprint(data) == before


def test_a_split_file_is_known_by_its_indices(tmp_path: Path) -> None:
    paths = []
    for size in (100, 700):
        path = open_data(Data(name="synthetic", val_size=size)).save_split(tmp_path)
        paths.append(path.rename(tmp_path / f"{size}.npz"))
    one, other = (take_fingerprint(Data(name="synthetic", split_file=str(path))) for path in paths)
    assert other.difference(one) == "data.split_file: another split"
    assert other.difference(take_fingerprint(Data(name="synthetic"))) == ""  # there the configuration differs
    with np.load(paths[0]) as arrays:
        np.savez(tmp_path / "packed-otherwise.npz", **arrays)
    again = take_fingerprint(Data(name="synthetic", split_file=str(tmp_path / "packed-otherwise.npz")))
    assert again == one


def test_what_goes_away_while_it_is_looked_at_is_named(root: Path) -> None:
    data = Data(name="image_folder", root=str(root), val_size=6)
    sources = open_data(data).sources
    (root / "train" / "ant" / "002.jpg").unlink()
    with pytest.raises(DataError, match=r"cannot read .*train/ant/002\.jpg: No such file"):
        take_fingerprint(data, sources=sources)


@pytest.mark.parametrize("value", [None, {}, {"train": 3}, "text", {"train": {}, "test": {}, "split_file": None}])
def test_what_is_no_fingerprint_is_none(value: object) -> None:
    assert read_fingerprint(value) is None


def test_no_torch_is_imported_for_it() -> None:
    import subprocess
    import sys

    code = "import sys, bench.data.fingerprint, bench.launch.same_data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
