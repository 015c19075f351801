"""How often the intervals of a difference hold the truth, and how often a verdict is false, in made-up experiments.

    python benchmarks/coverage.py [--experiments 4000] [--images 1000 10000] [--seeds 2 3 5] [--family]

An image has a difficulty that all networks share, a part that the runs of one method share, and a part of each run;
a run has a skill of its own. A hit is whether their sum is positive, so that the truth of every estimand is known
in closed form. Each experiment draws everything anew and is judged by the functions that the report uses.

    images   these trained networks on new images
    runs     the method over new training runs, on these images
    both     the method over new training runs and new images
    one      the t interval of one method's accuracy over seeds
    false    share of experiments without a difference in which the test says that there is one, at 5 %

``--family``: four methods alike at three budgets and on average over them, 24 comparisons adjusted by Holm: share of
experiments with at least one false verdict.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bench.evaluate.comparing.differences import measure_difference
from bench.evaluate.stats import holm, t_interval, t_quantile

_NORMAL = NormalDist()
_GRID = np.linspace(-9, 9, 9001)
_CDF = np.array([_NORMAL.cdf(x) for x in _GRID])


@dataclass(frozen=True)
class Scenario:
    """Two methods. sd_*: of a run's accuracy, percent points. image, own: shares of the hidden score's variance that
    all networks, and the runs of one method, have in common; the rest is of each run. alike: correlation of the
    skills of runs of one seed."""

    images: int = 1000
    seeds: tuple[int, int] = (3, 3)
    accuracy: tuple[float, float] = (0.92, 0.92)
    sd: tuple[float, float] = (0.3, 0.3)
    image: float = 0.75
    own: float = 0.08
    alike: float = 0.0


@dataclass(frozen=True)
class Experiment:
    """hits: of both methods, bool [S, N]. The truth of the difference (of the mean of the first method: one)."""

    hits: tuple[np.ndarray, np.ndarray]
    images: float
    runs: float
    both: float
    one: float


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Between tabulated values, to 1e-6."""
    return np.interp(x, _GRID, _CDF)


def experiments(scenario: Scenario, number: int, seed: int = 0) -> Iterator[Experiment]:
    """Independent experiments."""
    rng = np.random.default_rng(seed)
    noise = 1 - scenario.image - scenario.own
    cuts = [_NORMAL.inv_cdf(p) for p in scenario.accuracy]
    skill_sd = [sd / 100 / _NORMAL.pdf(cut) for sd, cut in zip(scenario.sd, cuts)]
    means = [cut * math.sqrt(1 + sd * sd) for cut, sd in zip(cuts, skill_sd)]
    n = scenario.images
    for _ in range(number):
        image = math.sqrt(scenario.image) * rng.standard_normal(n, dtype=np.float32)
        common = rng.standard_normal(max(scenario.seeds))
        hits, by_images, by_runs = [], [], []
        for runs, mean, sd in zip(scenario.seeds, means, skill_sd):
            alone = rng.standard_normal(runs)
            skill = mean + sd * (math.sqrt(scenario.alike) * common[:runs] + math.sqrt(1 - scenario.alike) * alone)
            score = image + math.sqrt(scenario.own) * rng.standard_normal(n, dtype=np.float32)
            own = math.sqrt(noise) * rng.standard_normal((runs, n), dtype=np.float32)
            hits.append(score + own + skill[:, None].astype(np.float32) > 0)
            by_images.append(float(normal_cdf(skill).mean()))
            by_runs.append(float(normal_cdf((mean + score) / math.sqrt(noise + sd * sd)).mean()))
        yield Experiment(
            (hits[0], hits[1]), by_images[0] - by_images[1], by_runs[0] - by_runs[1],
            scenario.accuracy[0] - scenario.accuracy[1], by_runs[0],
        )  # fmt: skip


def coverage(scenario: Scenario, number: int, seed: int = 0, level: float = 0.95) -> dict[str, float]:
    """Shares in percent: of intervals that hold the truth, by estimand, and of tests that are wrong about it."""
    held: dict[str, list[bool]] = {name: [] for name in ("images", "runs", "both", "one", "false")}
    for trial in experiments(scenario, number, seed):
        found = measure_difference(*trial.hits)
        wanted = {"images": trial.images, "runs": trial.runs, "both": trial.both}
        for name, truth in wanted.items():
            interval = getattr(found, name)(level)
            if interval is not None:
                held[name].append(interval.low <= truth <= interval.high)
        one = t_interval(trial.hits[0].mean(axis=1).tolist(), level)
        if one is not None:
            held["one"].append(one.low <= trial.one <= one.high)
        # The test errs where its interval leaves out the truth, whether that is 0 or not.
        tested, truth = found.cautious(level), trial.both if found.over_runs is not None else trial.images
        held["false"].append(not tested.low <= truth <= tested.high)
    return {name: 100 * float(np.mean(values)) for name, values in held.items() if values}


def family_errors(
    images: int, seeds: int, number: int, sd: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.3),
    alpha: float = 0.05, seed: int = 0,
) -> float:  # fmt: skip
    """Share in percent of experiments with a false verdict among four equal methods at three budgets and on average.

    A method's runs keep much of their errors from one budget to the next, as points of one network do.
    """
    rng = np.random.default_rng(seed)
    accuracy, image, own, noise = (0.88, 0.90, 0.92), 0.75, 0.08, 0.17
    wrong = 0
    for _ in range(number):
        base = math.sqrt(image) * rng.standard_normal(images, dtype=np.float32)
        scores: list[list[np.ndarray]] = []
        for spread in sd:
            of_method = base + math.sqrt(own) * rng.standard_normal(images, dtype=np.float32)
            of_run = of_method + math.sqrt(noise * 0.7) * rng.standard_normal((seeds, images), dtype=np.float32)
            draw = rng.standard_normal((seeds, 1))
            at = []
            for goal in accuracy:
                cut = _NORMAL.inv_cdf(goal)
                skill_sd = spread / 100 / _NORMAL.pdf(cut)
                skill = (cut * math.sqrt(1 + skill_sd**2) + skill_sd * draw).astype(np.float32)
                noisy = math.sqrt(noise * 0.3) * rng.standard_normal((seeds, images), dtype=np.float32)
                at.append((of_run + noisy + skill > 0).astype(np.float32))
            scores.append([*at, np.mean(at, axis=0)])
        differences = [
            measure_difference(scores[i][k], scores[j][k]) for i in range(4) for j in range(i + 1, 4) for k in range(4)
        ]
        m = len(differences)
        # A p-value at or below alpha / m needs an effect beyond these, which spares most of the work.
        near = t_quantile(1 - alpha / m / 2, 2.0 * (seeds - 1)) if seeds > 1 else 0.0
        bound = [d.images(1 - alpha / m).high - d.effect for d in differences]
        runs = [near * math.sqrt(sum(d.over_runs)) if d.over_runs else 0.0 for d in differences]
        if any(abs(d.effect) >= max(b, r) for d, b, r in zip(differences, bound, runs)):
            wrong += bool((holm([d.p_value() for d in differences]) <= alpha).any())
    return 100 * wrong / number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=4000)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--family", action="store_true", help="family-wise errors instead of coverage")
    options = parser.parse_args()
    error = 100 * math.sqrt(0.05 * 0.95 / options.experiments)
    print(f"{options.experiments} experiments; standard error of a share of 95 % or 5 %: {error:.2f}")
    if options.family:
        print(f"{'images':>7} {'seeds':>6} {'sd of accuracy':>16} {'false %':>8}")
        for images in options.images:
            for seeds in options.seeds:
                for sd in ((0.3, 0.3, 0.3, 0.3), (0.6, 0.3, 0.2, 0.15)):
                    wrong = family_errors(images, seeds, options.experiments, sd)
                    print(f"{images:>7} {seeds:>6} {' '.join(map(str, sd)):>16} {wrong:>8.2f}", flush=True)
        return
    names = ("images", "runs", "both", "one", "false")
    print(f"{'images':>7} {'seeds':>6} {'sd':>9} {'accuracy':>11} {'alike':>5} " + " ".join(f"{n:>7}" for n in names))
    for images in options.images:
        for number in options.seeds:
            for scenario in (
                Scenario(images, (number, number)),
                Scenario(images, (number, number), sd=(0.6, 0.2)),
                Scenario(images, (number, number), accuracy=(0.75, 0.72), sd=(0.5, 0.3)),
                Scenario(images, (number, number + 1)),
                Scenario(images, (number, number), alike=0.5),
            ):
                found = coverage(scenario, options.experiments)
                print(
                    f"{images:>7} {'{} {}'.format(*scenario.seeds):>6} {'{} {}'.format(*scenario.sd):>9} "
                    f"{'{} {}'.format(*scenario.accuracy):>11} {scenario.alike:>5g} "
                    + " ".join(f"{found.get(n, math.nan):>7.2f}" for n in names),
                    flush=True,
                )


if __name__ == "__main__":
    main()
