"""Cost and accuracy by class and by difficulty."""

from __future__ import annotations

import numpy as np
import pytest
from diag_cases import case_of, exits_case, gates_case, hand_record, paths_case
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_records import make_cost

from bench.evaluate.diagnostics import diagnose
from bench.evaluate.diagnostics.payers import LEAST, difficulty, group_means, payer_rows, quantile_of

NAMES = [str(k) for k in range(10)]


def test_quintiles_of_distinct_values_are_equal_parts_from_easy_to_hard() -> None:
    easiness = np.array([0.1, 0.9, 0.5, 0.3, 0.7, 0.2, 0.8, 0.6, 0.4, 0.0])
    assert quantile_of(easiness).tolist() == [4, 0, 2, 3, 1, 3, 0, 1, 2, 4]


def test_ties_share_the_quantile_of_their_middle_rank() -> None:
    assert quantile_of(np.zeros(7)).tolist() == [2] * 7
    # ranks 0..5 are tied with middle 3 of 10 -> second fifth; the others have 6.5, 7.5, 8.5, 9.5
    assert quantile_of(np.array([1.0] * 6 + [0.9, 0.8, 0.7, 0.6])).tolist() == [1] * 6 + [3, 3, 4, 4]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_quantiles_follow_the_values_and_not_the_order_of_images(values, random) -> None:  # type: ignore[no-untyped-def]
    easiness = np.array(values, float)
    part = quantile_of(easiness)
    assert part.min() >= 0
    assert part.max() <= 4
    for a in range(len(values)):
        for b in range(len(values)):
            if easiness[a] == easiness[b]:
                assert part[a] == part[b]
            elif easiness[a] > easiness[b]:
                assert part[a] <= part[b]
    order = list(range(len(values)))
    random.shuffle(order)
    assert np.array_equal(quantile_of(easiness[order]), part[order])


def test_difficulty_weighs_runs_alike_whatever_their_seeds() -> None:
    def case(run: str, seed: int, logp: list[float]):  # type: ignore[no-untyped-def]
        record = hand_record([0, 0], [[0, 0]], [[1]], logp=[logp])
        return case_of(record, make_cost([1], record.units), run=run, seed=seed)

    found = difficulty([case("a", 0, [-1, -2]), case("a", 1, [-3, -4]), case("b", 0, [-6, -1])])
    assert found.tolist() == [-4.0, -2.0]
    assert difficulty([case("a", 0, [-1e9, -1])]).tolist() == [LEAST, -1.0]


def test_difficulty_is_of_the_default_point() -> None:
    record = hand_record([0, 0], [[0, 0], [0, 0]], [[1, 1], [1, 0]], logp=[[-1, -2], [-5, -5]])
    assert difficulty([case_of(record, make_cost([1, 1], record.units))]).tolist() == [-1.0, -2.0]


def test_cost_by_class_by_hand() -> None:
    ran = np.array([[[1, 1], [1, 0], [0, 0], [0, 0]]], bool)
    case = gates_case(ran)
    label = case.test.outcomes.label
    rows, _ = payer_rows([case], NAMES)
    always = 1_007_000
    cost = always + 2_000_000 * np.array([2, 1, 0, 0])
    for row in rows:
        mine = label == row["class"]
        assert row["n"] == mine.sum()
        if mine.any():
            assert row["macs_mean"] == pytest.approx(cost[mine].mean(), abs=1e-4)
            assert row["relative_mean"] == pytest.approx(100 * cost[mine].mean() / cost.mean(), abs=1e-4)
            assert row["top1_mean"] == pytest.approx(100 * case.test.outcomes.hit[0][mine].mean(), abs=1e-4)
        else:  # a class without test images
            assert row["macs_mean"] is None
            assert row["top1_max"] is None


@pytest.mark.parametrize("make", [exits_case, paths_case])
def test_means_weighted_by_counts_give_the_overall_means(make) -> None:  # type: ignore[no-untyped-def]
    case = make()
    for rows in payer_rows([case], NAMES):
        for view in case.mixtures:
            mine = [row for row in rows if row["policy"] == view.policy]
            assert sum(row["n"] for row in mine) == case.test.n
            known = [row for row in mine if row["n"]]
            cost = sum(row["n"] * row["macs_mean"] for row in known) / case.test.n
            assert cost == pytest.approx(view.macs.mean())
            hit = sum(row["n"] * row["top1_mean"] for row in known) / case.test.n
            assert hit == pytest.approx(100 * view.choice.gather(case.test.outcomes.hit).mean(), abs=1e-3)
            relative = sum(row["n"] * row["relative_mean"] for row in known) / case.test.n
            assert relative == pytest.approx(100, abs=1e-3)


def test_hard_images_cost_an_early_exit_network_more() -> None:
    _, rows = payer_rows([exits_case(2000)], NAMES)
    budgeted = [row["relative_mean"] for row in rows if row["policy"] == "budgeted"]
    assert budgeted == sorted(budgeted)
    assert budgeted[-1] > 1.3 * budgeted[0]
    probability = [row["label_probability"] for row in rows if row["policy"] == "budgeted"]
    assert probability == sorted(probability, reverse=True)


def test_seeds_give_mean_and_extremes() -> None:
    cases = [exits_case(seed=seed) for seed in range(3)]
    alone = [payer_rows([case], NAMES)[0] for case in cases]
    together, _ = payer_rows(cases, NAMES)
    assert len(together) == len(alone[0])
    for number, row in enumerate(together):
        values = [one[number]["macs_mean"] for one in alone]
        assert row["n_seeds"] == 3
        assert row["macs_min"] == min(values)
        assert row["macs_max"] == max(values)
        assert row["macs_mean"] == pytest.approx(np.mean(values), abs=1e-3)


def test_static_networks_are_not_in_the_tables() -> None:
    assert payer_rows([exits_case(holdout=False)], NAMES) == ([], [])


def test_difficulty_leaves_out_the_network_that_is_judged() -> None:
    """What the judged network thinks of an image moves no image to another fifth, what another one thinks does."""
    one, other = exits_case(500), exits_case(500, run="other", seed=3)
    rows = [row for row in payer_rows([one, other], NAMES)[1] if row["run"] == one.run]
    logp = other.test.outcomes.logp[0].astype(np.float64)
    expected = np.bincount(quantile_of(np.maximum(logp, LEAST)), minlength=5)
    assert [row["n"] for row in rows if row["policy"] == "budgeted"][:5] == expected.tolist()
    shown = next(row["label_probability"] for row in rows if row["policy"] == "budgeted")
    easiest = quantile_of(np.maximum(logp, LEAST)) == 0
    assert shown == pytest.approx(100 * np.exp(np.maximum(logp, LEAST)[easiest].mean()), abs=1e-3)


def test_difficulty_that_one_run_says_alone_is_noted() -> None:
    notes = diagnose([exits_case()], "cifar10").notes
    assert any("Difficulty for Exits is said by that run itself" in note for note in notes)
    assert diagnose([exits_case(), exits_case(run="again")], "cifar10").notes == []


def test_means_of_empty_groups_are_nan() -> None:
    found = group_means(np.array([1, 3]), np.array([0, 0]), 2)
    assert found[0] == 2
    assert np.isnan(found[1])
