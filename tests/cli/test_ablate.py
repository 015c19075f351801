"""``bench ablate``: the list of combinations, the runs, the table of effects; the same file under ``bench run``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bench.cli import main

CONFIG = """\
name: tiny
data: {name: synthetic, val_size: 32, train_subset: 64, test_subset: 64}
recipe: {epochs: 1, batch_size: 32, lr: 0.05}
device: cpu
threads: 1
runs:
  - {name: resnet8, label: ResNet-8, method: resnet, options: {depth: 8, width: 8}}
"""
ABLATION = """\
ablation:
  axes:
    width: {key: options.width, values: [8, 6]}
    norm:
      batch: {}
      group: {options.norm.kind: group, options.norm.gn_num_groups: 8}
      wrong: {options.norm.kind: group, options.norm.momentum: 0.5}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG + ABLATION)
    return path


def test_a_dry_run_lists_the_combinations(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", str(config), "--dry-run", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "resnet8-width=6-norm=group" in out
    assert "width 6, norm group" in out
    assert "skipped: impossible: options" in out
    assert "resnet8-width=6-norm=group  width 6, norm group  (skipped: impossible: " in out  # only the network says so
    assert "6 combinations of 1 runs, 3 of them impossible" in out
    assert not (tmp_path / "out").exists()


def test_the_combinations_are_run_and_their_effects_told(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the options refuse is skipped, and so is what the network refuses: 8 groups of 6 channels."""
    out = tmp_path / "out"
    assert main(["ablate", str(config), "--out", str(out), "--in-process", "--quiet", "--no-report"]) == 0
    printed = capsys.readouterr().out
    assert "95 % normal interval over test images: these trained networks on new images" in printed
    assert "impossible" in printed
    with (out / "runs.csv").open() as file:
        statuses = {row["run"]: row for row in csv.DictReader(file)}
    assert [name for name, row in statuses.items() if row["status"] == "done"] == [
        "resnet8", "resnet8-norm=group", "resnet8-width=6"]  # fmt: skip
    assert {row["status"] for row in statuses.values()} == {"done", "skipped"}
    assert "momentum" in statuses["resnet8-norm=wrong"]["reason"]
    assert "6" in statuses["resnet8-width=6-norm=group"]["reason"]
    with (out / "effects.csv").open() as file:
        rows = {(row["axis"], row["level"]): row for row in csv.DictReader(file) if row["kind"] == "main"}
    assert {key: row["status"] for key, row in rows.items()} == {
        ("width", "6"): "done", ("norm", "group"): "done", ("norm", "wrong"): "skipped"}  # fmt: skip
    assert float(rows["width", "6"]["macs_percent"]) < -30
    assert float(rows["norm", "group"]["macs_percent"]) == 0
    stored = json.loads((out / "comparison.json").read_text())
    (section,) = stored["ablation"]["sections"]
    assert section == {"design": "grid", "axes": {"width": ["8", "6"], "norm": ["batch", "group", "wrong"]},
                       "base": {"width": "8", "norm": "batch"}}  # fmt: skip
    assert stored["runs"][1]["factors"] == {"width": "8", "norm": "group"}
    assert stored["runs"][1]["base"] == "resnet8"

    # `bench run` finds the same runs, all of them done; so does the resolved file
    for file in (config, out / "config.yaml"):
        assert main(["run", str(file), "--out", str(out), "--in-process", "--no-report"]) == 0
        again = capsys.readouterr().err
        assert again.count("already done") == 3
        assert again.count("skipped") == 3


def test_check_says_what_is_skipped(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(config)]) == 0
    out = capsys.readouterr().out
    assert "skipped        resnet8-norm=wrong: impossible: options" in out
    assert "skipped        resnet8-width=6-norm=group: impossible: " in out
    assert "all good" in out


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(CONFIG)
    assert main(["ablate", str(plain)]) == 2
    assert "no `ablation:` section" in capsys.readouterr().err
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(CONFIG + ABLATION.replace("options.width", "options.with"))
    assert main(["run", str(wrong)]) == 2
    error = capsys.readouterr().err
    assert "wrong.yaml:10: " in error
    assert "did you mean 'width'" in error


def test_costs_pass_over_what_cannot_be_built(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also without the data: the catalogue knows how many classes there are."""
    config.write_text(config.read_text().replace("{name: synthetic,", "{name: cifar10, root: nowhere,"))
    assert main(["cost", str(config)]) == 0
    out = capsys.readouterr().out
    assert "resnet8-width=6-norm=group  skipped: impossible" in out
    assert "resnet8-width=6  resnet8" in out
