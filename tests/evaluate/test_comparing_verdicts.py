"""Differences between methods: what their intervals hold in simulated experiments, and how verdicts are made."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bench.evaluate.comparing.contenders import Contender, Images, Scorer, Trained
from bench.evaluate.comparing.differences import Difference, measure_difference
from bench.evaluate.comparing.moderated import fit_prior
from bench.evaluate.comparing.verdicts import AUC, ONE_SEED, TWO_SEEDS, Asked, Standing, verdict_rows
from bench.evaluate.stats import holm, normal_quantile, t_cdf, t_interval, t_quantile, t_tail


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """benchmarks/coverage.py: experiments with a known truth."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# ---- the intervals hold the truth ------------------------------------------------------------------------
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("sd", [(0.3, 0.3), (0.8, 0.1)])
def test_every_interval_covers_in_93_to_97_percent(simulation: ModuleType, seeds: int, sd: tuple[float, float]) -> None:
    scenario = simulation.Scenario(images=1000, seeds=seeds, sd=sd, accuracy=(0.85, 0.84))
    found = simulation.coverage(scenario, 1200, seed=11)
    for name in ("images", "runs", "both", "one", "wilson"):
        assert 93 <= found[name] <= 97.5, (name, found)
    assert found["false"] <= 5


def test_one_seed_covers_new_images(simulation: ModuleType) -> None:
    found = simulation.coverage(simulation.Scenario(images=1000, seeds=1, accuracy=(0.9, 0.9)), 2000, seed=5)
    assert 93 <= found["images"] <= 97
    assert found["false"] <= 7  # its test is about these networks, 5 % but for sampling error
    assert set(found) == {"images", "wilson", "false"}  # nothing is said about other trainings


def test_intervals_of_one_estimand_do_not_hold_another(simulation: ModuleType) -> None:
    """Else the simulation could not tell a right interval from a wrong one."""
    missed, number = 0, 400
    for trial in simulation.experiments(simulation.Scenario(images=4000, seeds=2, sd=(1.0, 1.0)), number, 3):
        interval = measure_difference(*trial.hits).images()
        missed += not interval.low <= trial.both <= interval.high
    assert missed / number > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"sd": (0.8, 0.1, 0.1, 0.1)},
        {"sd": (0.2, 0.2, 0.2, 1.6)},
        {"seeds": (2, 10, 3, 5)},  # a pair has the two or three that both have
        {"networks": 2, "apart": 3.0, "validation": 300},
        {"networks": 2, "apart": 0.3, "validation": 300},
        {"images": 100, "accuracy": (0.97, 0.98, 0.99)},
        {"alike": 0.7},
        {"against": None},
    ],
    ids=str,
)
def test_at_most_one_table_in_20_has_a_false_verdict(simulation: ModuleType, more: dict) -> None:
    table = simulation.Table(**{"images": 300, **more})
    wrong = simulation.decided(table, 1000, seed=1)["any"]
    assert wrong <= 5 + 2 * 100 * math.sqrt(0.05 * 0.95 / 1000)


def test_false_verdicts_are_rare(simulation: ModuleType) -> None:
    """A small form of the above: spreads of 8:1, and two networks between which every seed chooses."""
    for more in ({"sd": (0.8, 0.1, 0.1, 0.1)}, {"networks": 2, "apart": 3.0, "validation": 300}):
        found = simulation.decided(simulation.Table(**{"images": 300, "accuracy": (0.9,), **more}), 100, seed=1)
        assert found["any"] <= 5 + 2 * 100 * math.sqrt(0.05 * 0.95 / 100)


def test_true_differences_are_decided(simulation: ModuleType) -> None:
    """Else a table that decides nothing would pass."""
    table = simulation.Table(2000, (5,) * 4, gain=(0.0, 3.0, 3.0, 3.0))
    assert simulation.decided(table, 20)["rows"] > 80


# ---- the formulas ------------------------------------------------------------------------------------------
def hits(shape: tuple[int, int], seed: int, rate: float = 0.8) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < rate


def test_difference_against_plain_loops() -> None:
    a, b = hits((3, 50), 0).astype(float), hits((3, 50), 1, 0.7).astype(float)
    found = measure_difference(a, b)
    n, s = 50, 3
    each = [sum(a[:, i]) / s - sum(b[:, i]) / s for i in range(n)]
    effect = sum(each) / n
    assert found.effect == pytest.approx(effect)
    assert found.over_images == pytest.approx((sum((d - effect) ** 2 for d in each) + 1) / n / (n - 1))
    grain = 1 / (12 * n * n)
    interaction = []
    for x, over_runs in zip((a, b), found.over_runs or ()):
        means = [sum(row) / n for row in x]
        grand = sum(means) / s
        assert over_runs == pytest.approx((sum((m - grand) ** 2 for m in means) / (s - 1) + grain) / s)
        left = sum((x[r, i] - means[r] - sum(x[:, i]) / s + grand) ** 2 for r in range(s) for i in range(n))
        interaction.append(left / ((s - 1) * (n - 1)) / (s * n))
    assert found.images_alone == pytest.approx(found.over_images - sum(interaction))
    pairs = [sum(a[r]) / n - sum(b[r]) / n for r in range(s)]
    t, runs = t_interval(pairs), found.runs()
    assert t is not None
    assert runs is not None
    half = t_quantile(0.975, 2) * math.sqrt(((t.high - t.low) / 2 / t_quantile(0.975, 2)) ** 2 + 2 * grain / s)
    assert (runs.low, runs.high) == (pytest.approx(effect - half), pytest.approx(effect + half))
    both = found.both()
    assert both is not None
    v = sum(found.over_runs or ())
    squares = sum(x * x for x in found.over_runs or ()) / 2
    total = v + found.images_alone
    degrees = v * v / squares * (total / v) ** 1.2
    assert both.high - both.low == pytest.approx(2 * t_quantile(0.975, degrees) * math.sqrt(total))


def test_images_interval_by_hand() -> None:
    """Two networks on four images that differ on one: +1, 0, 0, 0, and the added image."""
    found = measure_difference(np.array([[1, 1, 0, 1]]), np.array([[0, 1, 0, 1]]))
    variance = (0.75**2 + 3 * 0.25**2 + 1) / (4 * 3)
    assert found.effect == 0.25
    assert found.images().high == pytest.approx(0.25 + normal_quantile(0.975) * math.sqrt(variance))


def test_identical_networks_are_not_different() -> None:
    a = hits((3, 200), 0)
    found = measure_difference(a, a)
    assert found.effect == 0
    assert found.p_value() == 1
    for interval in (found.images(), found.runs(), found.both(), found.cautious()):
        assert interval is not None
        assert interval.low < 0 < interval.high


def test_one_run_says_nothing_about_other_runs() -> None:
    found = measure_difference(hits((1, 500), 0), hits((1, 500), 1))
    assert found.runs() is None
    assert found.both() is None
    assert found.cautious().about == "these trained networks on new images"


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_the_p_value_and_the_interval_of_the_test_agree(level: float) -> None:
    rng = np.random.default_rng(1)
    for runs in (1, 2, 3, 5):
        for _ in range(15):
            variances = tuple(rng.random(2) * 10.0 ** rng.uniform(-2, 1, 2))
            several = runs > 1
            alone = float(rng.random())
            found = Difference(
                0.0, runs, alone + (0.1 * sum(variances) if several else 0), alone,
                variances if several else None, None,
            )  # fmt: skip
            half = found.cautious(level).high
            for nudge, smaller in ((0.999, False), (1.001, True)):
                assert bool(replace(found, effect=half * nudge).p_value() < 1 - level) is smaller


def test_shapes_that_do_not_fit() -> None:
    for other in ((2, 11), (3, 10)):
        with pytest.raises(ValueError, match="same seeds and images"):
            measure_difference(hits((2, 10), 0), hits(other, 0))


# ---- Student's t with any number of degrees of freedom ---------------------------------------------------
@pytest.mark.parametrize("df", [0.7, 1.5, 2.25, 7.3, 99.5, 5000.25])
def test_t_tail_against_integrating_the_density(df: float) -> None:
    """x = sqrt(df) tan(u) turns the density into cos(u)^(df - 1)."""
    u = np.linspace(0, math.pi / 2, 2_000_001)[:-1]
    for x in (0.3, 1.0, 2.5, 8.0):
        start = math.atan(x / math.sqrt(df))
        scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
        below = u[u <= start]
        inner = np.trapezoid(np.cos(below) ** (df - 1), below) + (start - below[-1]) * math.cos(start) ** (df - 1)
        assert t_tail(x, df) == pytest.approx(0.5 - scale * inner, abs=2e-9)


def test_t_of_broken_degrees_joins_whole_ones() -> None:
    for df in (1, 2, 5, 30):
        for p in (0.6, 0.975, 0.99999):
            assert t_quantile(p, df + 1e-9) == pytest.approx(t_quantile(p, df), rel=1e-6)
        for x in (0.0, 0.5, 3.0, 40.0):
            assert t_tail(x, df) == pytest.approx(1 - t_cdf(x, df), abs=1e-13)
    for df in (0.8, 1.3, 4.6, 250.5, 1e5 + 0.5):
        for p in (0.5001, 0.9, 0.975, 1 - 1e-7):
            assert t_tail(t_quantile(p, df), df) == pytest.approx(1 - p, rel=1e-9)
            assert t_cdf(-t_quantile(p, df), df) == pytest.approx(1 - p, rel=1e-9)
    assert t_quantile(0.975, 1e9) == pytest.approx(normal_quantile(0.975), rel=1e-8)
    assert t_tail(1e6, 1.0) == pytest.approx(1e-6 / math.pi, rel=1e-6)


# ---- Holm -------------------------------------------------------------------------------------------------
def test_holm_against_its_steps() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(7) ** 4
        rejected, left = set(), list(range(7))
        while left:
            least = min(left, key=lambda k: p[k])
            if p[least] > 0.05 / len(left):
                break
            rejected.add(least)
            left.remove(least)
        assert {k for k in range(7) if holm(p)[k] <= 0.05} == rejected


# ---- verdicts -----------------------------------------------------------------------------------------------
IMAGES = Images(1, "cifar10", "abc", b"i", b"l")


def standing(
    name: str, scores: np.ndarray, images: Images = IMAGES, reason: str = "", seeds: tuple[int, ...] | None = None,
    networks: tuple[str, ...] = (),
) -> Standing:  # fmt: skip
    trained = tuple(Trained(seed, (), Scorer({})) for seed in seeds or range(len(scores)))
    return Standing(Contender(name, name.upper(), trained, images, reason), tuple(scores), 1e6, reason, networks)


def rows_of(budgets: dict[str, list[Standing]], against: str | None = None) -> list[dict]:
    return verdict_rows(budgets, 0.95, Asked(against, list(budgets)))


def shifted(rates: list[float], seeds: int = 3, n: int = 4000) -> list[np.ndarray]:
    """Hits of methods of these accuracies that agree wherever they can."""
    rng = np.random.default_rng(0)
    base = rng.random(n)
    own = [rng.random((seeds, n)) for _ in rates]
    return [np.where(o < 0.1, o * 10, base) < rate for o, rate in zip(own, rates)]


def test_verdicts_say_yes_no_and_undecided() -> None:
    a, b, c = shifted([0.90, 0.80, 0.9001])
    rows = rows_of({"0.5": [standing("a", a), standing("b", b), standing("c", c)]})
    assert [(r["a"], r["b"], r["verdict"], r.get("better", "")) for r in rows] == [
        ("a", "b", "yes", "A"), ("a", "c", "undecided", ""), ("b", "c", "no", "C"),
    ]  # fmt: skip
    for row in rows:
        assert row["comparisons"] == 3
        assert row["adjustment"] == "graphical procedure over 3 comparisons"
        assert (row["lo"] <= 0 <= row["hi"]) == (row["verdict"] == "undecided")
        assert row["effect"] == pytest.approx(row["top1_a"] - row["top1_b"], abs=1e-3)
        assert row["both_interval"].endswith("the method over new training runs and new images")
        assert row["runs_lo"] < row["effect"] < row["runs_hi"]
        assert row["note"] == ""


def test_against_a_reference_the_chain_of_a_contender_stops_at_what_is_undecided() -> None:
    ref, near, far = shifted([0.90, 0.9001, 0.80])
    both = [standing("near", near), standing("far", far), standing("ref", ref)]
    rows = rows_of({AUC: both, "1": both, "0.5": both}, "ref")
    found = {(row["a"], row["budget"]): row for row in rows}
    assert {row["b"] for row in rows} == {"ref"}
    assert [found["far", b]["verdict"] for b in (AUC, "1", "0.5")] == ["no"] * 3
    assert [found["near", b]["verdict"] for b in (AUC, "1", "0.5")] == ["undecided", "not reached", "not reached"]
    assert found["near", AUC]["weight"] == 1  # all that the other chain had
    assert found["near", "0.5"]["note"] == "not reached: the area comes before it and is undecided"
    assert "lo" not in found["near", "1"]
    assert found["near", "1"]["p"] == found["near", AUC]["p"]  # it is there, but nobody asked
    assert [found["far", b]["asked"] for b in (AUC, "1", "0.5")] == [1, 2, 3]


def test_the_family_is_all_pairs_and_budgets() -> None:
    a, b, c = shifted([0.90, 0.89, 0.895])
    one = [standing("a", a), standing("b", b), standing("c", c)]
    rows = rows_of({"0.5": one, "1": one, AUC: one})
    assert {row["comparisons"] for row in rows} == {9}
    alone = rows_of({"0.5": one[:2]})[0]
    assert rows[0]["p"] == alone["p"]
    assert rows[0]["p_adjusted"] > alone["p_adjusted"]


def test_one_seed_is_a_verdict_about_these_networks_and_a_family_of_its_own() -> None:
    a, b = shifted([0.90, 0.80], seeds=1)
    (row,) = rows_of({"30M": [standing("a", a), standing("b", b)]})
    assert row["note"] == ONE_SEED
    assert "both_lo" not in row
    assert row["interval"].endswith("these trained networks on new images")
    assert row["verdict"] == "yes, these networks"
    c, d = shifted([0.90, 0.80])
    rows = rows_of({"30M": [standing("a", a), standing("c", c), standing("d", d)]})
    assert [(row["a"], row["b"], row["comparisons"]) for row in rows] == [("a", "c", 2), ("a", "d", 2), ("c", "d", 1)]
    assert rows[2]["verdict"] == "yes"


def test_two_seeds_are_not_tested_and_both_values_are_told() -> None:
    a, b = shifted([0.90, 0.80], seeds=2)
    (row,) = rows_of({"30M": [standing("a", a), standing("b", b)]})
    assert (row["verdict"], row["note"]) == ("not tested", TWO_SEEDS)
    assert [float(x) for x in row["seed_effects"].split()] == pytest.approx(
        (100 * (a.mean(axis=1) - b.mean(axis=1))).tolist(), rel=1e-3
    )
    assert not {"p", "lo", "runs_lo", "both_lo", "better"} & set(row)
    assert row["images_lo"] < row["effect"] < row["images_hi"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol_version": 2}, "protocol versions 1 and 2"),
        ({"dataset": "cifar100"}, "data sets cifar10 and cifar100"),
        ({"indices": b"other"}, "different test images"),
        ({"labels": b"other"}, "different test images"),
        ({"split_hash": "x"}, "different splits"),
    ],
)
def test_no_verdict_across_protocols_and_test_sets(change: dict, words: str) -> None:
    a, b = shifted([0.9, 0.8])
    row = rows_of({"1": [standing("a", a), standing("b", b, replace(IMAGES, **change))]})[0]
    assert words in row["reason"]
    assert "verdict" not in row


def test_only_common_seeds_are_tested_and_the_row_says_what_was_left_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 300)), rng.random((4, 300))
    (row,) = rows_of({"1": [standing("a", a), standing("b", b, seeds=(2, 3, 4, 7))]})
    found = measure_difference(a[[2, 3, 4]], b[:3])
    assert row["p"] == pytest.approx(found.p_value(), rel=1e-3)
    assert row["effect"] == pytest.approx(100 * found.effect, abs=1e-3)
    assert row["seeds"] == "2 3 4"
    assert row["left_out"] == "2 seeds of A (0, 1) and 1 seed of B (7)"
    assert row["note"] == "common seeds only: without 2 seeds of A (0, 1) and 1 seed of B (7)"
    (row,) = rows_of({"1": [standing("a", a), standing("b", b, seeds=(5, 6, 7, 8))]})
    assert row["reason"] == "no seed in common"
    (row,) = rows_of({"1": [standing("a", a), standing("b", b, seeds=(3, 4, 7, 8))]})
    assert row["verdict"] == "not tested"  # two are left


def test_a_budget_at_which_common_seeds_choose_different_networks_is_unstable() -> None:
    a, b = shifted([0.90, 0.80], seeds=4)
    mixed = standing("a", a, networks=("r8", "r14", "r8", "r8"))
    rows = rows_of({AUC: [standing("a", a), standing("b", b)], "1": [mixed, standing("b", b)]})
    assert [row["verdict"] for row in rows] == ["yes", "unstable"]
    assert rows[1]["note"] == "seeds choose different networks, not tested (A: r8 (seeds 0, 2, 3), r14 (seed 1))"
    assert rows[0]["comparisons"] == 1
    (row,) = rows_of({"1": [mixed, standing("b", b[1:], seeds=(0, 2, 3))]})
    assert row["verdict"] == "yes"  # the seeds that are tested chose one network


def test_moderated_variances_are_a_second_opinion() -> None:
    noise = np.random.default_rng(0).random(2000) / 5

    def of(name: str, spread: float, seeds: tuple[int, ...] = (0, 1, 2)) -> Standing:
        """Three runs whose accuracies have this standard deviation, points."""
        runs = np.array([[-1.0], [0.0], [1.0]]) * spread / 100
        return standing(name, 0.5 + len(name) / 100 + noise + runs, seeds=seeds)

    contenders = [of("a", 0.2), of("bb", 0.3), of("ccc", 0.25), of("dddd", 0.4)]
    rows = rows_of({"1": contenders})
    grain = 100**2 / (12 * 2000**2)
    prior = fit_prior([s * s + grain for s in (0.2, 0.3, 0.25, 0.4)], 2)
    for row in rows:
        assert (row["d0"], row["s0"]) == (prior.degrees, pytest.approx(prior.variance**0.5, abs=1e-4))
        assert (rows[0]["s_a"], rows[0]["s_b"]) == (pytest.approx(0.2, abs=1e-2), pytest.approx(0.3, abs=1e-2))
        assert row["moderated_lo"] < row["effect"] < row["moderated_hi"]
        assert row["moderated_p"] < row["p"]  # eight degrees of freedom in place of four or less
        assert "not the verdict" in row["moderated"]
    for row in rows_of({"1": [*contenders, of("wild", 9.0)]}):
        assert row["d0"] < 4
        assert "moderated_p" not in row
        assert row["moderated"] == "hidden: d0 below 4"
    late = of("late", 0.3, (0, 1, 5))
    assert {row["moderated"] for row in rows_of({"1": [*contenders, late]})} == {"hidden: seeds differ"}


def test_no_interval_is_wider_than_what_a_difference_can_be() -> None:
    scores = np.array([[1.0] * 20, [0.0] * 20, [1.0] * 20])
    (row,) = rows_of({"1": [standing("a", scores), standing("b", 1 - scores)]})
    for name in ("lo", "hi", "runs_lo", "runs_hi", "both_lo", "both_hi", "images_lo", "images_hi"):
        assert -100 <= row[name] <= 100, name
