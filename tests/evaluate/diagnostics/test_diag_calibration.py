"""Reliability bins and ECE of points and mixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diag_cases import case_of, exits_case, hand_record
from synthetic_records import make_cost

from bench.evaluate.calibration import auroc
from bench.evaluate.diagnostics.calibration import calibration_rows
from bench.evaluate.diagnostics.views import Case
from bench.evaluate.measured import read_measured
from bench.evaluate.policies import exit_order
from bench.evaluate.rows import make_rows

KEPT = Path(__file__).resolve().parents[3] / "results" / "reference"


def test_ece_in_closed_form() -> None:
    # 4 images at confidence 0.9, 3 of them right; 2 at 0.5, none right: (4 * 0.15 + 2 * 0.5) / 6
    record = hand_record([0] * 6, [[0, 0, 0, 1, 1, 1]], [[1]], confidence=[[0.9] * 4 + [0.5] * 2], points=["full"])
    bins, summary = calibration_rows([case_of(record, make_cost([7], record.units))])
    assert summary[0]["ece"] == pytest.approx(100 * (4 * 0.15 + 2 * 0.5) / 6, abs=1e-4)
    assert summary[0]["accuracy"] == 50
    assert summary[0]["confidence"] == pytest.approx(100 * 4.6 / 6, abs=1e-4)
    assert summary[0]["overconfidence"] == pytest.approx(100 * 4.6 / 6 - 50, abs=1e-4)
    filled = {row["bin_low"]: row for row in bins if row["count"]}
    assert [row["count"] for row in filled.values()] == [2, 4]
    assert [row["accuracy"] for row in filled.values()] == [0.0, 0.75]
    assert [(row["bin_low"], row["bin_high"]) for row in bins][:2] == [(0.0, 0.066667), (0.066667, 0.133333)]


def test_bins_of_every_view_hold_all_images_and_give_its_ece() -> None:
    case = exits_case()
    bins, summary = calibration_rows([case])
    assert len(summary) == len(case.views)
    for line in summary:
        mine = [row for row in bins if (row["policy"], row["point"]) == (line["policy"], line["point"])]
        assert len(mine) == 15
        count = np.array([row["count"] for row in mine])
        assert count.sum() == case.test.n == line["n"]
        gap = np.array([abs(row["accuracy"] - row["confidence"]) if row["count"] else 0 for row in mine])
        assert 100 * (count * gap).sum() / count.sum() == pytest.approx(line["ece"], abs=1e-3)
        empty = [row for row in mine if not row["count"]]
        assert all(np.isnan(row["accuracy"]) for row in empty)


def test_ece_is_that_of_the_results_table() -> None:
    case = exits_case()
    _, summary = calibration_rows([case])
    rows = make_rows({"capabilities": ["exits"]}, case.measured.records, case.measured.cost, case.measured.evaluate)
    table = {(row["policy"], row["point"], row["setting"]): row for row in rows}
    for line in summary:
        row = table[line["policy"], line["point"], line["setting"]]
        assert (line["ece"], line["accuracy"]) == (row["ece"], row["top1"])


@pytest.mark.parametrize("coarse", [False, True])
def test_auroc_is_the_share_of_pairs_in_the_right_order(coarse: bool) -> None:
    rng = np.random.default_rng(0)
    confidence, hit = rng.random(60), rng.random(60) < 0.6
    if coarse:
        confidence = np.round(confidence, 1)
    pairs = [(a > b) + (a == b) / 2 for a in confidence[hit] for b in confidence[~hit]]
    assert auroc(confidence, hit) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(confidence, np.ones(60, bool)) is None


def test_failure_prediction_of_every_exit_of_the_kept_network() -> None:
    (folder,) = (KEPT / "cifar10_dynamic_depth_cpu" / "runs").glob("imta4-seed0-*")
    measured = read_measured(folder)
    assert measured is not None
    summary = calibration_rows([Case("imta", "IMTA", 0, measured)])[1]
    found = {row["point"]: row["auroc"] for row in summary if row["policy"] == "anytime"}
    assert len(found) == 4
    order = [measured.test.points[k] for k in exit_order(measured.test.signals)]
    pooled = [
        auroc(*(np.concatenate([getattr(kind(r), name)[k] for r in (measured.test, measured.val)])
                for kind, name in ((lambda r: r.signals, "confidence"), (lambda r: r.outcomes, "hit"))))
        for k in exit_order(measured.test.signals)
    ]  # fmt: skip
    assert pooled == pytest.approx([0.834, 0.846, 0.860, 0.870], abs=6e-4)  # an independent computation
    assert [found[point] for point in order] == pytest.approx(pooled, abs=0.01)
