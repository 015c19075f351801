"""Agreement of points, overthinking, and falls of the label's probability."""

from __future__ import annotations

import numpy as np
import pytest
from diag_cases import case_of, exits_case, hand_record
from synthetic_records import make_cost, make_record

from bench.evaluate.diagnostics.agreement import agreement_rows, pair_shares, step_measures


def test_pairs_in_closed_form() -> None:
    label = np.array([0, 0, 0, 0])
    prediction = np.array([[0, 0, 1, 2], [0, 1, 1, 0]])
    found = pair_shares(prediction, prediction == label)
    assert found["same"].tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert found["only_a_right"].tolist() == [[0.0, 0.25], [0.25, 0.0]]
    assert found["only_b_right"].tolist() == [[0.0, 0.25], [0.25, 0.0]]


def test_pairs_against_a_plain_loop() -> None:
    record = exits_case().test
    prediction, hit = record.signals.prediction, record.outcomes.hit
    found = pair_shares(prediction, hit)
    for a in range(5):
        for b in range(5):
            assert found["same"][a, b] == np.mean([x == y for x, y in zip(prediction[a], prediction[b])])
            assert found["only_a_right"][a, b] == pytest.approx((hit[a] & ~hit[b]).mean(), abs=1e-12)
            assert found["only_b_right"][a, b] == found["only_a_right"][b, a]
            difference = found["only_a_right"][a, b] - found["only_b_right"][a, b]
            assert difference == pytest.approx(hit[a].mean() - hit[b].mean(), abs=1e-12)


def test_steps_in_closed_form() -> None:
    # images: right early and wrong at last; right at last alone; always right; right, wrong, right
    hit = np.array([[1, 0, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1]], bool)
    p = np.array([[0.9, 0.2, 0.5, 0.6], [0.7, 0.3, 0.6, 0.4], [0.3, 0.6, 0.6, 0.55]])
    found = step_measures(hit, np.log(p))
    assert found["overthinking"] == 25
    assert found["underthinking"] == 25
    assert found["monotone"] == 50
    assert found["drop_over_0.01"] == 50
    assert found["drop_over_0.1"] == 50
    assert found["drop_over_0.5"] == 25
    assert found["drop"] == pytest.approx(100 * (0.6 + 0.2) / 4)


def test_one_point_has_no_pairs() -> None:
    record = make_record([1.0], np.ones((1, 2), np.uint8), n=20)
    assert agreement_rows([case_of(record, make_cost([1, 1], record.units))]) == ([], [])


def test_rows_stand_once_with_the_cheaper_point_first() -> None:
    pairs, steps = agreement_rows([exits_case(seed=seed) for seed in range(2)])
    names = [f"exit{k}" for k in range(1, 6)]
    wanted = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    assert [(row["point_a"], row["point_b"]) for row in pairs] == wanted
    assert steps[0]["points"] == " ".join(names)
    for row in [*pairs, *steps]:
        assert row["n_seeds"] == 2
        for name in [key for key in row if key.endswith("_mean")]:
            low, high = row[name.replace("_mean", "_min")], row[name.replace("_mean", "_max")]
            assert 0 <= low <= row[name] <= high <= 100


def test_overthinking_looks_at_the_dearest_point_wherever_it_stands() -> None:
    # The record's first point is the dearest: order of cost is short, full.
    record = hand_record([0, 0, 0], [[1, 0, 1], [0, 0, 1]], [[1, 1], [1, 0]], points=["full", "short"])
    _, steps = agreement_rows([case_of(record, make_cost([5, 5], record.units), ["static_paths"])])
    assert steps[0]["overthinking_mean"] == pytest.approx(100 / 3, abs=1e-4)
    assert steps[0]["underthinking_mean"] == 0
