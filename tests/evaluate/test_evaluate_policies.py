"""Policies: exact against plain loops, blind to test labels, honest about what is paid."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from synthetic_records import exits_record, make_cost, make_record

from bench.errors import ConfigError, RunError
from bench.evaluate.bounds import oracle, random_exits
from bench.evaluate.policies import (
    Choice,
    check_policies,
    default_policies,
    exit_order,
    make_policies,
    policy_class,
    policy_names,
)
from bench.evaluate.policies.exits import BudgetedBatch, ConfidenceSweep, EntropySweep, MarginSweep, Patience
from bench.evaluate.record import DecisionRecord, Signals


def paths_record(n: int = 500, seed: int = 0) -> DecisionRecord:
    skip = np.array(list(itertools.product((0, 1), repeat=3)))
    counts = np.concatenate([np.ones((8, 1), int), 1 - skip], axis=1).astype(np.uint8)
    return make_record(1.2 - 0.1 * skip.sum(1), counts, n=n, seed=seed)


def mean_macs(record: DecisionRecord) -> np.ndarray:
    cost = make_cost([10, 7, 5, 3] if len(record.units) == 4 else range(5, 5 + len(record.units)))
    return cost.cost(record.signals.counts)["macs"].astype(float)


def with_confidence(signals: Signals, confidence: np.ndarray) -> Signals:
    return dataclasses.replace(signals, confidence=confidence.astype(np.float32))


# ---- the plain loop of the released evaluation, from its description ------------------------------------
def exact_shares(p: int, exits: int) -> list[Fraction]:
    powers = [Fraction(p, 20) ** (k + 1) for k in range(exits)]
    return [v / sum(powers) for v in powers]


def float_shares(p: int, exits: int) -> list[float]:
    ratio = np.float32(p / 20)
    powers = [ratio ** (k + 1) for k in range(exits)]
    return [float(v / np.sum(powers, dtype=np.float32)) for v in powers]


def loop_thresholds(confidence: np.ndarray, p: int) -> list[float]:
    """confidence [K, n] of the validation split -> thresholds, by walking over sorted samples."""
    exits, n = confidence.shape
    left_already = np.zeros(n)
    thresholds = [1e8] * exits
    for k in range(exits - 1):
        wanted = math.floor(n * exact_shares(p, exits)[k])
        count = 0
        for i in sorted(range(n), key=lambda i: -confidence[k, i]):
            if left_already[i] == 0:
                count += 1
                if count == wanted:
                    thresholds[k] = float(confidence[k, i])
                    break
        for i in range(n):
            if confidence[k, i] >= thresholds[k]:
                left_already[i] = 1
    thresholds[-1] = -1e8
    return thresholds


def loop_exits(confidence: np.ndarray, thresholds: list[float]) -> list[int]:
    return [next(k for k in range(len(thresholds)) if column[k] >= thresholds[k]) for column in confidence.T]


@pytest.mark.parametrize("exits", [2, 5, 10])
@pytest.mark.parametrize("kind", ["smooth", "ties at 1", "coarse"])
def test_budgeted_batch_is_exact_against_a_plain_loop(exits: int, kind: str) -> None:
    val, test = exits_record(211, 1, exits)[0].signals, exits_record(157, 2, exits)[0].signals
    if kind == "ties at 1":
        val, test = (with_confidence(s, np.minimum(1.0, s.confidence + 0.3)) for s in (val, test))
    elif kind == "coarse":
        val, test = (with_confidence(s, np.round(s.confidence, 1)) for s in (val, test))
    order = exit_order(val)
    policies = BudgetedBatch.members(val, np.zeros(exits))
    assert [policy.setting for policy in policies] == [p / 20 for p in range(1, 41)]
    for p, policy in zip(range(1, 41), policies):
        policy.fit(val, exits_record(211, 1, exits)[0].outcomes)
        expected = loop_thresholds(val.confidence[order].astype(float), p)
        finite = np.clip(policy.thresholds.astype(float), -1e8, 1e8)
        assert finite.tolist() == expected
        choice = policy.apply(test)
        assert order[loop_exits(test.confidence[order].astype(float), expected)].tolist() == choice.point.tolist()


@pytest.mark.parametrize("n", [5000, 50000])
@pytest.mark.parametrize("exits", [5, 7, 10])
def test_shares_in_integers_equal_the_published_float_arithmetic(n: int, exits: int) -> None:
    for p in range(1, 41):
        expected = [math.floor(np.float32(n) * np.float32(q)) for q in float_shares(p, exits)]
        assert BudgetedBatch(p).quota(n, exits)[:-1] == expected[:-1]


@pytest.mark.parametrize("n", [5000, 50000])
@pytest.mark.parametrize("exits", [8, 11])
def test_shares_stay_exact_where_float_arithmetic_is_an_image_off(n: int, exits: int) -> None:
    """(0.2, 11 exits) gives exit 1 exactly four fifths of the images; float32 can floor that to one less."""
    for p in range(1, 41):
        quota = BudgetedBatch(p).quota(n, exits)
        assert quota == [math.floor(n * share) for share in exact_shares(p, exits)]
        released = [math.floor(np.float32(n) * np.float32(q)) for q in float_shares(p, exits)]
        assert max(abs(a - b) for a, b in zip(quota, released)) <= 1


def test_published_shares() -> None:
    """Planned mean cost of the first and middle law for known cumulative costs (M MACs) of a 5-exit network."""
    cost = np.array([339902824, 685456720, 1008156120, 1254472688, 1360529624]) / 1e6
    for p, planned in ((1, 358.0), (10, 607.2), (20, 929.7), (30, 1119.1), (39, 1204.6), (40, 1211.2)):
        quota = np.array(BudgetedBatch(p).quota(10**9, 5)) / 1e9
        assert quota @ cost == pytest.approx(planned, abs=0.06)


def test_one_image_and_an_exit_that_nobody_takes() -> None:
    val = exits_record(1, 3)[0]
    for policy in BudgetedBatch.members(val.signals, np.zeros(5)):
        policy.fit(val.signals, val.outcomes)
        assert np.isposinf(policy.thresholds[:-1]).all()  # floor(1 * q) is 0 everywhere
        assert (policy.apply(val.signals).point == exit_order(val.signals)[-1]).all()


def test_exits_are_ordered_by_what_they_run_not_by_their_place() -> None:
    record = exits_record(20, 0, 5)[0]
    assert record.points[0] == "exit5"
    assert [record.points[i] for i in exit_order(record.signals)] == [f"exit{k}" for k in range(1, 6)]


def test_points_that_do_not_nest_are_no_exits() -> None:
    counts = np.array([[1, 1, 0], [1, 0, 1]], np.uint8)
    with pytest.raises(RunError, match="nest"):
        exit_order(make_record([1, 1], counts, n=5).signals)
    with pytest.raises(RunError, match="nest"):
        exit_order(make_record([1, 1], np.ones((2, 3), np.uint8), n=5).signals)
    with pytest.raises(RunError, match="every image"):
        exit_order(make_record([1, 1], np.ones((2, 5, 3), np.uint8), n=5).signals)


SWEEPS = [
    (ConfidenceSweep, lambda s, k, i, t: s.confidence[k, i] >= np.float32(t)),
    (MarginSweep, lambda s, k, i, t: s.margin[k, i] >= np.float32(t)),
    (EntropySweep, lambda s, k, i, t: s.entropy[k, i] <= np.float32(t)),
]


@pytest.mark.parametrize(("kind", "leaves"), SWEEPS)
def test_sweeps_against_a_plain_loop(kind, leaves) -> None:  # type: ignore[no-untyped-def]
    signals = exits_record(120, 4)[0].signals
    order = exit_order(signals).tolist()
    costs = []
    for policy in kind.members(signals, np.zeros(5)):
        found = policy.apply(signals).point.tolist()
        for i in range(signals.n):
            expected = next((k for k in order if leaves(signals, k, i, policy.setting)), order[-1])
            assert found[i] == expected
        costs.append(sum(order.index(k) for k in found))
    assert len(set(costs)) > 5
    assert costs == sorted(costs, reverse=kind is EntropySweep)


def test_patience_against_a_plain_loop() -> None:
    signals = exits_record(200, 5)[0].signals
    order = exit_order(signals).tolist()
    members = Patience.members(signals, np.zeros(5))
    assert [policy.setting for policy in members] == [1, 2, 3]
    for policy in members:
        found = policy.apply(signals).point.tolist()
        for i in range(signals.n):
            row = 0
            for k, before in zip(order[1:], order):
                row = row + 1 if signals.prediction[k, i] == signals.prediction[before, i] else 0
                if row >= policy.setting:
                    break
            assert found[i] == k


def test_cascade_pays_for_both_and_sends_on_the_share_it_was_fitted_to() -> None:
    val, test = paths_record(800, 1), paths_record(600, 2)
    macs = mean_macs(val)
    kind = policy_class("cascade")
    for policy in kind.members(val.signals, macs):
        policy.fit(val.signals, val.outcomes)
        on_val = policy.apply(val.signals)
        assert (on_val.point == 0).mean() == pytest.approx(policy.setting, abs=2e-3)
        choice = policy.apply(test.signals)
        unsure = test.signals.confidence[7] < policy.thresholds[0]
        assert np.array_equal(choice.point, np.where(unsure, 0, 7))
        by_hand = np.where(unsure, macs[7] + macs[0], macs[7])
        assert np.array_equal(choice.spent(macs), by_hand)
        counts = choice.counts(test.signals)
        assert np.array_equal(counts, test.signals.counts[7] + unsure[:, None] * test.signals.counts[0].astype(int))


def test_cascade_has_nothing_to_do_where_the_default_is_cheapest() -> None:
    val = paths_record()
    macs = mean_macs(val)
    macs[0] = 0
    assert policy_class("cascade").members(val.signals, macs) == []


@pytest.mark.parametrize("kind", ["exits", "static_paths"])
def test_permuted_test_labels_change_no_threshold_and_no_choice(kind: str) -> None:
    make = (lambda n, s: exits_record(n, s)[0]) if kind == "exits" else paths_record
    val, test = make(400, 1), make(300, 2)
    permuted = np.random.default_rng(0).permutation(test.n)
    leaked = dataclasses.replace(
        test.outcomes,
        label=test.outcomes.label[permuted], hit=test.outcomes.hit[:, permuted],
        hit5=test.outcomes.hit5[:, permuted], logp=test.outcomes.logp[:, permuted],
    )  # fmt: skip
    found = []
    for outcomes in (test.outcomes, leaked):
        record = DecisionRecord(test.signals, outcomes)
        policies = make_policies([kind], policy_names(), val.signals, mean_macs(val), validation=True)
        made = b""
        for policy in policies:
            policy.fit(val.signals, val.outcomes)
            choice = policy.apply(record.signals)
            made += policy.thresholds.tobytes() + choice.point.tobytes() + choice.paid.tobytes()
        found.append(made)
    assert found[0] == found[1]
    assert len(policies) > 20


def test_oracle_is_the_cheapest_right_answer() -> None:
    record, cost = exits_record(300, 6)
    macs = cost.cost(record.signals.counts)["macs"]
    choice = oracle(record, macs)
    for i in range(record.n):
        right = [k for k in range(5) if record.outcomes.hit[k, i]]
        expected = min(right, key=lambda k: macs[k]) if right else int(np.argmin(macs))
        assert choice.point[i] == expected
    assert choice.gather(record.outcomes.hit).mean() == record.outcomes.hit.any(axis=0).mean()


def test_random_exits_are_the_law_of_budgeted_batch() -> None:
    record = exits_record(50)[0]
    order = exit_order(record.signals)
    for exits in random_exits(record.signals):
        quota = BudgetedBatch(round(exits.setting * 20)).quota(10**9, 5)
        np.testing.assert_allclose(exits.shares[order], np.array(quota) / 1e9, atol=1e-8)


def test_choice_gathers_and_counts() -> None:
    record = exits_record(6)[0]
    choice = Choice.of_point(np.array([0, 1, 2, 3, 4, 0]), 5)
    assert choice.gather(record.signals.prediction).tolist() == [
        record.signals.prediction[k, i] for i, k in enumerate([0, 1, 2, 3, 4, 0])
    ]
    assert choice.counts(record.signals).sum(axis=1).tolist() == [5, 1, 2, 3, 4, 5]
    per_image = np.arange(30).reshape(5, 6)
    assert choice.spent(per_image).tolist() == [per_image[k, i] for i, k in enumerate([0, 1, 2, 3, 4, 0])]


def test_catalogue_by_capability() -> None:
    assert default_policies([], validation=True) == ["fixed"]
    assert default_policies(["gates"], validation=True) == ["fixed"]
    assert default_policies(["exits"], validation=True) == ["anytime", "budgeted", "confidence"]
    assert default_policies(["exits"], validation=False) == ["anytime", "confidence"]
    assert default_policies(["static_paths"], validation=True) == ["fixed", "cascade"]
    for name in policy_names():
        assert policy_class(name).name == name
        assert policy_class(name).help


def test_asked_policies_are_checked() -> None:
    with pytest.raises(ConfigError, match="did you mean 'budgeted'"):
        check_policies(["budgetted"], "holdout")
    with pytest.raises(ConfigError, match="chooses on a validation part"):
        check_policies(["budgeted"], "published")
    check_policies(["confidence", "fixed"], "published")
    signals = exits_record(10)[0].signals
    macs = np.arange(5.0)
    names = {p.name for p in make_policies(["exits"], ["patience"], signals, macs, validation=True)}
    assert names == {"anytime", "patience"}
    assert {p.name for p in make_policies([], ["patience"], signals, macs, validation=True)} == {"fixed"}
