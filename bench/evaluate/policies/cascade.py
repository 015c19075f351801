"""A cascade over static paths: the cheap one answers first, the full one is asked where it is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.evaluate.policies.base import VALIDATION, Choice, Policy
from bench.evaluate.record import Outcomes, Signals


class Cascade(Policy):
    """Run the cheapest path; where its confidence is below a threshold, run the default path as well.

    Both are paid for. ``setting`` is the share of images meant to go on; the threshold is the confidence below
    which that share of the validation images lies.
    """

    name: ClassVar[str] = "cascade"
    requires: ClassVar[frozenset[str]] = frozenset({"static_paths"})
    chosen_on: ClassVar[str] = VALIDATION
    help: ClassVar[str] = "cheapest path first, the default one where unsure; setting: share that goes on"
    rank: ClassVar[int] = 20
    dashes: ClassVar[tuple[float, ...]] = (5, 1.2, 1.2, 1.2)
    words: ClassVar[str] = "cascade of static paths"
    setting_words: ClassVar[str] = "cascade, share that goes on {}"
    GRID: ClassVar[tuple[float, ...]] = (
        0.0, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
    )  # fmt: skip

    def __init__(self, share: float, first: int, second: int = 0) -> None:
        self.setting = share
        self.first = first
        self.second = second

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[Cascade]:
        cheapest = int(np.argmin(macs))
        return [cls(share, cheapest) for share in cls.GRID] if macs[cheapest] < macs[0] else []

    def fit(self, signals: Signals, outcomes: Outcomes) -> None:
        assert self.setting is not None
        confidence = np.sort(signals.confidence[self.first])
        on = min(round(self.setting * len(confidence)), len(confidence))
        least = confidence[on] if on < len(confidence) else np.float32(np.inf)
        self.thresholds = np.array([least if on else -np.inf], dtype=np.float32)

    def apply(self, signals: Signals) -> Choice:
        goes_on = signals.confidence[self.first] < self.thresholds[0]
        paid = np.zeros((signals.n, len(signals.points)), dtype=bool)
        paid[:, self.first] = True
        paid[goes_on, self.second] = True
        return Choice(np.where(goes_on, self.second, self.first), paid)
