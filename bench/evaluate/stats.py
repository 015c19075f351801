"""Intervals that say what they are about, without more than numpy.

Two questions, two intervals. *These trained networks on new images*: the weights are fixed, the test set
is a sample of images (Wilson for the accuracy of one network; bootstrap over the shared test images for
differences and averages). *The method over new training runs*: each seed is one draw (Student's t over
seeds). With few seeds a percentile bootstrap over them is too narrow, so there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

NEW_IMAGES = "these trained networks on new images"
NEW_IMAGES_ONE = "this trained network on new images"
NEW_RUNS = "the method over new training runs"


@dataclass(frozen=True)
class Interval:
    """low, high: its ends, in the unit of the estimate. level: 0.95 for 95 %. about: what varies."""

    low: float
    high: float
    level: float
    about: str
    kind: str

    def __str__(self) -> str:
        return describe(self.level, self.kind, self.about)


def describe(level: float, kind: str, about: str) -> str:
    """'95 % Wilson interval: this trained network on new images': its meaning, for tables and plots."""
    return f"{100 * level:g} % {kind}: {about}"


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927), as fractions: the accuracy of one network.

    Centre (p + z^2/2n) / (1 + z^2/n), half width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n).
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} hits of {n}")
    z = normal_quantile(0.5 + level / 2)
    p = hits / n
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    low = 0.0 if hits == 0 else centre - half  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if hits == n else centre + half
    return Interval(low, high, level, NEW_IMAGES_ONE, "Wilson interval")


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Mean +- t sd / sqrt(n) over seeds; None for one seed, which says nothing about others."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile(0.5 + level / 2, n - 1) * deviation / math.sqrt(n)
    return Interval(mean - half, mean + half, level, NEW_RUNS, f"t interval over {n} seeds")


def bootstrap_mean(
    values: np.ndarray, level: float = 0.95, *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over images of the mean of per-image values [N].

    For a paired comparison pass the difference of two networks' hits on the same images; for several
    seeds pass each image's mean over them. Values take few distinct numbers there, so that a resample is
    one multinomial draw over these, exact and fast.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values of shape {values.shape}")
    n = len(values)
    rng = np.random.default_rng(seed)
    levels, often = np.unique(values, return_counts=True)
    if len(levels) <= 256:
        means = rng.multinomial(n, often / n, size=resamples) @ levels / n
    else:
        means = np.array([values[rng.integers(0, n, n)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(low), float(high), level, NEW_IMAGES, "bootstrap interval over test images")


def paired_difference(
    hit_a: np.ndarray, hit_b: np.ndarray, level: float = 0.95, *, resamples: int = 10_000, seed: int = 0
) -> tuple[float, Interval]:
    """Accuracy of A minus that of B, as a fraction, with its interval over shared test images.

    hit_a, hit_b: bool [N], or [S, N] for S trained networks each (averaged per image before resampling).
    """
    difference = _per_image(hit_a) - _per_image(hit_b)
    return float(difference.mean()), bootstrap_mean(difference, level, resamples=resamples, seed=seed)


def _per_image(hit: np.ndarray) -> np.ndarray:
    hit = np.asarray(hit, dtype=np.float64)
    return hit if hit.ndim == 1 else hit.mean(axis=0)


def normal_quantile(p: float) -> float:
    """Quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(p)


def t_cdf(x: float, df: int) -> float:
    """Distribution function of Student's t with an integer number of degrees of freedom.

    The finite trigonometric sums of Abramowitz and Stegun 26.7.3 and 26.7.4, exact but for rounding.
    """
    if df < 1:
        raise ValueError(f"{df} degrees of freedom")
    theta = math.atan2(x, math.sqrt(df))
    cos2 = df / (df + x * x)
    total, term = 0.0, math.sqrt(cos2) if df % 2 else 1.0
    for k in range(df // 2):  # odd: cos + 2/3 cos^3 + ...; even: 1 + 1/2 cos^2 + ...
        total += term
        term *= cos2 * ((2 * k + 2) / (2 * k + 3) if df % 2 else (2 * k + 1) / (2 * k + 2))
    if df % 2:
        within = 2 / math.pi * (theta + math.sin(theta) * total)
    else:
        within = math.sin(theta) * total
    return 0.5 + within / 2


def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t by bisection on ``t_cdf``, to the last digits."""
    if not 0 < p < 1:
        raise ValueError(f"no quantile at {p}")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2
