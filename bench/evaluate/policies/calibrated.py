"""Leave where images of like confidence were right often enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.evaluate.policies.base import VALIDATION, Choice, Policy, exit_order, first_true
from bench.evaluate.record import Outcomes, Signals


class AccuracyCalibrated(Policy):
    """Performance control early exiting (Wang et al. 2024, arXiv 2412.19325): at each exit look up the *accuracy* of
    the validation images with like confidence, and leave if it is at least ``setting``, one knob that reads as an
    accuracy. Like: in the same of ``BINS`` bins of equally many validation images. ``thresholds``: for every exit the
    lower ends of the bins where images leave (inf: of those where they stay)."""

    name: ClassVar[str] = "accuracy_calibrated"
    requires: ClassVar[frozenset[str]] = frozenset({"exits"})
    chosen_on: ClassVar[str] = VALIDATION
    help: ClassVar[str] = "leave where validation images of like confidence were right so often (setting)"
    BINS: ClassVar[int] = 15
    GRID: ClassVar[tuple[float, ...]] = (
        0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0,
    )  # fmt: skip

    def __init__(self, target: float) -> None:
        self.setting = target
        self.edges = np.empty((0, 0))
        self.leaves = np.empty((0, 0), dtype=bool)

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[AccuracyCalibrated]:
        exit_order(signals)
        return [cls(target) for target in cls.GRID] if len(signals.points) > 1 else []

    def fit(self, signals: Signals, outcomes: Outcomes) -> None:
        assert self.setting is not None
        order = exit_order(signals)
        bins = min(self.BINS, signals.n)
        starts = np.arange(bins) * signals.n // bins
        self.edges = np.sort(signals.confidence[order], axis=1)[:, starts]
        self.edges[:, 0] = -np.inf
        self.leaves = np.zeros(self.edges.shape, dtype=bool)
        for k, hit in enumerate(outcomes.hit[order]):
            place = self._bins(signals.confidence[order[k]], k)
            number, right = (np.bincount(place, weights, minlength=bins) for weights in (None, hit))
            self.leaves[k] = (number > 0) & (right >= self.setting * number)
        lower = np.maximum(self.edges, 0)
        self.thresholds = np.where(self.leaves, lower, np.inf).ravel()

    def apply(self, signals: Signals) -> Choice:
        order = exit_order(signals)
        go = np.stack([self.leaves[k][self._bins(signals.confidence[point], k)] for k, point in enumerate(order)])
        return Choice.of_point(order[first_true(go)], len(order))

    def _bins(self, confidence: np.ndarray, k: int) -> np.ndarray:
        """The last bin that begins at or below each confidence, so that equal ones are together."""
        return np.searchsorted(self.edges[k], confidence, side="right") - 1
