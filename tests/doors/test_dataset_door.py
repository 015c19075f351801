"""A data set of another package is used by its name; a broken one costs one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from plugin import make_package, on_path

from bench.cli import main
from bench.config.schema import Data
from bench.data import open_data
from bench.data.catalog import DATASETS, dataset_info
from bench.data.fingerprint import take_fingerprint
from bench.errors import ConfigError, DataError

PAGE = (Path(__file__).resolve().parents[2] / "docs/adding-a-dataset.md").read_text()
SCANS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)[0]
ENTRY = {"bench.datasets": {"scans": "scans:SCANS"}}

#: What is wrong with what it says of itself, and what is said of that.
BROKEN = {
    "raises": ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
    "kind": ("SCANS = {}", "is not a bench.data.DatasetInfo"),
    "name": (SCANS.replace('name="scans"', 'name="scan"'), "its name is 'scan', not that of its entry point"),
    "no open": (SCANS.replace(", open=open_scans", ""), "open must be a function"),
    "std": (SCANS.replace("std=(0.25,", "std=(0.0,"), "std must be positive"),
    "mean": (SCANS.replace("mean=(0.5,", "mean=(float('nan'),"), "mean must be three numbers"),
    "classes": (SCANS.replace("num_classes=2", "num_classes=1"), "num_classes must be a whole number from 2 on"),
    "files": (SCANS.replace('files=("scans.npz",)', 'files=("../x",)'), "files must be a tuple of paths below"),
    "lines": (SCANS.replace("herbarium.", "her\\nbarium."), "licence must be one line"),
    "download": (SCANS.replace("open=", "download=True, open="), "download must be False"),
}  # fmt: skip
#: What is wrong with what it opens.
OPENS = {
    "raises": ("    return [][1]", "open raised IndexError: list index out of range"),
    "none": ("    return None", "open must return training and test images, not NoneType"),
    "kind": ("    return (1, 2)", "the training images: must be a bench.data.sources.ArraySource"),
    "label": ('    return (ArraySource("a", file["train_images"], file["train_labels"] + 1, names),) * 2',
              "the training images: a label is not the number of one of 2 classes"),
    "length": ('    return (ArraySource("a", file["train_images"][1:], file["train_labels"], names),) * 2',
               "there are 63 images, but 64 labels"),
    "dtype": ('    return (ArraySource("a", file["train_images"] / 2, file["train_labels"], names),) * 2',
              "data must be uint8"),
    "names": ('    x, y = file["train_images"], file["train_labels"]\n'
              '    x = [ArraySource("a", x, y, n) for n in (names, names[::-1])]\n'
              "    return tuple(x)", "training and test images have other class names"),
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 64), ("test", 32)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 2
    (tmp_path / "root").mkdir()
    np.savez(tmp_path / "root/scans.npz", **arrays)
    return tmp_path / "root"


@pytest.fixture
def scans(tmp_path: Path) -> Iterator[None]:
    with on_path(make_package(tmp_path / "site", "my_data", ENTRY, scans=SCANS)):
        yield


@pytest.mark.usefixtures("scans")
def test_a_data_set_of_another_package_is_used_by_its_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "datasets"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "scans: Scans of leaves, 32x32, healthy or ill. (2 classes)"
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: c\ndata: {name: scans, val_size: 16}\ndevice: cpu\nrecipe: {epochs: 1, batch_size: 16}\n"
        "runs: [{name: r, method: resnet, options: {depth: 8}}]\n"
    )
    assert main(["check", str(config)]) == 2
    assert "put there: scans.npz, in ROOT or ROOT/scans" in capsys.readouterr().err
    assert main(["data", "scans", "--data-root", str(root)]) == 0
    assert "train: 64 images, 32 to 32 a class" in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["run", str(config), "--data-root", str(root), "--out", str(out), "--in-process", "--quiet",
                 "--no-report"]) == 0  # fmt: skip
    (rows,) = out.glob("runs/*/rows.csv")
    assert ",scans," in rows.read_text()


@pytest.mark.usefixtures("scans")
def test_its_images_have_a_fingerprint(root: Path) -> None:
    data = Data(name="scans", root=str(root), val_size=16)
    first = take_fingerprint(data)
    assert first.train.digest != first.test.digest
    arrays = dict(np.load(root / "scans.npz"))
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez(root / "scans.npz", **arrays)
    second = take_fingerprint(data)
    assert second.train.digest == first.train.digest
    assert second.test.digest != first.test.digest


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_one_line_and_stops_nobody(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = BROKEN[kind]
    with on_path(make_package(tmp_path / "site", "my_data", ENTRY, scans=text)):
        assert main(["list", "datasets"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(DATASETS) + 1
        assert lines[-1].startswith("scans: data.name: data set 'scans' (scans:SCANS): ")
        assert words in lines[-1]
        with pytest.raises(ConfigError, match=re.escape(words)):
            dataset_info("scans")
        assert dataset_info("cifar10").num_classes == 10


@pytest.mark.parametrize("kind", OPENS)
def test_what_it_opens_is_looked_at(kind: str, root: Path, tmp_path: Path) -> None:
    lines, words = OPENS[kind]
    text = SCANS.replace("    return tuple(", lines + "\n    return tuple(")
    with on_path(make_package(tmp_path / "site", "my_data", ENTRY, scans=text)), pytest.raises(DataError) as caught:
        open_data(Data(name="scans", root=str(root), val_size=16))
    assert str(caught.value).startswith("data set 'scans': ")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_ours_cannot_be_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"bench.datasets": {"cifar10": "scans:SCANS"}}
    with on_path(make_package(tmp_path / "site", "my_data", entry, scans=SCANS)):
        assert dataset_info("cifar10") is DATASETS["cifar10"]
        assert main(["list", "datasets"]) == 0
    assert "depthbench has one of this name" in capsys.readouterr().out.splitlines()[-1]
