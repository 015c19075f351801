"""The whole curve instead of one budget: the Pareto front, and the area under accuracy over log(MACs)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.evaluate.comparing.budgets import mean, rounded
from bench.evaluate.comparing.choosing import Candidate, choose
from bench.evaluate.comparing.contenders import Contender, Trained
from bench.evaluate.stats import TWO_SEEDS, mean_interval, over_seeds_interval

COLUMNS = (
    "contender", "label", "seed", "run", "policy", "point", "setting", "val_top1", "val_macs", "macs", "top1",
    "on_front",
)  # fmt: skip
AUC_COLUMNS = (
    "contender", "label", "seed", "auc", "auc_median", "auc_min", "auc_max", "auc_lo", "auc_hi", "interval",
    "n_seeds", "low_macs", "high_macs", "reason",
)  # fmt: skip


def pareto_front(macs: np.ndarray, top1: np.ndarray) -> np.ndarray:
    """bool [K]: points on the front of K, those that no other dominates.

    One dominates another where it costs no more and is no less accurate, and one of the two strictly. Equal points
    do not dominate each other: both are on the front or neither is. A point with a nan is not.
    """
    macs, top1 = np.asarray(macs, dtype=np.float64), np.asarray(top1, dtype=np.float64)
    known = np.isfinite(macs) & np.isfinite(top1)
    on = np.zeros(len(macs), dtype=bool)
    best = -math.inf
    for cost in np.unique(macs[known]):
        here = known & (macs == cost)
        most = top1[here].max()
        if most > best:
            on |= here & (top1 == most)
            best = most
    return on


def auc_weights(macs: Sequence[float], low: float, high: float) -> np.ndarray:
    """Share of the range log(low)..log(high) of budgets at which each point is the one to run, [K]; sums to 1.

    macs: of points by growing cost; at a budget the dearest affordable one is run, as on a front that was chosen on
    validation, where dearer means more accurate. ValueError where the range is none, or nothing is as cheap as low.
    """
    costs = np.asarray(macs, dtype=np.float64)
    if not 0 < low < high or not len(costs) or costs[0] > low:
        raise ValueError(f"no budgets between {low:g} and {high:g} for points from {min(macs, default=math.nan):g} on")
    ends = np.log(np.clip(np.append(costs, np.inf), low, high))
    return np.diff(ends) / math.log(high / low)


def auc_log_macs(macs: Sequence[float], top1: Sequence[float], low: float, high: float) -> float:
    """Area under the accuracy that is attained at each budget over log(budget), from ``low`` to ``high``, divided by
    log(high / low): the mean accuracy over budgets drawn evenly on the logarithmic axis, in the unit of ``top1``.

    The curve is the staircase of ``auc_weights``: nothing between two points can be run, so nothing is interpolated;
    a budget above the dearest point runs that one. top1 may be accuracies on test of points chosen on validation, and
    is then no maximum over test accuracies.
    """
    return float(auc_weights(macs, low, high) @ np.asarray(top1, dtype=np.float64))


def auc_scores(trained: Trained, limits: tuple[float, float]) -> np.ndarray | str:
    """Each test image's share of the area, [N] between 0 and 1, their mean is the area; or why there is none."""
    kept = trained.front
    if kept[0].val_macs > limits[0]:
        return (f"its cheapest point costs {kept[0].val_macs / 1e6:.4g}M MACs, and the range of the area (`auc:`) "
                f"begins at {limits[0] / 1e6:.4g}M")  # fmt: skip
    weights = auc_weights([c.val_macs for c in kept], *limits)
    total = np.zeros(0)
    for weight, candidate in zip(weights, kept):
        if weight > 0:
            part = weight * trained.tested.score(candidate).hit
            total = total + part if len(total) else part
    return total


def staircase(contender: Contender, limits: tuple[float, float]) -> list[tuple[float, float]]:
    """The curve whose area is taken: (budget, top-1 percent on test, mean over seeds) at the low end and
    wherever a seed chooses another point. Empty if some seed has no area."""
    low, high = limits
    if not contender.seeds or any(t.front[0].val_macs > low for t in contender.seeds):
        return []
    steps = sorted({low, *(c.val_macs for t in contender.seeds for c in t.front if low < c.val_macs < high)})
    return [(at, float(mean([_top1_at(t, at) for t in contender.seeds]) or 0.0)) for at in steps]


def _top1_at(trained: Trained, budget: float) -> float:
    chosen = choose(trained.front, budget)
    assert chosen is not None
    return trained.tested.score(chosen).top1


def auc_rows(
    contenders: Sequence[Contender], scores: Mapping[str, Sequence[np.ndarray | str]],
    limits: tuple[float, float] | str, level: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of ``auc.csv``: every seed, then their mean (``seed`` is "mean"). scores: ``auc_scores`` of each seed, by
    contender. One seed has an interval over test images, the mean of three and more has one over seeds."""
    rows: list[dict[str, Any]] = []
    for contender in contenders:
        base: dict[str, Any] = {"contender": contender.name, "label": contender.label}
        if not isinstance(limits, str):
            base |= {"low_macs": limits[0], "high_macs": limits[1]}
        reason = contender.reason or (limits if isinstance(limits, str) else "")
        if reason:
            rows.append(rounded({**base, "seed": "mean", "n_seeds": len(contender.seeds), "reason": reason}))
            continue
        areas, reasons = [], []
        for trained, values in zip(contender.seeds, scores[contender.name]):
            if isinstance(values, str):
                reasons.append(values)
                rows.append({**base, "seed": trained.seed, "reason": values})
                continue
            areas.append(100 * float(values.mean()))
            one = mean_interval(values, level).within(0.0, 1.0)
            ends = {"auc_lo": 100 * one.low, "auc_hi": 100 * one.high, "interval": str(one)}
            rows.append(rounded({**base, "seed": trained.seed, "auc": areas[-1], **ends}))
        line = {**base, "seed": "mean", "n_seeds": len(areas), "reason": "; ".join(dict.fromkeys(reasons))}
        if areas and not reasons:
            line |= {"auc": mean(areas), "auc_median": float(np.median(areas)), "auc_min": min(areas),
                     "auc_max": max(areas)}  # fmt: skip
            over = over_seeds_interval(areas, len(scores[contender.name][0]), level)
            if over is not None:
                line |= {"auc_lo": over.low, "auc_hi": over.high, "interval": str(over)}
            elif len(areas) == 1:
                line |= {name: rows[-1][name] for name in ("auc_lo", "auc_hi", "interval")}
            else:
                line["interval"] = TWO_SEEDS
        rows.append(rounded(line))
    return rows


def frontier_rows(contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    """Rows of ``frontier.csv``: the test numbers of every point that some budget would choose on validation.

    By seed, and "mean" over seeds: there the points that all seeds have, chosen by their mean validation numbers.
    on_front: not dominated by a point of any contender with the same ``seed`` entry, by the test numbers.
    """
    rows: list[dict[str, Any]] = []
    for contender in contenders:
        base = {"contender": contender.name, "label": contender.label}
        for trained in contender.seeds:
            rows += [{**base, "seed": trained.seed, **_line([(trained, c)])} for c in trained.front]
        best = -1.0
        for pairs in sorted(_in_all_seeds(contender), key=_by_cost):
            if (top1 := _mean_of(pairs, "val_top1")) > best:
                best = top1
                rows.append({**base, "seed": "mean", **_line(pairs)})
    for seed in dict.fromkeys(row["seed"] for row in rows):
        mine = [row for row in rows if row["seed"] == seed]
        on = pareto_front(np.array([row["macs"] for row in mine]), np.array([row["top1"] for row in mine]))
        for row, flag in zip(mine, on):
            row["on_front"] = "yes" if flag else "no"
    return [rounded(row) for row in rows]


def _in_all_seeds(contender: Contender) -> list[list[tuple[Trained, Candidate]]]:
    """The same operating point in every seed, in file order."""
    found: dict[tuple[Any, ...], list[tuple[Trained, Candidate]]] = {}
    for trained in contender.seeds:
        for c in trained.candidates:
            found.setdefault((c.run, c.policy, c.point, c.setting), []).append((trained, c))
    return [pairs for pairs in found.values() if len(pairs) == len(contender.seeds)]


def _mean_of(pairs: Sequence[tuple[Trained, Candidate]], name: str) -> float:
    return math.fsum(getattr(c, name) for _, c in pairs) / len(pairs)


def _by_cost(pairs: Sequence[tuple[Trained, Candidate]]) -> tuple[float, float]:
    return _mean_of(pairs, "val_macs"), -_mean_of(pairs, "val_top1")


def _line(pairs: Sequence[tuple[Trained, Candidate]]) -> dict[str, Any]:
    """One operating point over one seed or several."""
    first = pairs[0][1]
    scored = [trained.tested.score(c) for trained, c in pairs]
    return {
        "run": first.run, "policy": first.policy, "point": first.point, "setting": first.setting,
        "val_top1": None if pairs[0][1].alone else _mean_of(pairs, "val_top1"), "val_macs": _mean_of(pairs, "val_macs"),
        "macs": mean([s.mean_macs for s in scored]), "top1": mean([s.top1 for s in scored]),
    }  # fmt: skip
