"""Published numbers beside ours: difference, status, reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_results import FAMILIES, QUICK, write_results

from bench.config.comparing import Published
from bench.config.schema import Run
from bench.evaluate.columns import keep_table
from bench.evaluate.ledger import COLUMNS, NAME, make_ledger
from bench.evaluate.results import read_results
from bench.evaluate.seeds import summarise
from bench.launch.folder import _compared


def published(top1: float, **more: Any) -> dict[str, Any]:
    return Published(top1=top1, source="A paper, table 1", **more).model_dump(mode="json")


def ledger(out: Path, more: dict[str, Any], recipes: Any = QUICK, **options: Any) -> list[dict[str, Any]]:
    results = read_results(write_results(out, recipes, n=300, val=100, epochs=2, more=more, **options))
    return make_ledger(results, summarise(results))


def test_the_interval_over_seeds_decides(tmp_path: Path) -> None:
    plain = ledger(tmp_path / "a", {"resnet20": {"published": [published(50)]}}, seeds=(0, 1, 2))[0]
    ours, low, high = plain["ours"], plain["ours_lo"], plain["ours_hi"]
    assert low < ours < high
    values = [round(ours, 2), low - 1, high + 1]
    more = {"resnet20": {"published": [published(value) for value in values]}}
    rows = ledger(tmp_path / "b", more, seeds=(0, 1, 2))
    assert [row["status"] for row in rows] == ["within our interval", "ours is higher", "ours is lower"]
    assert [row["difference"] for row in rows] == pytest.approx([ours - value for value in values], abs=1e-4)
    assert rows[0]["n_seeds"] == 3


def test_two_seeds_have_no_interval_to_compare_with(tmp_path: Path) -> None:
    (row,) = ledger(tmp_path, {"resnet20": {"published": [published(50)]}}, seeds=(0, 1))
    assert (row["status"], row["ours_lo"], row["ours_hi"], row["n_seeds"]) == ("2 seeds", None, None, 2)
    assert row["difference"] == pytest.approx(row["ours"] - 50, abs=1e-4)


def test_a_published_median_stands_beside_our_median(tmp_path: Path) -> None:
    more = {"resnet20": {"published": [published(80, statistic="median of 5"), published(80)]}}
    median, mean = ledger(tmp_path, more, seeds=(0, 1, 2))
    line = next(line for line in summarise(read_results(tmp_path)) if line["run"] == "resnet20")
    assert (median["ours"], mean["ours"]) == (line["top1_median"], line["top1_mean"])
    assert median["ours"] != mean["ours"]


def test_each_point_has_its_own_row_and_one_seed_is_said_to_be_one(tmp_path: Path) -> None:
    more = {"early5": {"published": [published(70, point="exit2", note="shorter"), published(80, macs=7.5e7)]}}
    second, last = ledger(tmp_path, more, FAMILIES)
    assert (second["point"], last["point"]) == ("exit2", "exit5")
    assert second["status"] == last["status"] == "one seed"
    assert second["reason"] == "shorter"
    assert (last["macs_published"], last["macs"]) == (7.5e7, 75_000_000)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    more = {"resnet8": {"published": [published(70)]}, "resnet14": {"published": [published(70, point="exit9")]}}
    failed, unknown = ledger(tmp_path, more, broken={("resnet8", 0): ("failed", "out of memory")})
    assert failed["status"] == unknown["status"] == "not measured"
    assert failed["reason"] == "out of memory"
    assert unknown["reason"] == "no operating point 'exit9'"


def test_what_a_file_says_reaches_the_ledger(tmp_path: Path) -> None:
    run = Run(name="resnet20", method="resnet", published=(Published(top1=80.0, source="x"),))
    rows = ledger(tmp_path, {"resnet20": _compared(run)})
    assert rows[0]["statistic"] == "one run"
    assert _compared(Run(name="a", method="resnet")) == {}


def test_the_table_comes_and_goes(tmp_path: Path) -> None:
    rows = ledger(tmp_path, {"resnet20": {"published": [published(80)]}})
    path = keep_table(tmp_path / NAME, COLUMNS, rows)
    assert path is not None
    assert "A paper, table 1" in path.read_text()
    assert keep_table(path, COLUMNS, []) is None
    assert not path.exists()
