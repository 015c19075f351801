"""Answers that get no worse from exit to exit: the product of exits, and the most confident exit so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bench.evaluate.policies.base import NOTHING, Choice, Policy, exit_order
from bench.evaluate.policies.exits import ConfidenceSweep
from bench.evaluate.policies.rescored import Rescored, Scores, log_softmax
from bench.evaluate.record import Signals


class Products(Scores):
    """p_k(c) proportional to the product over exits j <= k of relu(z_j(c))^(j/K); the softmax of exit k if no class has
    a positive logit in all of them."""

    def rescore(self, logits: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.arange(1, len(logits) + 1, dtype=np.float32) / len(logits)
            total = np.cumsum(weights[:, None, None] * np.log(np.maximum(logits, 0)), axis=0)
            found = log_softmax(total)
        collapsed = np.isneginf(total).all(axis=-1)
        found[collapsed] = log_softmax(logits[collapsed])
        return found


class Product(Rescored):
    """Product of experts over the exits so far with ReLU in place of exp, which keeps the probability of the label from
    falling on the way (Jazbec et al. 2023, "Towards Anytime Classification in Early-Exit Architectures by Enforcing
    Conditional Monotonicity", arXiv 2306.02652; weights j/K)."""

    name: ClassVar[str] = "product"
    chosen_on: ClassVar[str] = NOTHING
    help: ClassVar[str] = "product of the exits so far, made monotone; setting: threshold on its confidence"
    SCORES: ClassVar[type[Scores]] = Products


class MostConfident(Policy):
    """Answer with the most confident exit so far ("caching" in Jazbec et al. 2023): at one exit for all images, or at
    the first whose confidence reaches the threshold. Every exit up to there is paid."""

    name: ClassVar[str] = "most_confident"
    requires: ClassVar[frozenset[str]] = frozenset({"exits"})
    own_answers: ClassVar[bool] = False
    help: ClassVar[str] = "answer of the most confident exit so far; setting: threshold on the confidence"

    def __init__(self, stop: int | None, setting: float | None) -> None:
        self.stop = stop
        self.setting = setting
        self.thresholds = np.array([] if setting is None else [setting], dtype=np.float32)

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[MostConfident]:
        exit_order(signals)
        if len(signals.points) < 2:
            return []
        return [*(cls(point, None) for point in range(len(signals.points))),
                *(cls(None, value) for value in ConfidenceSweep.GRID)]  # fmt: skip

    def apply(self, signals: Signals) -> Choice:
        order = exit_order(signals)
        confidence = signals.confidence[order]
        if self.stop is not None:
            reached = np.full(signals.n, int(np.flatnonzero(order == self.stop)[0]))
        else:
            go = confidence >= self.thresholds[0]
            go[-1] = True
            reached = go.argmax(axis=0)
        seen = np.where(np.arange(len(order))[:, None] <= reached, confidence, -np.inf)
        return Choice(order[seen.argmax(axis=0)], order[reached][:, None] == np.arange(len(order)))

    def point_name(self, signals: Signals) -> str:
        return "" if self.stop is None else signals.points[self.stop]
