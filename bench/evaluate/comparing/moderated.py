"""Variances over seeds that borrow from each other: the empirical Bayes of Smyth (2004), eqs. 3, 5 and section 6.2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prior:
    """What the variances of several contenders have in common: that they scatter about s0^2 as if it had been
    estimated with ``degrees`` degrees of freedom. inf: they do not differ by more than chance."""

    degrees: float
    variance: float


def fit_prior(variances: Sequence[float], degrees: int) -> Prior:
    """From sample variances s^2 > 0, two or more, each of ``degrees`` = S - 1: moments of log s^2.

    log s^2 has the mean log s0^2 + psi(d/2) - log(d/2) - psi(d0/2) + log(d0/2) and the variance
    psi'(d/2) + psi'(d0/2).
    """
    if len(variances) < 2 or min(variances) <= 0:
        raise ValueError("needs two positive variances or more")
    shift = digamma(degrees / 2) - math.log(degrees / 2)
    e = [math.log(v) - shift for v in variances]
    mean = math.fsum(e) / len(e)
    beyond = math.fsum((x - mean) ** 2 for x in e) / (len(e) - 1) - trigamma(degrees / 2)
    if beyond <= 0:
        return Prior(math.inf, math.exp(mean))
    d0 = 2 * trigamma_inverse(beyond)
    return Prior(d0, math.exp(mean + digamma(d0 / 2) - math.log(d0 / 2)))


def moderate(variance: float, degrees: int, prior: Prior) -> float:
    """(d0 s0^2 + d s^2) / (d0 + d)."""
    if math.isinf(prior.degrees):
        return prior.variance
    return (prior.degrees * prior.variance + degrees * variance) / (prior.degrees + degrees)


def moderated_degrees(degrees: int, prior: Prior, contenders: int) -> float:
    """Of the difference of two means: twice d0 + d, at most what all variances together have, K d."""
    return min(2 * (prior.degrees + degrees), float(contenders * degrees))


def digamma(x: float) -> float:
    """psi(x), x > 0, to 1e-13: recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3.18)."""
    below = 0.0
    while x < 10:
        below -= 1 / x
        x += 1
    y = 1 / (x * x)
    return below + math.log(x) - 1 / (2 * x) - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))


def trigamma(x: float) -> float:
    """psi'(x), x > 0 (6.4.12)."""
    below = 0.0
    while x < 10:
        below += 1 / (x * x)
        x += 1
    y = 1 / (x * x)
    series = 1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - y * (5 / 66))))
    return below + 1 / x + y / 2 + y / x * series


def trigamma_inverse(value: float) -> float:
    """x > 0 with psi'(x) = value > 0, by bisection of the logarithm: psi' falls."""
    low, high = -40.0, 40.0
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if trigamma(math.exp(middle)) > value else (low, middle)
    return math.exp((low + high) / 2)
