"""The graphical procedure against its definition, and the moderated variance against scipy and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import polygamma, psi

from bench.evaluate.comparing.graph import decide
from bench.evaluate.comparing.moderated import (
    Prior,
    digamma,
    fit_prior,
    moderate,
    moderated_degrees,
    trigamma,
    trigamma_inverse,
)
from bench.evaluate.stats import holm


def bretz(p: list[float], weights: np.ndarray, edges: np.ndarray, alpha: float) -> set[int]:
    """Algorithm 1 of Bretz et al. (2009), for any graph: w [m], edges [m, m]."""
    weights, edges = weights.copy(), edges.copy()
    left, rejected = set(range(len(p))), set()
    while True:
        able = [k for k in left if p[k] <= alpha * weights[k]]
        if not able:
            return rejected
        j = able[0]
        left.remove(j)
        rejected.add(j)
        new_w, new_g = weights.copy(), np.zeros_like(edges)
        for one in left:
            new_w[one] = weights[one] + weights[j] * edges[j, one]
            for k in left - {one}:
                loop = edges[one, j] * edges[j, one]
                new_g[one, k] = (edges[one, k] + edges[one, j] * edges[j, k]) / (1 - loop) if loop < 1 else 0
        weights, edges = new_w, new_g


def chain_graph(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Weights and edges of chains: along each, and from its end to the beginnings of the others."""
    starts = np.cumsum([0, *lengths])
    weights, edges = np.zeros(starts[-1]), np.zeros((starts[-1], starts[-1]))
    for c, length in enumerate(lengths):
        weights[starts[c]] = 1 / len(lengths)
        for k in range(length - 1):
            edges[starts[c] + k, starts[c] + k + 1] = 1
        for other in range(len(lengths)):
            if other != c:
                edges[starts[c + 1] - 1, starts[other]] = 1 / (len(lengths) - 1)
    return weights, edges


@pytest.mark.parametrize("lengths", [[1], [3], [1, 1], [2, 2], [3, 3, 3], [4, 2, 1]])
def test_chains_decide_what_the_general_graph_decides(lengths: list[int]) -> None:
    rng = np.random.default_rng(0)
    weights, edges = chain_graph(lengths)
    some = 0
    for _ in range(300):
        p = (rng.random(sum(lengths)) ** 4).tolist()
        chains = np.split(np.array(p), np.cumsum(lengths)[:-1])
        found = list(itertools.chain(*decide([c.tolist() for c in chains], 0.05)))
        expected = bretz(p, weights, edges, 0.05)
        assert {k for k, one in enumerate(found) if one.decided} == expected
        assert {k for k, one in enumerate(found) if one.adjusted <= 0.05} == expected
        for one, value in zip(found, p):
            assert one.decided == (one.reached and value <= 0.05 * one.weight)
        some += len(expected)
    assert some > 100


def test_two_endpoints_of_two_doses() -> None:
    """The improved parallel gatekeeping of Bretz et al. 2009 (their figure 3, delta_i = 0): two primary hypotheses of
    weight 1/2, each followed by its secondary one, from which the weight returns to the other primary. alpha 0.025."""
    (one, two), (three, four) = decide([[0.01, 0.005], [0.02, 0.04]], 0.025)
    assert (one.decided, one.weight) == (True, 0.5)  # 0.01 <= 0.0125
    assert (two.decided, two.weight) == (True, 0.5)  # 0.005 <= 0.0125
    assert (three.decided, three.weight) == (True, 1.0)  # 0.02 <= 0.025: all weight is there now
    assert (four.decided, four.weight) == (False, 1.0)  # 0.04 > 0.025
    (one, two), (three, four) = decide([[0.01, 0.02], [0.02, 0.004]], 0.025)
    assert (one.decided, two.decided, three.decided) == (True, False, False)
    assert (two.weight, three.weight, four.weight) == (0.5, 0.5, 0.0)  # the last one was never asked
    assert not four.reached
    assert [one.adjusted, two.adjusted, three.adjusted] == [0.02, 0.04, 0.04]


def test_single_questions_are_holm_and_one_chain_is_a_fixed_sequence() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = (rng.random(5) ** 3).tolist()
        assert [one[0].adjusted for one in decide([[x] for x in p], 0.05)] == pytest.approx(holm(p).tolist())
        line = decide([p], 0.05)[0]
        assert [one.adjusted for one in line] == pytest.approx(np.maximum.accumulate(p).tolist())
    assert decide([], 0.05) == []


def test_what_is_decided_does_not_depend_on_the_order_of_chains() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        chains = [(rng.random(3) ** 4).tolist() for _ in range(4)]
        there, back = decide(chains, 0.05), decide(chains[::-1], 0.05)[::-1]
        assert [[d.decided for d in c] for c in there] == [[d.decided for d in c] for c in back]
        for one, other in zip(itertools.chain(*there), itertools.chain(*back)):
            assert one.adjusted == pytest.approx(other.adjusted)


def test_false_decisions_among_any_mixture_of_true_and_false() -> None:
    """Independent uniform p-values of the true hypotheses; the others are decided at once, which frees all weight."""
    rng = np.random.default_rng(3)
    for true in ([0, 1, 2, 3, 4, 5], [1, 3, 5], [2, 5], [0, 3]):
        wrong = 0
        for _ in range(4000):
            p = np.zeros(6)
            p[true] = rng.random(len(true))
            found = [*itertools.chain(*decide([p[:2].tolist(), p[2:4].tolist(), p[4:].tolist()], 0.05))]
            wrong += any(found[k].decided for k in true)
        assert wrong / 4000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 4000), true


# ---- moderated variance ----------------------------------------------------------------------------------
def test_digamma_and_trigamma() -> None:
    for x in (0.05, 0.5, 1.0, 1.5, 4.0, 37.0, 5000.0):
        assert digamma(x) == pytest.approx(float(psi(x)), rel=1e-12, abs=1e-12)
        assert trigamma(x) == pytest.approx(float(polygamma(1, x)), rel=1e-12)
        assert trigamma_inverse(trigamma(x)) == pytest.approx(x, rel=1e-9)


def test_the_prior_is_found_again() -> None:
    """s^2 ~ s0^2 F(d, d0): many variances give back d0 and s0."""
    rng = np.random.default_rng(0)
    for d0, d, s0 in ((6.0, 2, 0.3), (20.0, 9, 2.0)):
        variances = s0**2 * rng.f(d, d0, 40_000)
        prior = fit_prior(variances.tolist(), d)
        assert prior.degrees == pytest.approx(d0, rel=0.1)
        assert math.sqrt(prior.variance) == pytest.approx(s0, rel=0.02)
    assert math.isinf(fit_prior([1.0, 1.1, 0.9], 4).degrees)


def test_moderated_values_by_hand() -> None:
    prior = Prior(4.0, 0.09)
    assert moderate(0.25, 2, prior) == pytest.approx((4 * 0.09 + 2 * 0.25) / 6)
    assert moderated_degrees(2, prior, 4) == 8  # 4 contenders with 2 degrees each
    assert moderated_degrees(2, prior, 10) == 12  # 2 (4 + 2)
    assert moderate(0.25, 2, Prior(math.inf, 0.09)) == 0.09
    assert moderated_degrees(2, Prior(math.inf, 0.09), 4) == 8
    with pytest.raises(ValueError, match="two positive variances"):
        fit_prior([1.0], 2)
