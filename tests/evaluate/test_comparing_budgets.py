"""Points within a budget: exact against plain loops, chosen without a look at the test labels."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from synthetic_records import exits_record, make_cost, make_record

from bench.config.comparing import Budget, parse_budget
from bench.config.schema import Evaluate
from bench.cost.table import CostTable
from bench.evaluate.comparing.budgets import (
    TOO_DEAR,
    Limit,
    Prices,
    budget_rows,
    budget_summary,
    choose_all,
)
from bench.evaluate.comparing.choosing import Candidate, choose, find_candidates, front
from bench.evaluate.comparing.contenders import NO_RECORDS, NO_VALIDATION, Contender, make_contender, validated
from bench.evaluate.comparing.frontier import auc_scores, staircase
from bench.evaluate.measured import Measured
from bench.evaluate.record import DecisionRecord, Outcomes
from bench.evaluate.rows import make_rows
from bench.evaluate.stats import t_interval, wilson

Both = tuple[DecisionRecord, CostTable]


def plain(n: int, seed: int) -> Both:
    record = make_record([1.0], np.ones((1, 2), np.uint8), n=n, seed=seed, points=["full"])
    return record, make_cost([40_000_000, 1000], record.units)


def static_paths(n: int, seed: int) -> Both:
    skip = np.array(list(itertools.product((0, 1), repeat=3)))
    counts = np.concatenate([np.ones((8, 1), int), 1 - skip], axis=1).astype(np.uint8)
    names = ["".join("TF"[s] for s in row) for row in skip]
    record = make_record(1.2 - 0.1 * skip.sum(1), counts, n=n, seed=seed, points=names)
    return record, make_cost([20_000_000, 8_000_000, 7_000_000, 6_000_000], record.units)


def gates(n: int, seed: int) -> Both:
    need = np.random.default_rng(seed + 99).beta(2, 1.5, size=(n, 6))
    blocks = np.stack([need > t for t in (0.5, 0.3, 0.7)]).astype(np.uint8)
    counts = np.concatenate([np.ones((3, n, 1), np.uint8), blocks], axis=2)
    record = make_record([1.0, 1.1, 0.8], counts, n=n, seed=seed, points=["t0.5", "t0.3", "t0.7"])
    return record, make_cost([1_000_000] + [8_000_000] * 6, record.units)


MAKERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "exits": (exits_record, ("exits",)), "paths": (static_paths, ("static_paths",)),
    "gates": (gates, ("gates",)), "plain": (plain, ()),
}  # fmt: skip


def measured(kind: str, seed: int = 0, *, n: int = 400, val: bool = True) -> Measured:
    make, capabilities = MAKERS[kind]
    test, cost = make(n, 10 + seed)
    records = {"test": test} | ({"val": make(300, 50 + seed)[0]} if val else {})
    meta = {"run": kind, "capabilities": list(capabilities), "protocol_version": 1, "dataset": "d",
            "split_hash": "s", "seed": seed}  # fmt: skip
    return Measured(meta, records, cost, Evaluate())


def permuted(one: Measured, seed: int = 1) -> Measured:
    """All test labels, and everything that was computed with them, belong to other images."""
    outcomes = one.test.outcomes
    order = np.random.default_rng(seed).permutation(one.test.n)
    moved = Outcomes(
        outcomes.indices, outcomes.label[order], outcomes.hit[:, order][::-1], outcomes.hit5[:, order][::-1],
        outcomes.logp[:, order][::-1],
    )  # fmt: skip
    records = {**one.records, "test": DecisionRecord(one.test.signals, moved)}
    return dataclasses.replace(one, records=records)


def contender(kinds: list[str], seeds: tuple[int, ...] = (0,), change: Any = None) -> Contender:
    by_seed = {seed: {kind: measured(kind, seed) for kind in kinds} for seed in seeds}
    if change:
        by_seed = {seed: {kind: change(one) for kind, one in runs.items()} for seed, runs in by_seed.items()}
    return make_contender("+".join(kinds), "C", by_seed)


LIMITS = [Limit(Budget(m * 1e6, "macs"), macs=m * 1e6) for m in (5, 8, 21.5, 27, 33, 35.5, 40.001, 41, 60)]


def loop_points(one: Measured) -> list[dict[str, Any]]:
    """Every operating point's validation and test numbers by the code of the long table."""
    on_test = make_rows({**one.meta}, one.records, one.cost, one.evaluate)
    swapped = {"test": one.records["val"], "val": one.records["val"]}
    on_val = make_rows({**one.meta}, swapped, one.cost, one.evaluate)
    return [
        {"test": t, "val": v} for t, v in zip(on_test, on_val) if t["policy"] not in ("oracle", "random")
    ]  # fmt: skip


@pytest.mark.parametrize("kinds", [["exits"], ["paths"], ["gates"], ["plain"], ["plain", "paths", "exits", "gates"]])
def test_choice_is_exact_against_a_plain_loop(kinds: list[str]) -> None:
    found = choose_all([contender(kinds, (0, 1))], LIMITS, Prices())
    rows = budget_rows(found, 0.95)
    assert len(rows) == 2 * len(LIMITS)
    by_seed = {
        seed: [point for kind in kinds for point in loop_points(measured(kind, seed))] for seed in (0, 1)
    }
    afforded = 0
    for row in rows:
        best = None
        for point in by_seed[row["seed"]]:
            if point["val"]["macs"] > row["budget_macs"]:
                continue
            if (
                best is None
                or point["val"]["top1"] > best["val"]["top1"]
                or (point["val"]["top1"] == best["val"]["top1"] and point["val"]["macs"] < best["val"]["macs"])
            ):
                best = point
        if best is None:
            assert row["reason"].startswith(TOO_DEAR)
            assert "top1" not in row
            continue
        afforded += 1
        for name in ("run", "policy", "point", "setting", "top1", "top1_lo", "top1_hi", "interval", "macs_p95", "n"):
            assert row[name] == best["test"][name], name
        assert row["macs"] == pytest.approx(best["test"]["macs"], abs=1e-3)
        assert row["val_top1"] == pytest.approx(best["val"]["top1"], abs=1e-4)
        assert row["val_macs"] == pytest.approx(best["val"]["macs"], abs=1e-3)
        over = max(0.0, 100 * (best["test"]["macs"] / row["budget_macs"] - 1))
        assert row["over_budget_percent"] == pytest.approx(over, abs=1e-4)
    assert afforded >= 2


@pytest.mark.parametrize("kinds", [["exits"], ["paths"], ["gates"], ["plain"], ["exits", "paths", "gates", "plain"]])
def test_permuting_all_test_labels_changes_no_threshold_and_no_choice(kinds: list[str]) -> None:
    before, after = contender(kinds, (0, 1)), contender(kinds, (0, 1), permuted)
    for mine, theirs in zip(before.seeds, after.seeds):
        assert len(mine.candidates) == len(theirs.candidates) > 0
        for a, b in zip(mine.candidates, theirs.candidates):
            assert a.rule.thresholds.tobytes() == b.rule.thresholds.tobytes()
            assert dataclasses.replace(a, rule=b.rule) == b
    chosen = [choose_all([c], LIMITS, Prices()) for c in (before, after)]
    changed = 0
    for one, other in zip(*chosen):
        assert (one.candidate is None) == (other.candidate is None)
        if one.candidate is not None and other.candidate is not None:
            assert one.candidate.order == other.candidate.order
            assert one.scored is not None
            assert other.scored is not None
            assert one.scored.macs.tobytes() == other.scored.macs.tobytes()
            changed += not np.array_equal(one.scored.hit, other.scored.hit)
    assert changed > 0  # the labels did matter for what is reported


def test_what_choosing_is_given_holds_no_test_image() -> None:
    """Every array that can be reached from it has as many images as the validation part."""
    one = measured("exits", n=401)
    seen: list[np.ndarray] = []

    def walk(value: Any, depth: int = 0) -> None:
        if isinstance(value, np.ndarray):
            seen.append(value)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item, depth + 1)
        elif isinstance(value, (tuple, list)):
            for item in value:
                walk(item, depth + 1)
        elif hasattr(value, "__dict__"):
            walk(vars(value), depth + 1)

    network = validated("exits", one)
    walk(network)
    walk(find_candidates([network]))
    assert any(300 in array.shape for array in seen)
    assert not any(401 in array.shape for array in seen)


def candidate(order: int, macs: float, top1: float) -> Candidate:
    return Candidate("r", "fixed", str(order), None, None, top1, macs, order)  # type: ignore[arg-type]


def test_ties_go_to_the_cheaper_point_then_to_the_first_of_the_file() -> None:
    points = [candidate(0, 30, 90.0), candidate(1, 20, 90.0), candidate(2, 20, 90.0), candidate(3, 10, 80.0)]
    assert [c.order for c in front(points)] == [3, 1]
    picked = [choose(front(points), limit) for limit in (9.99, 10, 19, 20, 30, 1000)]
    assert [c.order if c else None for c in picked] == [None, 3, 3, 1, 1, 1]


def test_random_fronts_against_trying_every_candidate() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        points = [candidate(k, float(m), float(t)) for k, (m, t) in enumerate(rng.integers(0, 8, (9, 2)))]
        for limit in range(-1, 9):
            fits = [p for p in points if p.val_macs <= limit]
            best = min(fits, key=lambda p: (-p.val_top1, p.val_macs, p.order), default=None)
            assert choose(front(points), limit) == best


def test_milliseconds_choose_among_timed_points_only() -> None:
    one = contender(["exits"])
    times = {("exits", "anytime", "exit1", ""): 1.0, ("exits", "anytime", "exit3", ""): 3.0,
             ("exits", "budgeted", "", "1"): 2.0}  # fmt: skip
    prices = Prices(times)
    limits = [Limit(parse_budget(f"{ms}ms"), ms=ms) for ms in (0.5, 1.0, 2.5, 50.0)]
    rows = budget_rows(choose_all([one], limits, prices), 0.95)
    assert rows[0]["reason"] == f"{TOO_DEAR} (cheapest: 1 ms)"
    timed = {(c.policy, c.point, c.setting): c.val_top1 for c in one.seeds[0].candidates if prices.ms(c) is not None}
    assert len(timed) == 3
    assert (rows[1]["policy"], rows[1]["point"], rows[1]["ms"]) == ("anytime", "exit1", 1.0)
    assert rows[3]["val_top1"] == pytest.approx(max(timed.values()), abs=1e-4)
    assert all(row.get("over_budget_percent") is None for row in rows)
    nothing = budget_rows(choose_all([contender(["plain"])], limits[:1], prices), 0.95)
    assert nothing[0]["reason"] == "no operating point was timed at batch 1"


def test_summary_over_seeds() -> None:
    chosen = choose_all([contender(["exits"], (0, 1, 2)), contender(["plain"])], LIMITS[-1:], Prices())
    rows = budget_rows(chosen, 0.9)
    several, _ = budget_summary(chosen, 0.9)
    top1 = [row["top1"] for row in rows[:3]]
    n = rows[0]["n"]
    t = t_interval(top1, 0.9, grain=100**2 / (12 * n * n))
    assert t is not None
    assert several["n_seeds"] == 3
    assert several["seeds"] == "0 1 2"
    assert several["top1_mean"] == pytest.approx(np.mean(top1), abs=1e-4)
    assert several["top1_median"] == pytest.approx(np.median(top1), abs=1e-4)
    assert (several["top1_min"], several["top1_max"]) == (min(top1), max(top1))
    assert several["top1_lo"] == pytest.approx(t.low, abs=1e-3)
    assert several["interval"] == "90 % t interval over 3 seeds: the method over new training runs"
    assert several["macs_p95_mean"] == pytest.approx(np.mean([row["macs_p95"] for row in rows[:3]]), abs=1e-3)


def test_summary_of_one_seed_says_that_it_is_one_network() -> None:
    chosen = choose_all([contender(["plain"])], LIMITS[-1:], Prices())
    row = budget_summary(chosen, 0.95)[0]
    own = wilson(int(chosen[0].scored.hit.sum()), 400)  # type: ignore[union-attr]
    assert row["n_seeds"] == 1
    assert row["interval"] == "95 % Wilson interval: this trained network on new images"
    assert row["top1_lo"] == pytest.approx(100 * own.low, abs=1e-4)


def test_seeds_that_cannot_afford_a_budget_are_counted() -> None:
    one = contender(["gates"], (0, 1))
    costs = [min(c.val_macs for c in trained.candidates) for trained in one.seeds]
    between = Limit(Budget(sum(costs) / 2, "macs"), macs=sum(costs) / 2)
    row = budget_summary(choose_all([one], [between], Prices()), 0.95)[0]
    assert row["n_seeds"] == 1
    assert row["reason"] == f"1 of 2 seeds: {TOO_DEAR}"


def test_nothing_is_chosen_without_records_or_validation() -> None:
    published = make_contender("p", "P", {0: {"exits": measured("exits", val=False)}})
    assert published.reason == NO_VALIDATION
    assert published.seeds == ()
    none = make_contender("n", "N", {})
    assert none.reason == NO_RECORDS
    rows = budget_rows(choose_all([published, none], LIMITS[:1], Prices()), 0.95)
    assert [row["reason"] for row in rows] == [NO_VALIDATION, NO_RECORDS]
    assert staircase(none, (1e6, 2e6)) == []


def test_a_plain_network_needs_no_validation_part_since_it_has_nothing_to_choose() -> None:
    plain = make_contender("p", "P", {seed: {"r": measured("plain", seed, val=False)} for seed in (0, 1)})
    assert plain.reason == ""
    macs = plain.seeds[0].candidates[0].val_macs
    limits = [Limit(Budget(b, "macs"), macs=b) for b in (macs, 0.9 * macs)]
    fits, dear = (budget_rows(choose_all([plain], [limit], Prices()), 0.95) for limit in limits)
    assert [row["top1"] for row in fits] == [
        round(100 * float(measured("plain", seed).test.outcomes.hit[0].mean()), 4) for seed in (0, 1)
    ]
    assert [row["val_top1"] for row in fits] == [None, None]
    assert all("top1" not in row or row["top1"] is None for row in dear)
    family = make_contender("f", "F", {0: {name: measured("plain", val=False) for name in ("a", "b")}})
    assert family.reason == NO_VALIDATION


def test_seeds_of_different_test_images_are_no_contender() -> None:
    odd = make_contender("c", "C", {0: {"r": measured("plain")}, 1: {"r": measured("plain", n=399)}})
    assert odd.reason == "its own runs have different test images"


def test_area_of_a_contender_is_the_mean_over_budgets_of_what_they_choose() -> None:
    """The area against choosing at 4,000 budgets, evenly on the logarithmic axis."""
    one = contender(["exits"], (0,))
    limits = (one.seeds[0].front[0].val_macs, one.seeds[0].front[-1].val_macs)
    scores = auc_scores(one.seeds[0], limits)
    assert isinstance(scores, np.ndarray)
    grid = np.exp(np.linspace(*np.log(limits), 4001))
    grid = np.sqrt(grid[1:] * grid[:-1])
    budgets = [Limit(Budget(m, "macs"), macs=m) for m in grid]
    each = [c.scored.top1 for c in choose_all([one], budgets, Prices()) if c.scored]
    assert len(each) == 4000
    assert 100 * scores.mean() == pytest.approx(np.mean(each), abs=0.02)
    steps = staircase(one, limits)  # what the figure draws is what was averaged
    ends = np.log([*(budget for budget, _ in steps), limits[1]])
    drawn = np.diff(ends) @ [top1 for _, top1 in steps] / np.log(limits[1] / limits[0])
    assert drawn == pytest.approx(100 * scores.mean())
    assert staircase(one, (0.5 * limits[0], limits[1])) == []
