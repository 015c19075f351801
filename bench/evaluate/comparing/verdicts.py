"""Is A better than B at this budget: yes, no or undecided, and by how much.

Every pair of contenders is tested at every budget, and on the area under the curve. The p-values of one comparison
are adjusted together (Holm 1979): the chance of even one wrong yes or no among all of them is at most 1 - level,
however the tests depend on each other. The interval beside a verdict has the level at which Holm's steps looked at
its row, so that it holds 0 exactly where the verdict is "undecided".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from bench.evaluate.comparing.budgets import rounded
from bench.evaluate.comparing.contenders import Contender
from bench.evaluate.comparing.differences import Difference, measure_difference

COLUMNS = (
    "a", "b", "label_a", "label_b", "budget", "verdict", "better", "effect", "lo", "hi", "interval", "p", "p_adjusted",
    "comparisons", "adjustment", "images_lo", "images_hi", "images_interval", "runs_lo", "runs_hi", "runs_interval",
    "both_lo", "both_hi", "both_interval", "n_seeds_a", "n_seeds_b", "top1_a", "top1_b", "macs_a", "macs_b", "n",
    "note", "reason",
)  # fmt: skip

YES, NO, UNDECIDED = "yes", "no", "undecided"
#: ``budget`` of the row about the area under the curve; its numbers are areas in percent, it has no cost.
AUC = "auc"
ONE_SEED = "one seed: says nothing about other trainings"


@dataclass(frozen=True)
class Standing:
    """A contender at one budget. scores: of its seeds, each [N] over the test images, between 0 and 1. macs: mean over
    seeds of the mean cost on test. reason: why it cannot be compared here; scores are then empty."""

    contender: Contender
    scores: tuple[np.ndarray, ...]
    macs: float | None = None
    reason: str = ""


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted p-values of Holm's step-down procedure, [m]: at most alpha where the hypothesis is rejected with a
    family-wise error of alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def holm_levels(p_values: Sequence[float], level: float = 0.95) -> list[float]:
    """Level of the interval beside each verdict: 1 - alpha / (m - k) for the hypothesis that k were rejected before;
    all that are not rejected have that of the first of them."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = holm(p_values)
    levels = [level] * len(p)
    rejected = 0
    for place in np.argsort(p, kind="stable"):
        levels[place] = 1 - (1 - level) / (len(p) - rejected)
        rejected += bool(adjusted[place] <= 1 - level)
    return levels


def verdict_rows(standings: Mapping[str, Sequence[Standing]], level: float) -> list[dict[str, Any]]:
    """Rows of ``verdicts.csv``. standings: budget as written (or ``AUC``) -> all contenders in file order, which says
    who is A. One family: what is adjusted together."""
    rows: list[dict[str, Any]] = []
    measured: list[tuple[dict[str, Any], Difference]] = []
    for budget, entrants in standings.items():
        for a, b in combinations(entrants, 2):
            row: dict[str, Any] = {
                "a": a.contender.name, "b": b.contender.name, "label_a": a.contender.label,
                "label_b": b.contender.label, "budget": budget, "n_seeds_a": len(a.scores),
                "n_seeds_b": len(b.scores), "reason": _reason(a, b),
            }  # fmt: skip
            if not row["reason"]:
                found = measure_difference(*_aligned(a, b))
                measured.append((row, found))
                row |= _effect(a, b, found, level)
            rows.append(row)
    p_values = [found.p_value() for _, found in measured]
    levels = holm_levels(p_values, level)
    for (row, found), p, adjusted, own in zip(measured, p_values, holm(p_values), levels):
        row |= _verdict(row, found, p, float(adjusted), own, 1 - level, len(measured))
    return [_rounded(row) for row in rows]


def _reason(a: Standing, b: Standing) -> str:
    """Why two cannot be compared, or ''."""
    lacking = [f"{one.contender.label}: {one.reason}" for one in (a, b) if one.reason]
    if lacking:
        return "; ".join(lacking)
    assert a.contender.images is not None
    assert b.contender.images is not None
    if a.scores[0].size < 2:
        return "one test image is too few for a difference"
    return a.contender.images.differs(b.contender.images)


def _aligned(a: Standing, b: Standing) -> tuple[np.ndarray, np.ndarray]:
    """Scores [S, N] of both, seeds that both have first and in the same order."""
    seeds = [[trained.seed for trained in one.contender.seeds] for one in (a, b)]
    common = [seed for seed in seeds[0] if seed in seeds[1]]
    stacks = []
    for one, own in zip((a, b), seeds):
        order = [*common, *(seed for seed in own if seed not in common)]
        stacks.append(np.stack([one.scores[own.index(seed)] for seed in order]))
    return stacks[0], stacks[1]


def _effect(a: Standing, b: Standing, found: Difference, level: float) -> dict[str, Any]:
    """The difference in percent points with the interval of every estimand, not adjusted."""
    row: dict[str, Any] = {
        "effect": 100 * found.effect, "n": len(a.scores[0]), "macs_a": a.macs, "macs_b": b.macs,
        "top1_a": 100 * float(np.mean([s.mean() for s in a.scores])),
        "top1_b": 100 * float(np.mean([s.mean() for s in b.scores])),
        "note": ONE_SEED if found.over_runs is None else "",
    }  # fmt: skip
    for name in ("images", "runs", "both"):
        interval = getattr(found, name)(level)
        if interval is not None:
            row |= {f"{name}_lo": 100 * interval.low, f"{name}_hi": 100 * interval.high,
                    f"{name}_interval": str(interval)}  # fmt: skip
    return row


def _verdict(
    row: Mapping[str, Any], found: Difference, p: float, adjusted: float, own: float, alpha: float, family: int
) -> dict[str, Any]:
    interval = found.cautious(own)
    decided = adjusted <= alpha
    better = "" if not decided else row["label_a"] if found.effect > 0 else row["label_b"]
    return {
        "verdict": UNDECIDED if not decided else YES if found.effect > 0 else NO, "better": better, "p": p,
        "p_adjusted": adjusted, "comparisons": family, "adjustment": f"Holm over {family} comparisons",
        "lo": 100 * interval.low, "hi": 100 * interval.high,
        "interval": f"{100 * own:.6g} % {interval.kind}: {interval.about}",
    }  # fmt: skip


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """As elsewhere; p-values keep their leading digits, however small they are."""
    small: dict[str, Any] = {name: float(f"{row[name]:.4g}") for name in ("p", "p_adjusted") if name in row}
    return {**rounded(row), **small}
