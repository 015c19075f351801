"""Policies whose answers are computed from the logits of several exits, or with probabilities of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

import numpy as np

from bench.errors import RunError
from bench.evaluate.policies.base import VALIDATION, Choice, Policy, exit_order
from bench.evaluate.policies.exits import ConfidenceSweep
from bench.evaluate.policies.points import Anytime
from bench.evaluate.record import Outcomes, Signals

R = TypeVar("R", bound="Rescored")

#: The smallest probability of a class: log-probabilities stay finite.
FLOOR = float(np.log(np.finfo(np.float32).tiny))


class Rescored(Policy):
    """A rule on signals (``rule``: all images at one exit, or thresholds) that sees rescored answers instead of the
    network's own. Members share one ``Scores``, which is fitted once for all of them."""

    requires: ClassVar[frozenset[str]] = frozenset({"exits"})
    chosen_on: ClassVar[str] = VALIDATION
    needs_logits: ClassVar[bool] = True
    own_answers: ClassVar[bool] = False
    #: how the answers are computed
    SCORES: ClassVar[type[Scores]]
    #: the rules that see them
    RULES: ClassVar[tuple[type[Policy], ...]] = (Anytime, ConfidenceSweep)

    def __init__(self, rule: Policy, scores: Scores) -> None:
        self.rule = rule
        self.scores = scores
        self.setting = rule.setting

    @classmethod
    def members(cls: type[R], signals: Signals, macs: np.ndarray) -> Sequence[R]:
        scores = cls.SCORES()
        if len(signals.points) < 2:
            return []
        return [cls(rule, scores) for kind in cls.RULES for rule in kind.members(signals, macs)]

    def fit(self, signals: Signals, outcomes: Outcomes) -> None:
        self.scores.fit_once(signals, outcomes)
        if self.rule.chosen_on == VALIDATION:
            self.rule.fit(self.scores.seen(signals), outcomes)
        own = self.rule.thresholds if self.rule.chosen_on == VALIDATION else np.empty(0)
        self.thresholds = np.concatenate([own, self.scores.fitted])

    def apply(self, signals: Signals) -> Choice:
        choice = self.rule.apply(self.scores.seen(signals))
        logp = self.scores.logp(signals)[choice.point, np.arange(signals.n)]
        return replace(choice, logp=logp, same_class=self.scores.SAME_CLASS)

    def point_name(self, signals: Signals) -> str:
        return self.rule.point_name(signals)


class Scores:
    """Log-probabilities of every exit's answer, from the logits; ``fitted`` holds what was found on validation."""

    #: whether the most probable class stays that of the exit
    SAME_CLASS: ClassVar[bool] = False

    def __init__(self) -> None:
        self.fitted: np.ndarray = np.empty(0)
        self._fitted_on: Signals | None = None

    def fit_once(self, signals: Signals, outcomes: Outcomes) -> None:
        """Fit on the validation part, unless that was done for another member."""
        if self._fitted_on is not signals:
            self.fitted = self.find(_logits(signals)[exit_order(signals)], outcomes.label.astype(np.int64))
            self._fitted_on = signals
            _RECENT.clear()

    def find(self, logits: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Fit. logits: float32 [K, N, C], earliest exit first. label: int64 [N]."""
        return np.empty(0)

    def rescore(self, logits: np.ndarray) -> np.ndarray:
        """Log-probabilities float32 [K, N, C] from logits [K, N, C], earliest exit first."""
        raise NotImplementedError

    def logp(self, signals: Signals) -> np.ndarray:
        """Log-probabilities float32 [P, N, C] in the order of the points."""
        return _RECENT.get(self, signals)[0]

    def seen(self, signals: Signals) -> Signals:
        """The signals with prediction, confidence, margin and entropy of the rescored answers."""
        return _RECENT.get(self, signals)[1]

    def make(self, signals: Signals) -> tuple[np.ndarray, Signals]:
        """Both of the above."""
        order = exit_order(signals)
        logp = np.empty_like(_logits(signals), dtype=np.float32)
        logp[order] = np.maximum(self.rescore(_logits(signals)[order]), FLOOR)
        probability = np.exp(logp)
        top = np.sort(np.partition(probability, -2, axis=-1)[..., -2:], axis=-1)
        prediction = signals.prediction if self.SAME_CLASS else probability.argmax(axis=-1).astype(np.int32)
        return logp, replace(
            signals, prediction=prediction, confidence=top[..., 1], margin=top[..., 1] - top[..., 0],
            entropy=-(probability * logp).sum(axis=-1),
        )  # fmt: skip


class _Recent(Generic[R]):
    """What was computed last: a rule's members are applied to one split after the other, and one such array may take
    tens of megabytes, so that no policy keeps its own."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.key: tuple[Scores, Signals] | None = None
        self.value: tuple[np.ndarray, Signals] | None = None

    def get(self, scores: Scores, signals: Signals) -> tuple[np.ndarray, Signals]:
        if self.key is None or self.value is None or self.key[0] is not scores or self.key[1] is not signals:
            self.clear()
            self.value = scores.make(signals)
            self.key = scores, signals
        return self.value


_RECENT: _Recent = _Recent()


def _logits(signals: Signals) -> np.ndarray:
    """float32 [P, N, C]. RunError if they were not kept for all classes."""
    found = signals.logits
    if found is None or not found.whole:
        raise RunError("this policy needs the logits of all classes")
    return found.dense()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
