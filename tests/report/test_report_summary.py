"""The table on the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from synthetic_results import FAMILIES, write_results

from bench.evaluate.analysis import Analysis
from bench.evaluate.comparing.frontier import auc_rows
from bench.evaluate.results import read_results
from bench.evaluate.seeds import summarise
from bench.report import draw
from bench.report.summary import print_summary


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    broken = {("gated38", 1): ("diverged", "the loss is no longer finite")}
    broken |= {("resnet14", seed): ("failed", "[red] disk full") for seed in (0, 1)}
    folder = write_results(tmp_path_factory.mktemp("results"), seeds=(0, 1), n=200, val=100, broken=broken)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.style.FORMATS", ("png",))
        draw(folder)
    return folder


def printed(out: Path, width: int = 100, encoding: str = "utf-8", terminal: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, force_terminal=terminal, legacy_windows=False)
    print_summary(Analysis(read_results(out)), console)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_runs_in_file_order_with_numbers_and_reasons(out: Path) -> None:
    text = printed(out)
    places = [text.index(f"\n{recipe[1]}", 60) for recipe in FAMILIES]
    assert places == sorted(places)
    assert "Interval: two seeds, no interval: smallest and largest are both values" in text
    assert "95 % Wilson interval: this trained network on new images" in text  # the run with one seed left
    assert "ResNet-14, seeds 0, 1: failed - [red] disk full" in text
    assert "Gated ResNet-38, seed 1: diverged - the loss is no longer finite" in text
    assert "1 of 2 done" in text
    assert str(out / "plots") in text
    assert "summary.csv" in text


def test_plain_where_the_output_is_no_terminal(out: Path) -> None:
    assert "\x1b" not in printed(out)
    assert "\x1b" in printed(out, terminal=True)
    assert printed(out, encoding="ascii").isascii()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_of_the_table_is_wider_than_the_terminal(out: Path, width: int) -> None:
    text = printed(out, width)
    table = text.split("Tables:")[0]
    assert max(map(len, table.splitlines())) <= width
    assert "75.00M" in table


def test_works_before_anything_is_drawn(tmp_path: Path) -> None:
    broken = {("resnet8", 0): ("pending", "")}
    text = printed(write_results(tmp_path, FAMILIES[:1], broken=broken))
    assert "pending" in text
    assert "Tables:" not in text


def test_an_interval_is_shown_by_both_of_its_ends_and_says_what_it_is_over(tmp_path: Path) -> None:
    """Six of six: Wilson's interval reaches from 60.97 to 100, nothing above; half of it is no number to add."""
    broken = {("resnet14", seed): ("failed", "disk full") for seed in (1, 2)}
    folder = write_results(tmp_path, FAMILIES[:3], seeds=(0, 1, 2), n=6, val=6, broken=broken)
    lines = [line for line in summarise(read_results(folder)) if line["run"] == "resnet14"]
    text = printed(folder, 120)
    assert "\N{PLUS-MINUS SIGN}" not in text
    rows = {line.split()[0]: line for line in text.split("Interval:")[0].splitlines() if line.startswith("ResNet-")}
    low, high = lines[0]["top1_lo"], lines[0]["top1_hi"]
    assert f"{low:.2f} to {high:.2f}" in rows["ResNet-14"]
    assert "images" in rows["ResNet-14"]
    assert "3 seeds" in rows["ResNet-8"]
    assert all(0 <= float(end) <= 100 for row in rows.values() for end in re.findall(r"([\d.]+) to ([\d.]+)", row)[0])


def test_the_area_under_a_perfect_curve_has_no_interval_above_100() -> None:
    trained = SimpleNamespace(seed=0)
    values = np.array([1.0] * 39 + [0.9])
    contender = SimpleNamespace(name="a", label="A", seeds=[trained], reason="")
    rows = auc_rows([contender], {"a": [values]}, (1.0, 2.0), 0.95)  # type: ignore[list-item]
    assert [row["auc_hi"] for row in rows] == [100.0, 100.0]
