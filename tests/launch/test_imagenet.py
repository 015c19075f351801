"""The ImageNet file as it is, on real photographs: ten classes of Tiny-ImageNet in ImageNet's layout."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest
from quick import bench

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "imagenet_resnet50.yaml"

#: Only epochs, batch, subset, workers, image size and device may differ from the file.
OVERRIDES = [
    "runs.*.recipe.epochs=1", "runs.*.recipe.batch_size=16", "recipe.workers=2",
    "data.train_subset=48", "data.val_subset=16", "data.test_subset=40",
    "runs.*.recipe.train_crop_size=64", "runs.*.recipe.val_resize_size=72", "runs.*.recipe.val_crop_size=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = shared_dir / "data" / "tiny_imagenet" / "tiny_imagenet_10.tar.xz"
    if not archive.is_file():
        pytest.skip("needs tiny_imagenet_10.tar.xz of the shared data")
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run(["tar", "xJf", str(archive), "-C", str(folder)], check=True)
    return folder / "tiny_imagenet_10"


def _arguments(tiny: Path, *runs: str) -> list[str]:
    only = [part for run in runs for part in ("--only", run)]
    settings = [part for setting in OVERRIDES for part in ("--set", setting)]
    return [str(CONFIG), "--data-root", str(tiny), "--device", "cpu", *only, *settings]


def test_check_passes_on_the_right_layout(tiny: Path) -> None:
    done = bench("check", *_arguments(tiny, "resnet50"))
    assert done.returncode == 0, done.stderr
    assert "all good" in done.stdout
    assert "10 of its 1000 classes" in done.stderr


def test_the_very_same_file_runs_on_real_photographs(tiny: Path, tmp_path: Path) -> None:
    done = bench("run", *_arguments(tiny, "resnet50"), "--out", tmp_path / "out", timeout=500)
    assert done.returncode == 0, done.stderr
    # one epoch is too short for the warm-up of a run that --only leaves out: it does not stop the one that is asked for
    assert "run 'adn-resnet50-v2' is left out of the tables: " in done.stderr
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    (row,) = csv.DictReader((folder / "rows.csv").open())
    assert row["dataset"] == "imagenet (10 classes)"
    assert row["n"] == "40"
    assert row["amp"] == "bf16"
    assert json.loads((folder / "status.json").read_text())["counts"] == {"train": 48, "val": 16, "test": 40}


@pytest.mark.slow
def test_one_run_of_every_method_in_the_file(tiny: Path, tmp_path: Path) -> None:
    from bench.config.load import load_config

    first: dict[str, str] = {}
    for run in load_config(CONFIG).comparison.runs:
        first.setdefault(run.method, run.name)
    done = bench("run", *_arguments(tiny, *first.values()), "--out", tmp_path / "out", timeout=3000)
    assert done.returncode == 0, done.stderr
