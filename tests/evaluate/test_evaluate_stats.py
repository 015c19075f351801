"""Intervals and calibration against closed forms and exact coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.evaluate.calibration import ece, nll, reliability
from bench.evaluate.stats import (
    bootstrap_mean,
    normal_quantile,
    paired_difference,
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


def test_t_interval_covers_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 3))
    intervals = [t_interval(row) for row in draws.tolist()]
    assert 0.93 < np.mean([i.low <= 0 <= i.high for i in intervals if i]) < 0.97


def test_bootstrap_agrees_with_the_normal_form() -> None:
    values = np.random.default_rng(0).choice([-1, 0, 1], p=[0.05, 0.88, 0.07], size=4000)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_mean(values) == found  # the same seed, the same interval
    many = np.random.default_rng(1).normal(size=500)  # many distinct values: ordinary resampling
    other = bootstrap_mean(many, resamples=2000)
    assert other.high - other.low == pytest.approx(2 * 1.96 / math.sqrt(500), rel=0.15)


def test_paired_difference_covers_and_uses_the_pairs() -> None:
    rng = np.random.default_rng(2)
    covered, widths, n = [], [], 600
    for trial in range(300):
        common = rng.random(n)
        a, b = common < 0.80, common < 0.78  # nested: differences only where common lies between
        swap = rng.random(n) < 0.05
        a = np.where(swap, rng.random(n) < 0.80, a)
        difference, interval = paired_difference(a, b, resamples=400, seed=trial)
        assert difference == pytest.approx(a.mean() - b.mean())
        covered.append(interval.low <= 0.02 <= interval.high)
        widths.append(interval.high - interval.low)
    assert 0.91 < np.mean(covered) < 0.985
    unpaired = 2 * 1.96 * math.sqrt(2 * 0.8 * 0.2 / n)
    assert np.mean(widths) < 0.6 * unpaired


def test_paired_difference_averages_seeds_per_image() -> None:
    a = np.array([[True, False, True], [True, True, False]])
    b = np.zeros((2, 3), bool)
    difference, _ = paired_difference(a, b)
    assert difference == pytest.approx((1 + 0.5 + 0.5) / 3)


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
