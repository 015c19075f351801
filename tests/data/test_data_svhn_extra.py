"""SVHN's train and extra parts as one training set."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from bench.config.load import load_config
from bench.config.schema import Data
from bench.data import DATASETS, missing_files, open_data
from bench.data.prepare import prepare
from bench.errors import DataError

COUNTS = {"train": 60, "extra": 90, "test": 40}
DAMAGED = "is damaged (wrong checksum)"


def _write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """A .mat file; where scipy is not installed, what the stand-in for its reader reads."""
    try:
        from scipy.io import savemat
    except ImportError:
        with open(path, "wb") as file:
            np.savez(file, X=np.asfortranarray(images), y=labels)
    else:
        savemat(path, {"X": images, "y": labels})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small parts whose images say where they come from: pixel [1, 3, 5] is the image's number in its part."""
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: (Path(self.root) / self.filename).is_file())
    small = replace(DATASETS["svhn_extra"], train_count=COUNTS["train"] + COUNTS["extra"], test_count=COUNTS["test"])
    monkeypatch.setitem(DATASETS, "svhn_extra", small)
    monkeypatch.delenv("BENCH_DATA_ROOT", raising=False)
    try:
        import scipy.io  # noqa: F401
    except ImportError:
        stand_in = types.ModuleType("scipy.io")
        stand_in.loadmat = lambda path: dict(np.load(path))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "scipy", types.ModuleType("scipy"))
        monkeypatch.setitem(sys.modules, "scipy.io", stand_in)
        monkeypatch.setattr(sys.modules["scipy"], "io", stand_in, raising=False)
    for number, (part, count) in enumerate(COUNTS.items()):
        images = np.full((32, 32, 3, count), number, np.uint8)
        images[3, 5, 1, :] = np.arange(count)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]  # 1 ... 10, and 10 stands for the digit 0
        _write(tmp_path / f"{part}_32x32.mat", images, labels)
    return tmp_path


def _refused(**data: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_data(Data(name="svhn_extra", **data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_complete_set_is_train_and_extra() -> None:
    info, plain = DATASETS["svhn_extra"], DATASETS["svhn"]
    assert info.train_count == (plain.train_count or 0) + 531_131 == 604_388
    assert (info.test_count, info.mean, info.std, info.hflip_prob) == (plain.test_count, plain.mean, plain.std, 0)


def test_train_then_extra_in_file_order(root: Path) -> None:
    bundle = open_data(Data(name="svhn_extra", root=str(root)), protocol="published")
    assert bundle.counts == {"train": 150, "val": 0, "test": 40}
    train, test = bundle._sources["train"], bundle._sources["test"]
    assert train.data.shape == (150, 3, 32, 32)
    assert train.data.flags.c_contiguous
    assert train.data[:, 1, 3, 5].tolist() == [*range(60), *range(90)]
    assert train.data[:, 0, 0, 0].tolist() == [0] * 60 + [1] * 90
    assert test.data[:, 0, 0, 0].tolist() == [2] * 40
    assert train.labels[:12].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert train.labels[60:].tolist() == train.labels[:90].tolist()
    assert np.array_equal(train.pixels(32)[60:], train.data[60:])


def test_the_validation_part_comes_from_both(root: Path) -> None:
    split = open_data(Data(name="svhn_extra", root=str(root), val_size=30)).split
    assert split.counts == {"train": 120, "val": 30, "test": 40}
    assert 0 < (split.val < 60).sum() < 30


def test_a_missing_extra_part_is_named(root: Path) -> None:
    (root / "extra_32x32.mat").unlink()
    assert missing_files("svhn_extra", root) == [str(root / "extra_32x32.mat")]
    assert missing_files("svhn", root) == []
    text = _refused(root=str(root))
    assert "extra_32x32.mat" in text
    assert "bench data svhn_extra --download" in text


def test_a_wrong_number_of_images_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "svhn_extra", replace(DATASETS["svhn_extra"], train_count=151))
    assert "has 150 train images and 150 labels instead of 151" in _refused(root=str(root))


def test_a_damaged_extra_part_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    known = {part: (url, name, hashlib.md5((root / name).read_bytes()).hexdigest())
             for part, (url, name, _) in datasets.SVHN.split_list.items()}  # fmt: skip
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    (root / "extra_32x32.mat").write_bytes(b"x")
    text = _refused(root=str(root))
    assert "extra_32x32.mat" in text
    assert DAMAGED in text


def test_without_scipy_the_extra_to_install_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert "install depthbench[svhn]" in _refused(root=str(root))


def test_bench_data_counts_both(root: Path) -> None:
    lines = "\n".join(prepare("svhn_extra", root, download=False))
    assert "train: 150 images, 15 to 15 a class" in lines
    assert "test: 40 images" in lines


@pytest.mark.parametrize("depth", [74, 110, 152])
def test_the_published_comparisons_train_on_it(repo_root: Path, depth: int) -> None:
    loaded = load_config(repo_root / "configs" / "skipnet" / f"svhn_resnet{depth}.yaml")
    assert loaded.comparison.data.name == "svhn_extra"
    recipe = loaded.comparison.recipe
    assert (recipe.train_crop, recipe.hflip_prob) == ("none", 0.0)  # no augmentation
