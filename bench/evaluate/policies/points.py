"""Every image at the same operating point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.evaluate.policies.base import Choice, Kind, Policy, exit_order
from bench.evaluate.record import Signals


class Fixed(Policy):
    """All images at one operating point: static paths, gate thresholds, a plain network."""

    name: ClassVar[str] = "fixed"
    help: ClassVar[str] = "every operating point by itself"
    kind: ClassVar[Kind] = "points"

    def __init__(self, point: int) -> None:
        self.point = point

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[Fixed]:
        return [cls(point) for point in range(len(signals.points))]

    def apply(self, signals: Signals) -> Choice:
        return Choice.of_point(np.full(signals.n, self.point), len(signals.points))

    def point_name(self, signals: Signals) -> str:
        return signals.points[self.point]


class Anytime(Fixed):
    """All images stop at the same exit, at its cumulative cost with all earlier heads: what a network knows
    when it is interrupted there. The rows are those of ``fixed``, under the name that the field uses."""

    name: ClassVar[str] = "anytime"
    requires: ClassVar[frozenset[str]] = frozenset({"exits"})
    help: ClassVar[str] = "every exit by itself, at its cumulative cost"
    kind: ClassVar[Kind] = "steps"
    dashes: ClassVar[tuple[float, ...]] = (3, 2)
    words: ClassVar[str] = "exits of one network (anytime)"

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[Anytime]:
        exit_order(signals)  # raises where these are no exits
        return [cls(point) for point in range(len(signals.points))]
