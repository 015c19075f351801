"""The Pareto front and the area under the curve against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.evaluate.comparing.frontier import auc_log_macs, auc_weights, pareto_front


def test_front_of_known_points() -> None:
    macs = np.array([10, 20, 30, 20, 40, 5])
    top1 = np.array([70, 80, 79, 75, 80, 70])
    #        dominated by 5 M at 70 %, on, worse and dearer, dominated, equal but dearer, on
    assert pareto_front(macs, top1).tolist() == [False, True, False, False, False, True]


def test_equal_points_are_both_on_the_front() -> None:
    assert pareto_front(np.array([1, 1, 2]), np.array([5, 5, 5])).tolist() == [True, True, False]


def test_front_with_gaps_and_nothing() -> None:
    assert pareto_front(np.array([1, np.nan, 2]), np.array([np.nan, 5, 1])).tolist() == [False, False, True]
    assert pareto_front(np.empty(0), np.empty(0)).size == 0


def test_front_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        macs, top1 = rng.integers(0, 6, (2, 8))
        expected = [
            not any(
                macs[j] <= macs[i] and top1[j] >= top1[i] and (macs[j] < macs[i] or top1[j] > top1[i]) for j in range(8)
            )
            for i in range(8)
        ]
        assert pareto_front(macs, top1).tolist() == expected


def test_area_of_one_flat_line_is_its_height() -> None:
    assert auc_log_macs([10e6], [91.5], 10e6, 80e6) == pytest.approx(91.5)
    assert auc_log_macs([1e6], [91.5], 10e6, 80e6) == pytest.approx(91.5)


def test_area_of_steps_in_closed_form() -> None:
    """10 M to 1000 M is two decades: half at 60 %, half at 80 %; thirds of one decade likewise."""
    assert auc_log_macs([10e6, 100e6], [60, 80], 10e6, 1000e6) == pytest.approx(70)
    assert auc_log_macs([1, 2, 4], [10, 20, 60], 1, 8) == pytest.approx(30)
    expected = (10 * math.log(3 / 2) + 20 * math.log(5 / 3)) / math.log(5 / 2)
    assert auc_log_macs([1, 3], [10, 20], 2, 5) == pytest.approx(expected)


def test_points_outside_of_the_range_count_for_nothing() -> None:
    assert auc_weights([1, 2, 50], 4, 16).tolist() == [0, 1, 0]
    assert auc_log_macs([1, 2, 50], [1, 2, 3], 4, 16) == pytest.approx(2)


def test_weights_sum_to_one_and_do_not_depend_on_the_unit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        macs = np.sort(rng.random(6)) + 0.5
        low, high = macs[0] + 0.01, macs[-1] * rng.uniform(0.9, 2)
        weights = auc_weights(macs, low, high)
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
        assert auc_weights(macs * 1e6, low * 1e6, high * 1e6) == pytest.approx(weights)


def test_area_against_counting_budgets() -> None:
    rng = np.random.default_rng(1)
    macs, top1 = np.sort(rng.random(5)) + 1, rng.random(5)
    low, high = macs[0], 2.5
    grid = np.exp(np.linspace(math.log(low), math.log(high), 200_001))
    run = np.searchsorted(macs, grid, side="right") - 1
    assert auc_log_macs(macs, top1, low, high) == pytest.approx(top1[run].mean(), abs=1e-4)


@pytest.mark.parametrize(("macs", "low", "high"), [([5], 4, 8), ([1], 8, 8), ([1], 9, 8), ([], 1, 2), ([1], 0, 2)])
def test_no_area_where_there_is_no_range(macs: list[float], low: float, high: float) -> None:
    with pytest.raises(ValueError, match="no budgets"):
        auc_weights(macs, low, high)
