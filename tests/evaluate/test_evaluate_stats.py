"""Intervals and calibration against closed forms and exact coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.evaluate.calibration import ece, nll, reliability
from bench.evaluate.stats import (
    holm,
    mean_interval,
    normal_quantile,
    over_seeds_interval,
    t_cdf,
    t_interval,
    t_quantile,
    wilson,
)


def test_wilson_solves_its_equation() -> None:
    """Both ends satisfy |p - x| = z sqrt(x(1-x)/n): the definition of the score interval."""
    for hits, n, level in ((9173, 10000, 0.95), (3, 7, 0.9), (1, 50000, 0.99)):
        z, p = normal_quantile(0.5 + level / 2), hits / n
        found = wilson(hits, n, level)
        for end in (found.low, found.high):
            assert abs(p - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-9)
        assert found.low < p < found.high


def test_wilson_at_the_ends() -> None:
    z2 = normal_quantile(0.975) ** 2
    assert wilson(0, 20).low == 0.0
    assert wilson(0, 20).high == pytest.approx(z2 / (20 + z2))
    assert wilson(20, 20).high == 1.0
    assert wilson(20, 20).low == pytest.approx(20 / (20 + z2))
    with pytest.raises(ValueError):
        wilson(5, 4)


def test_wilson_covers_as_it_says() -> None:
    """Exact coverage, summed over all outcomes of the binomial, averaged over true accuracies."""
    n = 300
    intervals = [wilson(k, n) for k in range(n + 1)]
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
    coverage = []
    for p in np.linspace(0.5, 0.98, 97):
        mass = [math.exp(logs[k] + k * math.log(p) + (n - k) * math.log(1 - p)) for k in range(n + 1)]
        coverage.append(sum(m for m, i in zip(mass, intervals) if i.low <= p <= i.high))
    assert 0.945 < np.mean(coverage) < 0.96
    assert min(coverage) > 0.92


def test_t_against_closed_forms() -> None:
    for p in (0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-10)
        assert t_quantile(p, 2) == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), rel=1e-10)
        assert t_quantile(1 - p, 7) == pytest.approx(-t_quantile(p, 7))
        assert t_cdf(t_quantile(p, 11), 11) == pytest.approx(p, abs=1e-12)
    for df, table in ((3, 3.182446), (4, 2.776445), (9, 2.262157), (30, 2.042272), (120, 1.979930)):
        assert t_quantile(0.975, df) == pytest.approx(table, abs=1e-6)
    assert t_quantile(0.975, 100_000) == pytest.approx(normal_quantile(0.975), abs=1e-4)


def test_t_interval_of_known_numbers() -> None:
    found = t_interval([1.0, 2.0, 3.0])
    assert found is not None
    half = 4.302652729911275 * 1.0 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert str(found) == "95 % t interval over 3 seeds: the method over new training runs"
    assert t_interval([5.0]) is None
    assert t_interval([5.0, 6.0]) is None  # both values say more


def test_t_interval_covers_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 3))
    intervals = [t_interval(row) for row in draws.tolist()]
    assert 0.93 < np.mean([i.low <= 0 <= i.high for i in intervals if i]) < 0.97


def test_intervals_over_seeds_have_the_grain_and_stay_within_the_scale() -> None:
    """Three seeds that are equal by chance: half an image of uncertainty each, not none."""
    equal = over_seeds_interval([99.0, 99.0, 99.0], 100)
    assert equal is not None
    half = t_quantile(0.975, 2) * math.sqrt(100**2 / (12 * 100**2) / 3)
    assert (equal.low, equal.high) == (pytest.approx(99 - half), pytest.approx(99 + half))
    ends = over_seeds_interval([100.0, 99.0, 100.0], 100)
    assert ends is not None
    assert ends.high == 100.0
    assert over_seeds_interval([5.0, 6.0], 100) is None
    few = over_seeds_interval([0.0, 2.0, 1.0], 100)
    assert few is not None
    assert few.low == 0.0


def test_the_mean_over_images_has_an_added_image() -> None:
    found = mean_interval(np.ones(50))
    half = normal_quantile(0.975) * math.sqrt(1 / (50 * 49))
    assert (found.low, found.high) == (pytest.approx(1 - half), pytest.approx(1 + half))
    assert found.within(0, 1).high == 1
    values = np.random.default_rng(0).choice([-1, 0, 1], p=[0.05, 0.88, 0.07], size=4000)
    found = mean_interval(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(4000), rel=0.01)


def test_holm_of_known_numbers() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0


def test_ece_closed_forms() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    hit = np.array([1] * 8 + [0] * 2 + [1] * 5 + [0] * 5, bool)
    assert ece(confidence, hit) == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)
    assert ece(np.ones(4), np.ones(4, bool)) == 0.0
    assert ece(np.ones(4), np.zeros(4, bool)) == 1.0
    assert ece(np.array([0.0]), np.array([False])) == 0.0


def test_ece_against_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    confidence = np.concatenate([rng.random(997), [1 / 15, 2 / 15, 1.0]]).astype(np.float32)
    hit = rng.random(1000) < confidence
    total = 0.0
    for b in range(15):
        low = b / 15 if b else -1
        inside = [i for i, c in enumerate(confidence.astype(float)) if low < c <= (b + 1) / 15]
        if inside:
            gap = abs(np.mean(hit[inside]) - np.mean(confidence[inside].astype(float)))
            total += len(inside) / 1000 * gap
    assert ece(confidence, hit) == pytest.approx(total, abs=1e-9)
    assert reliability(confidence, hit).count.sum() == 1000


def test_nll() -> None:
    assert nll(np.log(np.array([0.5, 0.25], np.float32))) == pytest.approx((math.log(2) + math.log(4)) / 2, abs=1e-7)
