"""Which operating points and mixtures are looked at, and that test labels choose none of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from diag_cases import case_of, exits_case, gates_case, paths_case
from synthetic_records import make_cost, make_record

from bench.config.schema import Evaluate
from bench.evaluate.diagnostics import diagnose
from bench.evaluate.diagnostics.views import over_seeds, settings_text
from bench.evaluate.policies import policy_class
from bench.evaluate.record import DecisionRecord


def test_points_come_first_and_each_mixing_policy_gives_one_mixture() -> None:
    views = exits_case().views
    assert [view.point for view in views] == ["exit5", "exit1", "exit2", "exit3", "exit4", "", ""]
    assert [view.policy for view in views] == ["anytime"] * 5 + ["budgeted", "confidence"]
    assert [view.default for view in views] == [True] + [False] * 6
    assert [view.adaptive for view in views] == [False] * 5 + [True] * 2


def test_the_mixture_is_the_setting_nearest_the_middle_on_validation_by_a_plain_loop() -> None:
    case = exits_case()
    val, cost = case.measured.val, case.measured.cost
    assert val is not None
    macs = val.signals.counts.astype(np.int64) @ cost.columns["macs"]
    target = (macs.min() + macs[0]) / 2
    for view in case.mixtures:
        best = None
        for policy in policy_class(view.policy).members(val.signals, macs.astype(float)):
            policy.fit(val.signals, val.outcomes)
            mean = macs[policy.apply(val.signals).point].mean()
            if best is None or abs(mean - target) < best[0]:
                best = abs(mean - target), policy.setting, policy
        assert best is not None
        assert view.setting == best[1]
        assert np.array_equal(view.choice.point, best[2].apply(case.test.signals).point)
        assert np.array_equal(view.macs, macs[view.choice.point])


def test_a_cascade_pays_for_both_paths() -> None:
    view = paths_case().mixtures[0]
    assert view.policy == "cascade"
    assert set(view.macs[view.choice.point == 0]) == {16_000_000}
    assert set(view.macs[view.choice.point == 1]) == {6_000_000}


@pytest.mark.parametrize("make", [exits_case, paths_case])
def test_without_a_validation_part_there_is_no_mixture_and_the_reason_is_said(make) -> None:  # type: ignore[no-untyped-def]
    case = make(holdout=False)
    assert case.mixtures == []
    assert case.why_no_mixture == "no validation part to choose a setting on"
    notes = diagnose([case], "cifar10").notes
    assert any(case.label in note and "no validation part" in note for note in notes)
    assert make().why_no_mixture == ""


def test_a_plain_network_has_one_view_and_misses_nothing() -> None:
    record = make_record([1.0], np.ones((1, 2), np.uint8), n=50, points=["full"])
    case = case_of(record, make_cost([5, 3], record.units))
    assert [view.point for view in case.views] == ["full"]
    assert case.why_no_mixture == ""
    found = diagnose([case], "cifar10")
    assert [name for name, rows in found.tables.items() if rows] == ["calibration", "calibration_summary"]
    assert found.notes == []


def test_only_policies_that_were_asked_for_mix() -> None:
    case = exits_case()
    asked = case_of(case.test, case.measured.cost, ["exits"], val=case.measured.val,
                    evaluate=Evaluate(policies=["entropy"]))  # fmt: skip
    assert [view.policy for view in asked.mixtures] == ["entropy"]


@pytest.mark.parametrize("make", [exits_case, paths_case])
def test_permuting_all_test_labels_changes_no_setting_and_no_choice(make) -> None:  # type: ignore[no-untyped-def]
    case = make()
    outcomes = case.test.outcomes
    order = np.random.default_rng(0).permutation(case.test.n)
    other = replace(outcomes, label=outcomes.label[order], hit=outcomes.hit[:, order], logp=outcomes.logp[:, order])
    leak = case_of(DecisionRecord(case.test.signals, other), case.measured.cost, case.measured.capabilities,
                   val=case.measured.val)  # fmt: skip
    for ours, theirs in zip(case.views, leak.views, strict=True):
        assert ours.setting == theirs.setting
        assert ours.choice.point.tobytes() == theirs.choice.point.tobytes()


def test_cost_of_a_gated_point_depends_on_the_image() -> None:
    ran = np.zeros((1, 4, 2), bool)
    ran[0, 1:, 0] = True
    ran[0, 3, 1] = True
    view = gates_case(ran).views[0]
    always = 1_000_000 + 2 * 1_000 + 5_000
    assert view.macs.tolist() == [always, always + 2_000_000, always + 2_000_000, always + 4_000_000]
    assert view.adaptive
    assert not view.mixture


def test_over_seeds_passes_over_what_is_missing() -> None:
    assert over_seeds([1.0, float("nan"), 4.0], "x") == {"x_mean": 2.5, "x_min": 1.0, "x_max": 4.0}
    assert over_seeds([float("nan")], "x") == {"x_mean": None, "x_min": None, "x_max": None}


def test_settings_stand_once_where_all_seeds_agree() -> None:
    view = exits_case().mixtures[0]
    assert settings_text([view, view]) == f"{view.setting:g}"
    assert settings_text([replace(view, setting=0.5), replace(view, setting=0.55)]) == "0.5 0.55"
    assert settings_text([replace(view, setting=None)]) == ""
