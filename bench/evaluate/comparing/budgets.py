"""Accuracy at a budget: the point chosen on validation among those that are cheap enough there, scored on test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.config.comparing import Budget
from bench.evaluate.columns import format_value
from bench.evaluate.comparing.choosing import Candidate, Scored, choose, front
from bench.evaluate.comparing.contenders import Contender, Trained
from bench.evaluate.stats import TWO_SEEDS, over_seeds_interval, wilson

COLUMNS = (
    "contender", "label", "seed", "budget", "budget_macs", "run", "policy", "point", "setting", "val_top1", "val_macs",
    "top1", "top1_lo", "top1_hi", "interval", "macs", "macs_p95", "over_budget_percent", "ms", "n", "reason",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "contender", "label", "budget", "budget_macs", "n_seeds", "seeds", "top1_mean", "top1_median", "top1_min",
    "top1_max", "top1_lo", "top1_hi", "interval", "macs_mean", "macs_p95_mean", "reason",
)  # fmt: skip

TOO_DEAR = "no operating point within the budget"

#: (run, policy, point, setting as a table writes it) -> milliseconds of an image at batch 1.
Latencies = Mapping[tuple[str, str, str, str], float]


@dataclass(frozen=True)
class Limit:
    """A budget in the unit in which candidates are priced. macs, ms: the limit, or None. reason: why it is unknown."""

    budget: Budget
    macs: float | None = None
    ms: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        return str(self.budget)


@dataclass(frozen=True)
class Chosen:
    """What a seed of a contender runs at a budget. candidate: None for the reason given; cheapest: what it could run,
    where that is the reason."""

    contender: Contender
    trained: Trained | None
    limit: Limit
    candidate: Candidate | None
    scored: Scored | None
    ms: float | None = None
    reason: str = ""
    cheapest: str = ""


@dataclass(frozen=True)
class Prices:
    """What candidates cost besides their MACs."""

    latencies: Latencies = field(default_factory=dict)

    def ms(self, candidate: Candidate) -> float | None:
        """Measured milliseconds; None for a point that was not measured."""
        key = (candidate.run, candidate.policy, candidate.point, format_value(candidate.setting))
        return self.latencies.get(key)


def choose_at(contender: Contender, trained: Trained, limit: Limit, prices: Prices) -> Chosen:
    """One seed of a contender at one budget: choose on validation, then score on test."""
    if limit.reason:
        return Chosen(contender, trained, limit, None, None, reason=limit.reason)
    by_ms = limit.ms is not None
    kept = front(trained.candidates, prices.ms) if by_ms else trained.front
    bound = limit.ms if limit.ms is not None else limit.macs
    assert bound is not None
    found = choose(kept, bound, prices.ms) if by_ms else choose(kept, bound)
    if found is None:
        if not kept:
            return Chosen(contender, trained, limit, None, None, reason="no operating point was timed at batch 1")
        least = f"{prices.ms(kept[0]):g} ms" if by_ms else f"{kept[0].val_macs / 1e6:.4g}M MACs"
        return Chosen(contender, trained, limit, None, None, reason=TOO_DEAR, cheapest=least)
    ms = prices.ms(found) if by_ms else None
    return Chosen(contender, trained, limit, found, trained.tested.score(found), ms)


def choose_all(contenders: Sequence[Contender], limits: Sequence[Limit], prices: Prices) -> list[Chosen]:
    """Every contender, budget and seed, in this order; a contender without seeds has one entry per budget."""
    found: list[Chosen] = []
    for contender in contenders:
        for limit in limits:
            if not contender.seeds:
                found.append(Chosen(contender, None, limit, None, None, reason=contender.reason))
            found += [choose_at(contender, trained, limit, prices) for trained in contender.seeds]
    return found


def budget_rows(chosen: Sequence[Chosen], level: float) -> list[dict[str, Any]]:
    """Rows of ``budgets.csv``. over_budget_percent: by how much the mean cost on test exceeds the budget that it kept
    on validation, 0 where it does not; for milliseconds empty, since they are measured once."""
    rows = []
    for one in chosen:
        row: dict[str, Any] = {
            "contender": one.contender.name, "label": one.contender.label,
            "seed": one.trained.seed if one.trained else None, "budget": one.limit.name,
            "budget_macs": one.limit.macs,
            "reason": f"{one.reason} (cheapest: {one.cheapest})" if one.cheapest else one.reason,
        }  # fmt: skip
        if one.candidate is not None and one.scored is not None:
            n, hits = len(one.scored.hit), int(one.scored.hit.sum())
            interval = wilson(hits, n, level)
            over = None if one.limit.macs is None else max(0.0, 100 * (one.scored.mean_macs / one.limit.macs - 1))
            row |= {
                "run": one.candidate.run, "policy": one.candidate.policy, "point": one.candidate.point,
                "setting": one.candidate.setting, "val_top1": None if one.candidate.alone else one.candidate.val_top1,
                "val_macs": one.candidate.val_macs, "top1": one.scored.top1, "top1_lo": 100 * interval.low,
                "top1_hi": 100 * interval.high, "interval": str(interval), "macs": one.scored.mean_macs,
                "macs_p95": one.scored.p95, "over_budget_percent": over, "ms": one.ms, "n": n,
            }  # fmt: skip
        rows.append(rounded(row))
    return rows


def budget_summary(chosen: Sequence[Chosen], level: float) -> list[dict[str, Any]]:
    """Rows of ``budget_summary.csv``: over the seeds that can afford the budget; ``reason`` says where some cannot.

    One seed keeps its interval over test images; from three on it is Student's t over seeds; two have none.
    """
    groups: dict[tuple[str, str], list[Chosen]] = {}
    for one in chosen:
        groups.setdefault((one.contender.name, one.limit.name), []).append(one)
    rows = []
    for members in groups.values():
        first = members[0]
        have = [m for m in members if m.scored is not None]
        top1 = [m.scored.top1 for m in have if m.scored]
        n = len(have[0].scored.hit) if have and have[0].scored else 0
        lacking = [m for m in members if m.scored is None]
        reason = "; ".join(dict.fromkeys(m.reason for m in lacking))
        if have and lacking:
            reason = f"{len(have)} of {len(members)} seeds: {reason}"
        rows.append(rounded({
            "contender": first.contender.name, "label": first.contender.label, "budget": first.limit.name,
            "budget_macs": first.limit.macs, "n_seeds": len(have),
            "seeds": " ".join(str(m.trained.seed) for m in have if m.trained), **over_seeds(top1, n, level),
            "macs_mean": mean([m.scored.mean_macs for m in have if m.scored]),
            "macs_p95_mean": mean([m.scored.p95 for m in have if m.scored]), "reason": reason,
        }))  # fmt: skip
    return rows


def over_seeds(top1: Sequence[float], n: int, level: float) -> dict[str, Any]:
    """Mean, median, ends and interval of accuracies in percent, one for each seed, on n images."""
    if not top1:
        return {"interval": ""}
    known: dict[str, Any] = {
        "top1_mean": mean(top1), "top1_median": statistics.median(top1), "top1_min": min(top1), "top1_max": max(top1),
    }  # fmt: skip
    if len(top1) == 1:
        one = wilson(round(top1[0] * n / 100), n, level)
        return {**known, "top1_lo": 100 * one.low, "top1_hi": 100 * one.high, "interval": str(one)}
    interval = over_seeds_interval(top1, n, level)
    if interval is None:
        return {**known, "top1_lo": None, "top1_hi": None, "interval": TWO_SEEDS}
    return {**known, "top1_lo": interval.low, "top1_hi": interval.high, "interval": str(interval)}


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return math.fsum(values) / len(values) if values else None


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers cut far below what they can resolve."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
