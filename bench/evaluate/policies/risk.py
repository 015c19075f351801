"""Thresholds with a promise about the risk: Learn-then-Test and conformal risk control.

The risk is the share of images that are harmed by leaving early. *gap*: the last exit would have been right and the
answer is wrong (the accuracy that is lost, gains not set off). *consistency*: the answer is not the last exit's, which
needs no labels. One threshold on the confidence serves all exits, from ``THRESHOLDS``: a grid that was fixed before any
image was seen, from the safest down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import numpy as np

from bench.evaluate.policies.base import (
    DEFAULT_RISK,
    VALIDATION,
    Choice,
    Policy,
    Promise,
    Risk,
    exit_order,
    first_true,
)
from bench.evaluate.record import Outcomes, Signals

R = TypeVar("R", bound="RiskControl")

#: 100 per factor of ten of 1 - threshold, down to 0, at which all images leave at the first exit.
THRESHOLDS = (1 - np.logspace(-6, 0, 601)).astype(np.float32)


class RiskControl(Policy):
    """``setting``: the largest risk that is allowed, a share of the images (`evaluate.risk`)."""

    requires: ClassVar[frozenset[str]] = frozenset({"exits"})
    chosen_on: ClassVar[str] = VALIDATION

    def __init__(self, target: float, delta: float) -> None:
        self.setting = target
        self.delta = delta
        self.promise = Promise(target, self.promised_delta, self.realised)

    @classmethod
    def members(cls: type[R], signals: Signals, macs: np.ndarray) -> Sequence[R]:
        return cls.members_for(signals, macs, DEFAULT_RISK)

    @classmethod
    def members_for(cls: type[R], signals: Signals, macs: np.ndarray, risk: Risk) -> Sequence[R]:
        exit_order(signals)
        return [cls(target, risk.delta) for target in risk.targets] if len(signals.points) > 1 else []

    @property
    def promised_delta(self) -> float | None:
        return self.delta

    def losses(self, signals: Signals, outcomes: Outcomes) -> np.ndarray:
        """Whether leaving at each exit harms each image, bool [K, N], earliest exit first."""
        raise NotImplementedError

    def keeps(self, harmed: np.ndarray, n: int) -> np.ndarray:
        """bool [J]: whether each threshold may be used. harmed: images harmed, int [J]; n: images."""
        raise NotImplementedError

    def fit(self, signals: Signals, outcomes: Outcomes) -> None:
        harmed = harm(signals.confidence[exit_order(signals)], self.losses(signals, outcomes)).sum(axis=1)
        last = last_kept(self.keeps(harmed, signals.n))
        self.thresholds = np.array([np.inf if last is None else THRESHOLDS[last]], dtype=np.float32)

    def apply(self, signals: Signals) -> Choice:
        order = exit_order(signals)
        taken = first_true(signals.confidence[order] >= self.thresholds[0])
        return Choice.of_point(order[taken], len(order))

    def realised(self, choice: Choice, signals: Signals, outcomes: Outcomes) -> float:
        """The risk of a choice on a split, a share of its images."""
        order = exit_order(signals)
        losses = np.empty(signals.prediction.shape, dtype=bool)
        losses[order] = self.losses(signals, outcomes)
        return float(choice.gather(losses).sum()) / signals.n


def harm(confidence: np.ndarray, losses: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """Whether each image is harmed at each threshold, bool [J, N]. confidence, losses: [K, N], earliest exit first."""
    found = np.broadcast_to(losses[-1], (len(thresholds), losses.shape[1])).copy()
    for own, loss in zip(confidence[-2::-1], losses[-2::-1]):
        np.copyto(found, loss, where=own >= thresholds[:, None])
    return found


def last_kept(keeps: np.ndarray) -> int | None:
    """The last threshold before the first that may not be used; None if that is the first of all."""
    return int(np.argmin(np.append(keeps, False))) - 1 if len(keeps) and keeps[0] else None


def binomial_cdf(n: int, p: float) -> np.ndarray:
    """Pr(X <= k) for k = 0..n of a binomial variable with n draws of probability p, [n + 1]."""
    k = np.arange(n)
    steps = np.log((n - k) / (k + 1)) + np.log(p / (1 - p))
    logs = n * np.log1p(-p) + np.concatenate([[0.0], np.cumsum(steps)])
    return np.minimum(np.cumsum(np.exp(logs)), 1.0)


class _Gap(RiskControl):
    def losses(self, signals: Signals, outcomes: Outcomes) -> np.ndarray:
        hit = outcomes.hit[exit_order(signals)]
        return hit[-1] & ~hit


class _Consistency(RiskControl):
    def losses(self, signals: Signals, outcomes: Outcomes) -> np.ndarray:
        prediction = signals.prediction[exit_order(signals)]
        return prediction != prediction[-1]


class _LearnThenTest(RiskControl):
    """Learn-then-Test (Angelopoulos et al. 2021; for exits Jazbec et al. 2024, arXiv 2405.20915) with a fixed sequence:
    go down from the safest threshold as long as the hypothesis "the risk is above the target" is rejected by the
    binomial tail at delta, and use the last threshold that was *certified*. Then the risk on new images is at most the
    target with probability 1 - delta. If none is certified, all images take the last exit."""

    def keeps(self, harmed: np.ndarray, n: int) -> np.ndarray:
        return binomial_cdf(n, float(self.setting or 0))[harmed] <= self.delta


class _Conformal(RiskControl):
    """Conformal risk control (Angelopoulos et al. 2022; for exits Jazbec et al. 2024, arXiv 2405.20915, equation 10):
    go down as long as n/(n+1) risk + 1/(n+1) is at most the target. The mean of the risk over validation parts is then
    at most the target; about half of all validation parts break it."""

    @property
    def promised_delta(self) -> float | None:
        return None

    def keeps(self, harmed: np.ndarray, n: int) -> np.ndarray:
        return (harmed + 1) / (n + 1) <= float(self.setting or 0)


class LearnThenTestGap(_Gap, _LearnThenTest):
    __doc__ = _LearnThenTest.__doc__
    name: ClassVar[str] = "ltt_gap"
    help: ClassVar[str] = "accuracy lost to the last exit stays below setting, with probability 1 - evaluate.delta"


class LearnThenTestConsistency(_Consistency, _LearnThenTest):
    __doc__ = _LearnThenTest.__doc__
    name: ClassVar[str] = "ltt_consistency"
    help: ClassVar[str] = "answers unlike the last exit's stay below setting, with probability 1 - evaluate.delta"


class ConformalGap(_Gap, _Conformal):
    __doc__ = _Conformal.__doc__
    name: ClassVar[str] = "crc_gap"
    help: ClassVar[str] = "accuracy lost to the last exit stays below setting on average"


class ConformalConsistency(_Consistency, _Conformal):
    __doc__ = _Conformal.__doc__
    name: ClassVar[str] = "crc_consistency"
    help: ClassVar[str] = "answers unlike the last exit's stay below setting on average"
