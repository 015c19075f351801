"""A temperature for each exit before any threshold rule."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bench.evaluate.policies.base import Policy
from bench.evaluate.policies.exits import BudgetedBatch, EntropySweep, MarginSweep
from bench.evaluate.policies.rescored import Rescored, Scores, log_softmax

#: Steps of the golden section between temperatures e^-3 and e^3: far below what a float32 can resolve.
_STEPS = 60
_GOLDEN = (5**0.5 - 1) / 2


class Temperatures(Scores):
    """softmax(z_k / T_k), T_k by the negative log-likelihood of the validation labels (Guo et al. 2017)."""

    SAME_CLASS: ClassVar[bool] = True

    def find(self, logits: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.array([_temperature(exit_logits.astype(np.float64), label) for exit_logits in logits])

    def rescore(self, logits: np.ndarray) -> np.ndarray:
        return log_softmax(logits / self.fitted.astype(np.float32)[:, None, None])


def _temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The minimum over T of the mean negative log-likelihood, which is convex in 1/T."""

    def nll(log_t: float) -> float:
        return -float(log_softmax(logits * np.exp(-log_t))[np.arange(len(label)), label].mean())

    low, high = -3.0, 3.0
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = nll(a), nll(b)
    for _ in range(_STEPS):
        if high - low < 1e-6:
            break
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = nll(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = nll(b)
    return float(np.exp((low + high) / 2))


class Temperature(Rescored):
    """Temperature scaling of each exit (Guo et al. 2017), then one threshold on the confidence for all exits. The order
    of images within one exit hardly changes, so what a temperature can gain is a better balance between exits: rules
    with a threshold per exit (``temperature_budgeted``) show next to none (arXiv 2508.21495 asks just that)."""

    name: ClassVar[str] = "temperature"
    help: ClassVar[str] = "confidence after a temperature per exit, fitted on validation; setting: threshold"
    SCORES: ClassVar[type[Scores]] = Temperatures


class TemperatureBudgeted(Temperature):
    """The same before budgeted batch classification."""

    name: ClassVar[str] = "temperature_budgeted"
    help: ClassVar[str] = "budgeted after a temperature per exit, fitted on validation; setting: r"
    RULES: ClassVar[tuple[type[Policy], ...]] = (BudgetedBatch,)


class TemperatureMargin(Temperature):
    """The same before one threshold on the margin."""

    name: ClassVar[str] = "temperature_margin"
    help: ClassVar[str] = "margin after a temperature per exit, fitted on validation; setting: threshold"
    RULES: ClassVar[tuple[type[Policy], ...]] = (MarginSweep,)


class TemperatureEntropy(Temperature):
    """The same before one threshold on the entropy."""

    name: ClassVar[str] = "temperature_entropy"
    help: ClassVar[str] = "entropy after a temperature per exit, fitted on validation; setting: threshold, nats"
    RULES: ClassVar[tuple[type[Policy], ...]] = (EntropySweep,)
