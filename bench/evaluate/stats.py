"""Intervals that say what they are about, without more than numpy.

Different questions, different intervals. *These trained networks on new images*: the weights are fixed, the
test set is a sample of images (Wilson for the accuracy of one network; the shared test images for differences
and averages). *The method over new training runs*: each seed is one draw (Student's t over seeds). With few
seeds a percentile bootstrap over them is too narrow, so there is none. *The method over new training runs and
new images*: both vary (``bench.evaluate.comparing.differences``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np

NEW_IMAGES = "these trained networks on new images"
NEW_IMAGES_ONE = "this trained network on new images"
NEW_RUNS = "the method over new training runs"
NEW_RUNS_AND_IMAGES = "the method over new training runs and new images"

#: Two seeds hardly tell how much trainings differ: from three on there are intervals over them.
FEWEST_SEEDS = 3
#: What stands in place of an interval of two seeds.
TWO_SEEDS = "two seeds, no interval: smallest and largest are both values"


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

    def within(self, low: float, high: float) -> Interval:
        """Cut to what the estimate can be, which takes nothing from what the interval covers."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


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


def t_interval(values: Sequence[float], level: float = 0.95, *, grain: float = 0.0) -> Interval | None:
    """Mean +- t sqrt((sd^2 + grain) / n) over seeds; None for fewer than three.

    grain: variance of a value that the seeds cannot show, since an accuracy is known to whole images only
    (``accuracy_grain``): it keeps the interval from vanishing if seeds are equal by chance.
    """
    n = len(values)
    if n < FEWEST_SEEDS:
        return None
    mean = math.fsum(values) / n
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1) + grain
    half = t_quantile(0.5 + level / 2, n - 1) * math.sqrt(variance / n)
    return Interval(mean - half, mean + half, level, NEW_RUNS, f"t interval over {n} seeds")


def over_seeds_interval(
    percent: Sequence[float], images: int, level: float = 0.95, *, about: str = NEW_RUNS
) -> Interval | None:
    """The t interval of accuracies in percent, one for each seed, measured on ``images`` test images. It ends within 0
    and 100. None for fewer than three seeds."""
    found = t_interval(percent, level, grain=100**2 * accuracy_grain(images))
    return None if found is None else replace(found, about=about).within(0.0, 100.0)


def accuracy_grain(images: int) -> float:
    """Variance of an accuracy, a fraction, that was rounded to whole images."""
    return 1 / (12 * images * images)


def mean_interval(
    values: np.ndarray, level: float = 0.95, about: str = NEW_IMAGES_ONE
) -> Interval:
    """Mean +- z sd / sqrt(N) over the test images of per-image values [N], of trained networks. One image is added
    that lies half a unit off each way, as for differences, which keeps the interval from vanishing."""
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), float(values.mean())
    variance = (float(((values - mean) ** 2).sum()) + 1) / (n * (n - 1))
    half = normal_quantile(0.5 + level / 2) * math.sqrt(variance)
    return Interval(mean - half, mean + half, level, about, "normal interval over test images")


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted p-values of Holm's step-down procedure, [m]: at most alpha where the hypothesis is rejected with a
    family-wise error of alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def normal_quantile(p: float) -> float:
    """Quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(p)


def t_cdf(x: float, df: float) -> float:
    """Distribution function of Student's t with ``df`` > 0 degrees of freedom.

    Up to 1,000 whole ones the finite trigonometric sums of Abramowitz and Stegun 26.7.3 and 26.7.4, exact but for
    rounding; else by ``t_tail``.
    """
    if not df > 0:
        raise ValueError(f"{df} degrees of freedom")
    if df != int(df) or df > 1000:
        return 1 - t_tail(x, df) if x >= 0 else t_tail(-x, df)
    df = int(df)
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


def t_tail(x: float, df: float) -> float:
    """P(T > x), x >= 0, of Student's t, accurate however small it is: half the regularised incomplete beta
    function of df/2, 1/2 at df / (df + x^2) (Abramowitz and Stegun 26.7.1); beyond 1e7 degrees the normal tail."""
    if x < 0 or not df > 0:
        raise ValueError(f"no tail beyond {x} with {df} degrees of freedom")
    if df > 1e7:
        return normal_tail(x)
    a, b, y = df / 2, 0.5, df / (df + x * x)
    if y >= 1:
        return 0.5
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        - a * math.log1p(x * x / df) + b * (2 * math.log(x) - math.log(df + x * x))
    )  # fmt: skip
    if y < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, y) / a / 2
    return (1 - front * _beta_fraction(b, a, x * x / (df + x * x)) / b) / 2


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8) by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + step * d) or tiny)
            c = (1 + step / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def normal_tail(x: float) -> float:
    """P(Z > x) of the standard normal distribution."""
    return math.erfc(x / math.sqrt(2)) / 2


@lru_cache(maxsize=4096)
def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t with ``df`` > 0 degrees of freedom, to the last digits.

    By bisection on ``t_cdf``; with a broken number of degrees by Newton's steps on the logarithm of the tail.
    """
    if not 0 < p < 1:
        raise ValueError(f"no quantile at {p}")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    if df != int(df) or df > 1000:
        return _t_beyond(1 - p, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def _t_beyond(tail: float, df: float) -> float:
    """x >= 0 with P(T > x) = tail."""
    if tail >= 0.5:
        return 0.0
    low, high = 0.0, 2.0
    while t_tail(high, df) > tail:
        low, high = high, high * 4
    constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    x = (low + high) / 2
    for _ in range(200):
        found = t_tail(x, df)
        low, high = (x, high) if found > tail else (low, x)
        density = math.exp(constant - (df + 1) / 2 * math.log1p(x * x / df))
        # The logarithm of the tail is nearly straight in log(x), which few degrees of freedom need.
        step = x * math.exp(min(max(math.log(found / tail) * found / (density * x), -5), 5)) if x > 0 else 0.0
        new = step if low < step < high else (low + high) / 2
        if abs(new - x) <= 1e-14 * x:
            return new
        x = new
    return x
