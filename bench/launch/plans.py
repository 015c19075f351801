"""What of a trained run is executed and timed: its operating points, and exits by a policy's thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bench.evaluate.measured import Measured
from bench.evaluate.policies.exits import BudgetedBatch
from bench.method import Plan, Point

__all__ = ["ExitRule", "TimedPlan", "make_plans"]

#: Settings of budgeted batch classification where the comparison has no budgets that the network can meet.
SETTINGS = (0.5, 1.0, 1.5)


class ExitRule:
    """A policy's decision after exit k: logits [b, C] -> bool [b], True for those that go on.

    thresholds: the least confidence with which an image leaves, by exit in the order in which they are reached.
    Confidence is computed as in the decision record.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        self.thresholds = [float(value) for value in thresholds]

    def __call__(self, k: int, logits: Tensor) -> Tensor:
        return logits.float().log_softmax(-1).exp().amax(-1) < self.thresholds[k]


@dataclass(frozen=True)
class TimedPlan:
    """A plan with what the long table calls it, and the record's predictions for the test split, [N]."""

    policy: str
    point: str
    setting: float | None
    plan: Plan
    predictions: np.ndarray


def make_plans(measured: Measured, points: Sequence[Point], budgets: Sequence[float], most: int) -> list[TimedPlan]:
    """The points of a run, the default one first, then policies.

    Of more than ``most`` points the default one is kept and others evenly over their cost. Where the points are
    exits and there is a validation record: for each of the ``budgets`` (MACs) within reach the ratio r of budgeted
    batch classification whose mean cost on the validation part is nearest; where there is none r of ``SETTINGS``.
    """
    signals = measured.test.signals
    exits = "exits" in measured.capabilities
    chosen = choose_points(_macs(measured, "test"), most)
    plans = [
        TimedPlan("anytime" if exits else "fixed", points[p].name, None, points[p], signals.prediction[p])
        for p in chosen
    ]
    if exits and measured.val is not None and len(points) > 1:
        for policy in _budgeted(measured, budgets):
            predictions = policy.apply(signals).gather(signals.prediction)
            plans.append(
                TimedPlan(policy.name, "", policy.setting, ExitRule(list(policy.thresholds)), predictions)
            )
    return plans


def choose_points(macs: np.ndarray, most: int) -> list[int]:
    """Which points: all, in their order; of too many the first and others evenly by rank of cost."""
    if len(macs) <= most:
        return list(range(len(macs)))
    others = sorted(range(1, len(macs)), key=lambda p: macs[p])
    picked = {others[round(place)] for place in np.linspace(0, len(others) - 1, most - 1)} if most > 1 else set()
    return [0, *sorted(picked)]


def _macs(measured: Measured, split: str) -> np.ndarray:
    """Mean MACs of each point over a split, [P]."""
    counts = measured.records[split].signals.counts
    macs = measured.cost.cost(counts)["macs"]
    return macs if macs.ndim == 1 else macs.mean(axis=1)


def _budgeted(measured: Measured, budgets: Sequence[float]) -> list[BudgetedBatch]:
    """Fitted on the validation part; each once."""
    assert measured.val is not None
    signals, macs = measured.val.signals, _macs(measured, "val")
    members = BudgetedBatch.members(signals, macs)
    for policy in members:
        policy.fit(signals, measured.val.outcomes)
    spent = np.array([policy.apply(signals).spent(macs).mean() for policy in members])
    settings = np.array([policy.setting for policy in members])
    reached = [budget for budget in budgets if spent.min() <= budget <= spent.max()]
    wanted = (
        [int(np.abs(spent - budget).argmin()) for budget in reached]
        if reached
        else [int(np.abs(settings - setting).argmin()) for setting in SETTINGS]
    )
    return [members[index] for index in sorted(set(wanted))]
