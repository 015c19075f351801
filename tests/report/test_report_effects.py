"""Effects of an ablation: contrasts by hand, their intervals, what is missing, the table and the figure."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_records import make_cost, make_record

from bench.config.schema import Evaluate
from bench.evaluate.columns import keep_table
from bench.evaluate.effects import COLUMNS, NAME, effects
from bench.evaluate.measured import Measured
from bench.evaluate.record import DecisionRecord
from bench.evaluate.results import Results, RunResult
from bench.evaluate.stats import holm, mean_interval, normal_quantile, normal_tail, t_quantile
from bench.report.effects_figure import draw_effects

N = 400
M = 1_000_000


def _run(name: str, base: str | None, factors: dict[str, str], seed: int, accuracy: float, macs: float = 10 * M,
         status: str = "done", reason: str = "", keep: bool = True) -> RunResult:  # fmt: skip
    """A run whose network is right for a random share of the images; the last point is another one."""
    rng = np.random.default_rng([seed, *name.encode()])
    hits = np.zeros(N, bool)
    hits[rng.permutation(N)[: round(accuracy * N)]] = True
    record = make_record([0.5, 0.2], np.ones((2, 1), np.uint8), n=N, seed=seed)
    outcomes = dataclasses.replace(record.outcomes, hit=np.stack([hits, ~hits]))
    records = {"test": DecisionRecord(record.signals, outcomes)}
    measured = Measured({}, records, make_cost([1], record.units), Evaluate())
    rows: list[dict[str, Any]] = [
        {"policy": "fixed", "point": "p1", "default": "no", "top1": 1.0, "macs": 1.0, "adaptive": "no"},
        {"policy": "fixed", "point": "p0", "default": "yes", "top1": 100 * hits.mean(), "macs": macs, "adaptive": "no",
         "n": N},
    ]
    return RunResult(name, name.upper(), "resnet", seed, f"{name}{seed}", Path("none"), status, reason,
                     rows, factors=factors, base=base, measured=measured if keep else None)  # fmt: skip


def _results(runs: list[RunResult], out: Path = Path("none")) -> Results:
    return Results(out, "abl", "Ablation", "holdout", "cifar10", 1, 0.95, runs)


def _grid(accuracies: dict[tuple[str, str], float], seeds: tuple[int, ...] = (0,), family: str = "net",
          shift: float = 0.0, **more: Any) -> list[RunResult]:  # fmt: skip
    """Axes x (a, b) and y (c, d)."""
    return [
        _run(f"{family}-{x}{y}" if (x, y) != ("a", "c") else family, family, {"x": x, "y": y}, seed,
             accuracy + shift * seed, macs=(10 if x == "a" else 8) * M, **more)
        for (x, y), accuracy in accuracies.items() for seed in seeds
    ]  # fmt: skip


GRID = {("a", "c"): 0.5, ("a", "d"): 0.6, ("b", "c"): 0.55, ("b", "d"): 0.75}


def _pick(rows: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    (row,) = [row for row in rows if all(row.get(key, "") == value for key, value in wanted.items())]
    return row


def test_one_seed_main_effect_is_the_mean_of_its_pairs_over_the_images() -> None:
    runs = _grid(GRID)
    rows = effects(_results(runs))
    main = _pick(rows, kind="main", axis="x")
    assert (main["level"], main["base"], main["pairs"], main["seeds"]) == ("b", "a", 2, "0")
    assert main["top1_difference"] == pytest.approx((5 + 15) / 2)
    assert main["macs_difference"] == -2 * M
    assert main["macs_percent"] == pytest.approx(-20)
    hit = {tuple(run.factors.values()): run.measured.test.outcomes.hit[0] for run in runs if run.measured}
    after, before = (np.mean([hit[x, "c"], hit[x, "d"]], axis=0) for x in "ba")
    interval = mean_interval(after - before)
    assert 100 * (after - before).mean() == pytest.approx(main["top1_difference"])
    assert (main["top1_lo"], main["top1_hi"]) == pytest.approx((100 * interval.low, 100 * interval.high), abs=1e-3)
    assert main["interval"] == "95 % normal interval over test images: these trained networks on new images"
    error = (interval.high - interval.low) / 2 / normal_quantile(0.975)
    assert main["p"] == pytest.approx(2 * normal_tail((after - before).mean() / error), rel=1e-3)
    of_x = [row for row in rows if row["kind"] == "combination" and row["axis"] == "x"]
    each = {row["others"]: row["top1_difference"] for row in of_x}
    assert each == pytest.approx({"y c": 5.0, "y d": 15.0})


def test_what_two_levels_add_to_each_other() -> None:
    row = _pick(effects(_results(_grid(GRID))), kind="interaction")
    assert (row["axis"], row["level"], row["base"]) == ("x x y", "b x d", "a x c")
    assert row["top1_difference"] == pytest.approx(75 - 55 - 60 + 50)
    assert row["top1_lo"] < row["top1_difference"] < row["top1_hi"]
    additive = _pick(effects(_results(_grid({**GRID, ("b", "d"): 0.65}, seeds=(0, 1)))), kind="interaction")
    assert additive["top1_difference"] == pytest.approx(0)


def test_seeds_are_paired_and_the_interval_is_about_them() -> None:
    """All networks of a seed are better together: the difference does not vary with it."""
    rows = effects(_results(_grid(GRID, seeds=(0, 1, 2), shift=0.05)))
    main = _pick(rows, kind="main", axis="y")
    assert main["top1_difference"] == pytest.approx((10 + 20) / 2)
    assert main["pairs"] == 6
    grain = 100**2 / (12 * N * N)  # four networks with weight 1/2: as one
    half = t_quantile(0.975, 2) * np.sqrt(grain / 3)
    assert (main["top1_lo"], main["top1_hi"]) == pytest.approx((15 - half, 15 + half), abs=1e-3)
    assert "t interval over 3 seeds: the method over new training runs, on these images" in main["interval"]
    runs = [run for run in _grid(GRID, seeds=(0, 1, 2)) if run.factors["y"] == "c"]
    changes = [2.0, 5.0, 11.0]
    for run in runs:
        if run.factors["x"] == "b":
            run.rows[1]["top1"] = 50 + changes[run.seed]
    found = _pick(effects(_results(runs)), kind="main", axis="x")
    half = t_quantile(0.975, 2) * np.sqrt((np.var(changes, ddof=1) + 2 * grain) / 3)
    assert (found["top1_lo"], found["top1_hi"]) == pytest.approx((6 - half, 6 + half), abs=1e-3)


def test_runs_that_share_an_axis_have_a_mean_effect() -> None:
    runs = _grid({("a", "c"): 0.5, ("b", "c"): 0.6}) + _grid({("a", "c"): 0.5, ("b", "c"): 0.52}, family="other")
    rows = effects(_results(runs))
    both = _pick(rows, kind="all runs")
    assert (both["run"], both["label"], both["pairs"]) == ("", "mean of 2 runs", 2)
    assert both["top1_difference"] == pytest.approx(6)
    assert [row["kind"] for row in rows] == ["main", "main", "all runs"]
    # one trained with other seeds: nothing to pair
    alone = _grid({("a", "c"): 0.5, ("b", "c"): 0.6}, seeds=(1,), family="third")
    row = _pick(effects(_results(runs[:2] + alone)), kind="all runs")
    assert row["pairs"] == 0
    assert row["status"] == "no common seed"


def test_a_mean_over_combinations_without_a_common_seed_is_refused(tmp_path: Path) -> None:
    """Each pair has its own seed: 'main' must not quietly be one of them."""
    runs = [run for run in _grid(GRID, seeds=(0, 1)) if run.seed == (0 if run.factors["y"] == "c" else 1)]
    rows = effects(_results(runs))
    main = _pick(rows, kind="main", axis="x")
    assert main["status"] == "no common seed"
    assert main["reason"] == "no seed has all combinations of the other axes; a mean over them cannot be computed"
    assert main.get("top1_difference") is None
    parts = {row["others"]: row["seeds"] for row in rows if row["kind"] == "combination"}
    assert parts == {"y c": "0", "y d": "1"}
    assert draw_effects(_results(runs), effects(_results(runs)), tmp_path)


def test_two_seeds_have_both_values_and_p_is_adjusted_within_an_axis() -> None:
    main = _pick(effects(_results(_grid(GRID, seeds=(0, 1), shift=0.05))), kind="main", axis="x")
    assert main["top1_lo"] is None
    assert main["p"] is None
    assert main["interval"].startswith("two seeds, no interval")
    assert main["top1_min"] <= main["top1_difference"] <= main["top1_max"]
    levels = {("a", "c"): 0.5, ("b", "c"): 0.56, ("e", "c"): 0.53}
    rows = effects(_results(_grid(levels)))
    assert [row["p_adjusted"] for row in rows] == pytest.approx(holm([row["p"] for row in rows]).tolist(), rel=1e-3)
    assert len(rows) == 2
    assert rows[0]["p_adjusted"] >= 2 * min(row["p"] for row in rows) * 0.999


def test_missing_networks_are_said() -> None:
    runs = _grid(GRID, seeds=(0, 1))
    gone = {"net-bc": ("skipped", "impossible: no such norm"), "net-bd": ("diverged", "")}

    def spoil(run: RunResult, all_: bool) -> RunResult:
        if run.run not in gone or not (all_ or run.run == "net-bc"):
            return run
        status, reason = gone[run.run]
        return dataclasses.replace(run, status=status, reason=reason)

    rows = effects(_results([spoil(run, False) for run in runs]))
    main = _pick(rows, kind="main", axis="x")
    assert main["top1_difference"] == pytest.approx(15)  # at y d alone
    assert main["reason"] == "net-bc: skipped, impossible: no such norm"
    assert not [row for row in rows if row["kind"] == "interaction"]
    row = _pick(effects(_results([spoil(run, True) for run in runs])), kind="main", axis="x")
    assert row.get("top1_difference") is None
    assert (row["status"], row["pairs"]) == ("skipped", 0)
    assert "net-bd: diverged" in row["reason"]


def test_levels_without_their_base_are_said(tmp_path: Path) -> None:
    """As after --only with some combinations."""
    runs = [run for run in _grid(GRID) if run.factors["x"] == "b"]
    results = dataclasses.replace(_results(runs), ablation={"sections": [{"base": {"x": "a", "y": "c"}}]})
    row = _pick(effects(results), kind="main", axis="x")
    assert (row["status"], row["pairs"]) == ("missing", 0)
    assert "no run here that differs in x alone, with a" in row["reason"]
    assert len(draw_effects(results, effects(results), tmp_path)) == 3


def test_a_mean_takes_the_same_seeds_of_every_pair() -> None:
    """A seed that one pair lacks is left out, not mixed in."""
    runs = [run for run in _grid(GRID, seeds=(0, 1), shift=0.1) if (run.run, run.seed) != ("net-bd", 1)]
    main = _pick(effects(_results(runs)), kind="main", axis="x")
    assert (main["seeds"], main["pairs"]) == ("0", 2)
    assert main["top1_difference"] == pytest.approx(10)


def test_without_records_one_seed_has_no_interval() -> None:
    main = _pick(effects(_results(_grid(GRID, keep=False))), kind="main", axis="x")
    assert main["top1_difference"] == pytest.approx(10)
    assert (main["top1_lo"], main["interval"]) == (None, "")


def test_the_table_is_written_and_removed(tmp_path: Path) -> None:
    results = _results(_grid(GRID), tmp_path)
    path = keep_table(tmp_path / NAME, COLUMNS, effects(results))
    assert path is not None
    first = path.read_bytes()
    keep_table(path, COLUMNS, effects(results))
    assert path.read_bytes() == first
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 + 4 + 1
    plain = [dataclasses.replace(run, base=None, factors={}) for run in results.runs]
    assert keep_table(path, COLUMNS, effects(_results(plain))) is None
    assert not path.exists()


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    runs = _grid(GRID, seeds=(0, 1)) + [
        dataclasses.replace(run, status="skipped", reason="no") if run.factors["x"] == "b" else run
        for run in _grid(GRID, family="a-run-with-a-name-that-is-much-too-long-for-the-room-there-is-beside-a-figure")
    ]
    drawn = draw_effects(_results(runs), effects(_results(runs)), tmp_path)
    assert sorted(path.suffix for path in drawn) == [".pdf", ".png", ".svg"]
    assert all(path.stat().st_size > 3000 for path in drawn)
    nothing = [dataclasses.replace(run, status="failed") for run in runs]
    assert draw_effects(_results(nothing), effects(_results(nothing)), tmp_path) == []
