"""Early exits: a sample leaves at the first exit that satisfies the rule, and always at the last one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.evaluate.policies.base import VALIDATION, Choice, Policy, exit_order, first_true
from bench.evaluate.record import Outcomes, Signals

_EXITS = frozenset({"exits"})


class BudgetedBatch(Policy):
    """Budgeted batch classification (Huang et al. 2018, section 4.2; the released evaluation).

    A share q_k of the images is meant to leave at exit k, q_k proportional to r^(k+1) (k from 0), with
    r = p/20 for p = 1..40: r < 1 favours early exits, 1 is uniform. Thresholds come from the validation split,
    exit by exit: T_k is the floor(n q_k)-th largest confidence among images that have not left, so that ties
    leave too; none leave where floor(n q_k) is 0 or fewer remain. An image leaves at the first exit whose
    confidence is >= T_k. No budget is solved for: the sweep over r is the curve, and the realised mean cost on
    the test split is its abscissa. Shares are computed in integers, so floors are exact. The released float32
    arithmetic gives the same floors for 5, 7 and 10 exits and validation parts of 5,000 and 50,000 images; for
    other numbers of exits (8, 11) it can be one image off at an exit.
    """

    name: ClassVar[str] = "budgeted"
    requires: ClassVar[frozenset[str]] = _EXITS
    chosen_on: ClassVar[str] = VALIDATION
    help: ClassVar[str] = "budgeted batch classification; setting: r, the ratio between shares of successive exits"
    rank: ClassVar[int] = 10
    words: ClassVar[str] = "exits, budgeted batch"
    setting_words: ClassVar[str] = "budgeted batch, r = {}"
    STEPS: ClassVar[int] = 20
    GRID: ClassVar[range] = range(1, 41)

    def __init__(self, p: int) -> None:
        self.p = p
        self.setting = p / self.STEPS

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[BudgetedBatch]:
        exit_order(signals)
        return [cls(p) for p in cls.GRID] if len(signals.points) > 1 else []

    def quota(self, n: int, exits: int) -> list[int]:
        """floor(n q_k) of every exit."""
        weights = [self.p ** (k + 1) * self.STEPS ** (exits - k - 1) for k in range(exits)]
        return [n * weight // sum(weights) for weight in weights]

    def fit(self, signals: Signals, outcomes: Outcomes) -> None:
        confidence = signals.confidence[exit_order(signals)]
        exits, n = confidence.shape
        self.thresholds = np.full(exits, np.inf, dtype=np.float32)
        self.thresholds[-1] = -np.inf
        remaining = np.ones(n, dtype=bool)
        for k, out in enumerate(self.quota(n, exits)[:-1]):
            left = confidence[k][remaining]
            if 0 < out <= len(left):
                self.thresholds[k] = np.partition(left, len(left) - out)[len(left) - out]
                remaining &= confidence[k] < self.thresholds[k]

    def apply(self, signals: Signals) -> Choice:
        order = exit_order(signals)
        taken = first_true(signals.confidence[order] >= self.thresholds[:, None])
        return Choice.of_point(order[taken], len(order))


class _Sweep(Policy):
    """One global threshold on a signal for all exits, from a fixed grid: nothing is chosen."""

    requires: ClassVar[frozenset[str]] = _EXITS
    GRID: ClassVar[tuple[float, ...]]

    def __init__(self, setting: float) -> None:
        self.setting = setting
        self.thresholds = np.array([setting], dtype=np.float32)

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[_Sweep]:
        exit_order(signals)
        return [cls(value) for value in cls.GRID] if len(signals.points) > 1 else []

    def leaves(self, signals: Signals, order: np.ndarray) -> np.ndarray:
        """bool [K, N]: whether the rule holds at each exit."""
        raise NotImplementedError

    def apply(self, signals: Signals) -> Choice:
        order = exit_order(signals)
        taken = first_true(self.leaves(signals, order))
        return Choice.of_point(order[taken], len(order))


_PROBABILITIES = (
    0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.998, 0.999,
)  # fmt: skip


class ConfidenceSweep(_Sweep):
    """Leave where the largest probability is at least the threshold."""

    name: ClassVar[str] = "confidence"
    help: ClassVar[str] = "leave at the first exit as confident as the threshold (setting)"
    rank: ClassVar[int] = 30
    dashes: ClassVar[tuple[float, ...]] = (1.2, 1.2)
    words: ClassVar[str] = "exits, confidence threshold"
    setting_words: ClassVar[str] = "confidence at least {}"
    GRID: ClassVar[tuple[float, ...]] = _PROBABILITIES

    def leaves(self, signals: Signals, order: np.ndarray) -> np.ndarray:
        return signals.confidence[order] >= self.thresholds[0]


class MarginSweep(_Sweep):
    """Leave where the two largest probabilities differ by at least the threshold."""

    name: ClassVar[str] = "margin"
    help: ClassVar[str] = "leave where the two largest probabilities differ by the threshold (setting)"
    rank: ClassVar[int] = 40
    words: ClassVar[str] = "exits, margin threshold"
    setting_words: ClassVar[str] = "margin at least {}"
    GRID: ClassVar[tuple[float, ...]] = _PROBABILITIES

    def leaves(self, signals: Signals, order: np.ndarray) -> np.ndarray:
        return signals.margin[order] >= self.thresholds[0]


class EntropySweep(_Sweep):
    """Leave where the entropy is at most the threshold, nats (BranchyNet, Teerapittayanon et al. 2016)."""

    name: ClassVar[str] = "entropy"
    help: ClassVar[str] = "leave where the entropy is at most the threshold (setting, nats)"
    rank: ClassVar[int] = 50
    words: ClassVar[str] = "exits, entropy threshold"
    setting_words: ClassVar[str] = "entropy at most {} nats"
    GRID: ClassVar[tuple[float, ...]] = (
        0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0,
    )  # fmt: skip

    def leaves(self, signals: Signals, order: np.ndarray) -> np.ndarray:
        return signals.entropy[order] <= self.thresholds[0]


class Patience(_Sweep):
    """Leave where so many exits in a row agree (PABEE, Zhou et al. 2020): ``setting`` repetitions of the first
    prediction of the row."""

    name: ClassVar[str] = "patience"
    help: ClassVar[str] = "leave once a prediction was repeated so many times (setting)"
    rank: ClassVar[int] = 60
    words: ClassVar[str] = "exits, patience"
    setting_words: ClassVar[str] = "patience, {} repetitions"
    GRID: ClassVar[tuple[float, ...]] = ()

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[Patience]:
        return [cls(float(times)) for times in range(1, len(exit_order(signals)) - 1)]

    def leaves(self, signals: Signals, order: np.ndarray) -> np.ndarray:
        prediction = signals.prediction[order]
        row = np.zeros(prediction.shape, dtype=np.int64)
        for k in range(1, len(order)):
            row[k] = np.where(prediction[k] == prediction[k - 1], row[k - 1] + 1, 0)
        return row >= self.thresholds[0]
