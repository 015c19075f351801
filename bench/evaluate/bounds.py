"""What no policy can reach, and what every policy should beat. Bounds read test labels; policies cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.evaluate.policies.base import Choice, exit_order
from bench.evaluate.policies.exits import BudgetedBatch
from bench.evaluate.record import DecisionRecord, Signals

ORACLE = "oracle"
RANDOM = "random"

#: Which split chose: the labels of the very images that are scored.
TEST_LABELS = "test labels (bound)"


def oracle(record: DecisionRecord, macs: np.ndarray) -> Choice:
    """Each image at the cheapest point that is right, at the cheapest of all where none is.

    macs: [P] or [P, N]. Upper bound of accuracy for every rule that picks one of these points per image, and
    lower bound of the cost at that accuracy.
    """
    cost = np.broadcast_to(macs if macs.ndim == 2 else macs[:, None], record.outcomes.hit.shape)
    order = np.argsort(cost, axis=0, kind="stable")
    right = np.take_along_axis(record.outcomes.hit, order, axis=0)
    first = np.where(right.any(axis=0), right.argmax(axis=0), 0)
    point = np.take_along_axis(order, first[None], axis=0)[0]
    return Choice.of_point(point, len(record.points))


@dataclass(frozen=True)
class RandomExit:
    """Leave at exit k with probability q_k, whatever the image: shares of points, [P], and their ratio r as
    in ``BudgetedBatch``. Its accuracy and cost are expectations, without sampling."""

    shares: np.ndarray
    setting: float


def random_exits(signals: Signals, grid: Sequence[int] = tuple(range(2, 41, 2))) -> list[RandomExit]:
    """The law of budgeted batch classification with exits drawn at random."""
    order = exit_order(signals)
    found = []
    for p in grid:
        ratio = p / BudgetedBatch.STEPS
        shares = np.empty(len(order))
        shares[order] = ratio ** np.arange(1, len(order) + 1)
        found.append(RandomExit(shares / shares.sum(), ratio))
    return found
