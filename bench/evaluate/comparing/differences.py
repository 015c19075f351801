"""The difference of two methods that were trained several times and measured on the same images.

A hit (or any per-image score) of training run s on image i is a draw of two crossed random effects,

    x[s, i] = mean + a[s] + b[i] + e[s, i],

how good the run is, how easy the image is, and what is particular to both: the variance-components model of
Roe and Metz (1997) for readers and cases, here for runs and images. For S runs and N images the accuracy has
the variance  A/S + B/N + E/(S N).  What a difference of two methods says depends on which of them are thought
to vary:

*these networks on new images*: (B + E/S) / N of the per-image differences of the means over runs; with N
images from 1,000 on it is known, and the interval is normal.

*the method over new runs, on these images*: A/S + E/(S N), what the accuracies of the runs show; t over
differences between runs of one seed, which is exact whatever the two methods' variances and however runs of one
seed depend on each other (they may share a stage).

*the method over new runs and new images*: the sum of both, in which the interaction E/(S N) would stand twice, so
that it is taken out once:  V = V_a + V_b + C,  V_a and V_b the variances of the two means over runs, and
C = (variance over images) - E_a/(S_a N) - E_b/(S_b N), E by the mean square of the two-way table. V_a and V_b have
S - 1 degrees of freedom each, C has so many that it counts as known. Satterthwaite's degrees would be Welch's,
(V_a + V_b)^2 / (V_a^2/(S_a-1) + V_b^2/(S_b-1)), times (V / (V_a + V_b))^2. With two or three runs that is too many,
since runs that are alike by chance make V small *and* the degrees many. With the power 1.2 in place of 2 the
coverage at 95 % lies between 93.0 and 96.8 % for two runs, 94.0 and 96.2 % for three, 94.7 and 95.8 % for five, over
standard deviations of a run's accuracy from 0.1 to 0.6 points, equal or up to fourfold apart, and 1,000 to 50,000
images (normal scores); with the power 2 it is as low as 91 % for two. benchmarks/coverage.py measures it on hits.

No t form of this kind holds far out in the tails, where many comparisons look. The test that verdicts use is more
cautious: half width^2 = z^2 C + t^2 (V_a + V_b) with Welch's degrees (Graybill and Wang 1980), and never less
than for these networks on new images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.evaluate.stats import (
    NEW_IMAGES,
    NEW_RUNS,
    NEW_RUNS_AND_IMAGES,
    Interval,
    accuracy_grain,
    normal_quantile,
    normal_tail,
    t_quantile,
    t_tail,
)

#: How much the variance over images, which is known, adds to the degrees of freedom; see above.
_POWER = 1.2


@dataclass(frozen=True)
class Difference:
    """A minus B, in the unit of the scores, and what is known of its variance.

    effect: difference of the means over runs and images. number: of runs on each side. over_images: variance of
    the effect over new images, these networks. images_alone: what is left of it without the interaction with runs,
    C above. over_runs: V_a, V_b; None for one run. paired: variance of the effect over new runs on these images; None
    likewise. degrees: of freedom of V_a + V_b; None: Welch's.
    """

    effect: float
    number: int
    over_images: float
    images_alone: float
    over_runs: tuple[float, float] | None
    paired: float | None
    degrees: float | None = None

    def images(self, level: float = 0.95) -> Interval:
        """These trained networks on new images."""
        half = normal_quantile(0.5 + level / 2) * math.sqrt(self.over_images)
        return self._interval(half, level, NEW_IMAGES, "paired interval over test images")

    def runs(self, level: float = 0.95) -> Interval | None:
        """The method over new training runs, on these images; None where a side was trained once."""
        if self.paired is None:
            return None
        half = t_quantile(0.5 + level / 2, self.number - 1) * math.sqrt(self.paired)
        return self._interval(half, level, f"{NEW_RUNS}, on these images", "paired t interval over seeds")

    def both(self, level: float = 0.95) -> Interval | None:
        """The method over new training runs and new images; None where a side was trained once."""
        if self.over_runs is None:
            return None
        total = sum(self.over_runs) + self.images_alone
        degrees = self._welch * (total / sum(self.over_runs)) ** _POWER
        half = t_quantile(0.5 + level / 2, degrees) * math.sqrt(total)
        return self._interval(half, level, NEW_RUNS_AND_IMAGES, "crossed t interval over seeds and test images")

    def cautious(self, level: float = 0.95) -> Interval:
        """The interval of the test: holds 0 exactly where ``p_value`` is above 1 - level. About the method over new
        runs and images where both sides were trained at least twice, else about these networks."""
        kind = "interval of the test"
        if self.over_runs is None:
            return self._interval(self.images(level).high - self.effect, level, NEW_IMAGES, kind)
        z, t = normal_quantile(0.5 + level / 2), t_quantile(0.5 + level / 2, self._welch)
        square = max(z * z * self.images_alone + t * t * sum(self.over_runs), z * z * self.over_images)
        return self._interval(math.sqrt(square), level, NEW_RUNS_AND_IMAGES, kind)

    def p_value(self) -> float:
        """Two-sided, of no difference; about what ``cautious`` is about."""
        size = abs(self.effect)
        alone = 2 * normal_tail(size / math.sqrt(self.over_images))
        if self.over_runs is None or size == 0:
            return alone
        # z(p)^2 C + t(p)^2 (V_a + V_b) = size^2, by bisection on t; p falls with t.
        runs = sum(self.over_runs)
        low, high = 0.0, size / math.sqrt(runs)
        for _ in range(60):
            t = (low + high) / 2
            tail = t_tail(t, self._welch)
            z = -normal_quantile(tail) if tail > 1e-300 else math.inf
            low, high = (t, high) if z * z * self.images_alone + t * t * runs < size * size else (low, t)
        return max(alone, min(1.0, 2 * t_tail((low + high) / 2, self._welch)))

    @cached_property
    def _welch(self) -> float:
        """Degrees of freedom of the variances over runs."""
        assert self.over_runs is not None
        if self.degrees is not None:
            return self.degrees
        return sum(self.over_runs) ** 2 * (self.number - 1) / sum(v * v for v in self.over_runs)

    def _interval(self, half: float, level: float, about: str, kind: str) -> Interval:
        return Interval(self.effect - half, self.effect + half, level, about, kind)


def measure_difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """a, b: scores [S, N] of the runs of two methods at the same seeds, in the same order, on the same N images, in the
    same order: hits, or anything between 0 and 1. ValueError if the shapes differ.

    One image is added on which they disagree by half each way (Agresti and Min 2005), which keeps the variance over
    images from vanishing where networks hardly differ; an accuracy is known to 1/N only, which keeps that over runs
    from vanishing where two are equal by chance.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape or min(a.shape) < 1 or a.shape[1] < 2:
        raise ValueError(f"scores of shape {a.shape} and {b.shape} are not of the same seeds and images")
    s, n = a.shape
    each = a.mean(axis=0) - b.mean(axis=0)
    effect = float(each.mean())
    over_images = (float(((each - effect) ** 2).sum()) + 1) / (n * (n - 1))
    if s < 2:
        return Difference(effect, s, over_images, over_images, None, None)
    grain = accuracy_grain(n)
    means_a, means_b = a.mean(axis=1), b.mean(axis=1)
    over_runs = tuple((float(m.var(ddof=1)) + grain) / s for m in (means_a, means_b))
    interaction = sum(_interaction(x) / (s * n) for x in (a, b))
    paired = (float((means_a - means_b).var(ddof=1)) + 2 * grain) / s
    return Difference(
        effect, s, over_images, max(over_images - interaction, 0.0), (over_runs[0], over_runs[1]), paired
    )  # fmt: skip


def _interaction(x: np.ndarray) -> float:
    """Mean square of x[s, i] without the effects of run and image: E."""
    s, n = x.shape
    image, run = x.mean(axis=0), x.mean(axis=1)
    squares = (x * x).sum() - s * (image * image).sum() - n * (run * run).sum() + s * n * x.mean() ** 2
    return max(float(squares), 0.0) / ((s - 1) * (n - 1))

