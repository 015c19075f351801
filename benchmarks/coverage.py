"""How often the intervals hold the truth, and how often a verdict is false, in made-up experiments.

    python benchmarks/coverage.py [--experiments 4000] [--images 1000 10000] [--seeds 3 5]
    python benchmarks/coverage.py --family [--experiments 2000]
    python benchmarks/coverage.py --power [--experiments 400]

An image has a difficulty that all networks share, a part that the runs of one method share, and a part of each run;
a run has a skill of its own. A hit is whether their sum is positive, so that the truth of every estimand is known
in closed form. Each experiment draws everything anew and is judged by the functions that the report uses.

    images   these trained networks on new images
    runs     the method over new training runs, on these images
    both     the method over new training runs and new images
    one      the t interval of one method's accuracy over seeds, on these images
    wilson   one network on new images
    false    share of experiments without a difference in which the test says that there is one, at 5 %

``--family``: tables of verdicts as the report makes them (``verdict_rows``) among methods that are alike: share of
tables with at least one false yes or no about methods. Methods have different numbers of seeds, spreads, near-ceiling
accuracy, tiny test sets, a stage that the runs of one seed share, and families of two networks between which every seed
chooses on a small validation part (bimodal budgets). ``--power``: share of true differences that are decided, one
method as reference and three that are better by a fixed number of points, three budgets and the area.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bench.config.comparing import AUC
from bench.evaluate.comparing.contenders import Contender, Images, Scorer, Trained
from bench.evaluate.comparing.differences import measure_difference
from bench.evaluate.comparing.verdicts import DECIDED, Asked, Standing, verdict_rows
from bench.evaluate.stats import over_seeds_interval, wilson

_NORMAL = NormalDist()
_GRID = np.linspace(-9, 9, 9001)
_CDF = np.array([_NORMAL.cdf(x) for x in _GRID])


@dataclass(frozen=True)
class Scenario:
    """Two methods. sd_*: of a run's accuracy, percent points. image, own: shares of the hidden score's variance that
    all networks, and the runs of one method, have in common; the rest is of each run. alike: correlation of the
    skills of runs of one seed."""

    images: int = 1000
    seeds: int = 3
    accuracy: tuple[float, float] = (0.92, 0.92)
    sd: tuple[float, float] = (0.3, 0.3)
    image: float = 0.75
    own: float = 0.08
    alike: float = 0.0


@dataclass(frozen=True)
class Experiment:
    """hits: of both methods, bool [S, N]. The truth of the difference (of the mean of the first method: one;
    of its first run: first)."""

    hits: tuple[np.ndarray, np.ndarray]
    images: float
    runs: float
    both: float
    one: float
    first: float


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
        common = rng.standard_normal(scenario.seeds)
        hits: list[np.ndarray] = []
        by_images: list[float] = []
        by_runs: list[float] = []
        singles: list[float] = []
        for mean, sd in zip(means, skill_sd):
            runs = scenario.seeds
            alone = rng.standard_normal(runs)
            skill = mean + sd * (math.sqrt(scenario.alike) * common + math.sqrt(1 - scenario.alike) * alone)
            score = image + math.sqrt(scenario.own) * rng.standard_normal(n, dtype=np.float32)
            own = math.sqrt(noise) * rng.standard_normal((runs, n), dtype=np.float32)
            hits.append(score + own + skill[:, None].astype(np.float32) > 0)
            by_images.append(float(normal_cdf(skill).mean()))
            singles.append(float(normal_cdf(skill[:1])[0]))
            by_runs.append(float(normal_cdf((mean + score) / math.sqrt(noise + sd * sd)).mean()))
        yield Experiment(
            (hits[0], hits[1]), by_images[0] - by_images[1], by_runs[0] - by_runs[1],
            scenario.accuracy[0] - scenario.accuracy[1], by_runs[0], singles[0],
        )  # fmt: skip


def coverage(scenario: Scenario, number: int, seed: int = 0, level: float = 0.95) -> dict[str, float]:
    """Shares in percent: of intervals that hold the truth, by estimand, and of tests that are wrong about it."""
    held: dict[str, list[bool]] = {name: [] for name in ("images", "runs", "both", "one", "wilson", "false")}
    for trial in experiments(scenario, number, seed):
        found = measure_difference(*trial.hits)
        wanted = {"images": trial.images, "runs": trial.runs, "both": trial.both}
        for name, truth in wanted.items():
            interval = getattr(found, name)(level)
            if interval is not None:
                held[name].append(interval.low <= truth <= interval.high)
        n = trial.hits[0].shape[1]
        one = over_seeds_interval((100 * trial.hits[0].mean(axis=1)).tolist(), n, level)
        if one is not None:
            held["one"].append(one.low <= 100 * trial.one <= one.high)
        single = wilson(int(trial.hits[0][0].sum()), n, level)
        held["wilson"].append(single.low <= trial.first <= single.high)
        # The test errs where its interval leaves out the truth, whether that is 0 or not.
        tested, truth = found.cautious(level), trial.both if found.over_runs is not None else trial.images
        held["false"].append(not tested.low <= truth <= tested.high)
    return {name: 100 * float(np.mean(values)) for name, values in held.items() if values}


@dataclass(frozen=True)
class Table:
    """Methods that are compared. seeds, sd, gain (points): of each; the first is the reference. networks: 2:
    each has two, ``apart`` points apart, and every seed takes the better one on ``validation`` images. alike:
    correlation of the skills of runs of one seed, as with a shared stage. images: of the test set."""

    images: int = 1000
    seeds: tuple[int, ...] = (3, 3, 3, 3)
    sd: tuple[float, ...] = (0.3, 0.3, 0.3, 0.3)
    gain: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    accuracy: tuple[float, ...] = (0.88, 0.90, 0.92)
    networks: int = 1
    apart: float = 1.0
    validation: int = 2000
    alike: float = 0.0
    against: str | None = "m0"


def decided(table: Table, number: int, seed: int = 0) -> dict[str, float]:
    """Shares of tables with a verdict about methods ("any"), and of rows that have one ("rows"), percent."""
    rng = np.random.default_rng(seed)
    found = [_decided(table, rng) for _ in range(number)]
    return {"any": 100 * float(np.mean([x > 0 for x, _ in found])),
            "rows": 100 * float(np.mean([x / most for x, most in found]))}  # fmt: skip


def _decided(table: Table, rng: np.random.Generator) -> tuple[int, int]:
    """Rows of one table that decide something about methods, and all rows."""
    image = math.sqrt(0.75) * rng.standard_normal(table.images, dtype=np.float32)
    common = rng.standard_normal((max(table.seeds), 1))
    budgets: list[list[Standing]] = [[] for _ in range(len(table.accuracy) + 1)]
    for number, (seeds, sd, gain) in enumerate(zip(table.seeds, table.sd, table.gain)):
        draw = math.sqrt(table.alike) * common[:seeds] + math.sqrt(1 - table.alike) * rng.standard_normal((seeds, 1))
        own = image + math.sqrt(0.08) * rng.standard_normal(table.images, dtype=np.float32)
        run = own + math.sqrt(0.17 * 0.7) * rng.standard_normal((seeds, table.images), dtype=np.float32)
        trained = tuple(Trained(k, (), Scorer({})) for k in range(seeds))
        contender = Contender(f"m{number}", f"m{number}", trained, Images(1, "d", "s", b"i", b"l"))
        at = []
        for place, goal in enumerate(table.accuracy):
            hits, chosen = _budget(table, rng, run, draw, goal + gain / 100, sd)
            at.append(hits)
            budgets[place].append(Standing(contender, tuple(hits), 1.0, networks=chosen))
        budgets[-1].append(Standing(contender, tuple(np.mean(at, axis=0)), 1.0))
    names = [str(k) for k in range(len(table.accuracy))]
    standings = dict(zip([*names, AUC], budgets))
    rows = verdict_rows(standings, 0.95, Asked(table.against, [AUC, *reversed(names)]))
    return sum(row.get("verdict") in DECIDED for row in rows), len(rows)


def _budget(
    table: Table, rng: np.random.Generator, run: np.ndarray, draw: np.ndarray, goal: float, sd: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Hits [S, N] of what every seed runs at one budget, and the names of the networks."""
    candidates = []
    for k in range(table.networks):
        cut = _NORMAL.inv_cdf(goal - k * table.apart / 100)
        skill_sd = sd / 100 / _NORMAL.pdf(cut)
        skill = (cut * math.sqrt(1 + skill_sd**2) + skill_sd * draw).astype(np.float32)
        noisy = math.sqrt(0.17 * 0.3) * rng.standard_normal(run.shape, dtype=np.float32)
        on_val = rng.binomial(table.validation, normal_cdf(skill[:, 0])) / table.validation
        candidates.append(((run + noisy + skill > 0).astype(np.float32), on_val))
    best = np.argmax([on_val for _, on_val in candidates], axis=0)
    return np.stack([candidates[k][0][s] for s, k in enumerate(best)]), tuple(f"n{k}" for k in best)


def family_tables() -> Iterator[tuple[str, Table]]:
    """What ``--family`` tries: methods that do not differ."""
    equal = (0.3, 0.3, 0.3, 0.3)
    for methods in (2, 4, 6):
        for seeds in (3, 5, 10):
            zero = (0.0,) * methods
            for name, sd in (("equal", (0.3,) * methods), ("8:1", (0.8, *(0.1,) * (methods - 1))),
                             ("one wild", (*(0.2,) * (methods - 1), 1.6))):  # fmt: skip
                yield f"{methods} methods, {seeds} seeds, {name}", Table(1000, (seeds,) * methods, sd, zero)
    for counts in ((2, 5, 5, 5), (3, 10, 4, 7), (2, 10, 3, 3), (1, 5, 3, 3)):
        for name, sd in (("equal", equal), ("8:1", (0.8, 0.1, 0.1, 0.1))):
            yield f"seeds {' '.join(map(str, counts))}, {name}", Table(1000, counts, sd)
    for validation in (300, 1000, 5000):
        for apart in (0.0, 0.3, 3.0):
            yield (f"two networks {apart:g} apart, {validation} for validation",
                   Table(1000, networks=2, apart=apart, validation=validation))  # fmt: skip
    yield "near the ceiling", Table(1000, accuracy=(0.98, 0.99, 0.995), sd=(0.1,) * 4)
    yield "100 test images", Table(100)
    yield "shared stage", Table(1000, alike=0.7)
    yield "all pairs", Table(1000, against=None)
    yield "all pairs, 8:1", Table(1000, sd=(0.8, 0.1, 0.8, 0.1), against=None)


def coverage_scenarios(images: int, seeds: int) -> Iterator[Scenario]:
    yield Scenario(images, seeds, accuracy=(0.5, 0.5))
    yield Scenario(images, seeds)
    yield Scenario(images, seeds, sd=(0.8, 0.1))
    yield Scenario(images, seeds, accuracy=(0.75, 0.72), sd=(0.5, 0.3))
    yield Scenario(images, seeds, accuracy=(0.99, 0.99), sd=(0.1, 0.1))
    yield Scenario(images, seeds, accuracy=(0.995, 0.995), sd=(0.05, 0.05))
    yield Scenario(images, seeds, alike=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=4000)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--family", action="store_true", help="family-wise errors instead of coverage")
    parser.add_argument("--power", action="store_true", help="power instead of coverage")
    options = parser.parse_args()
    number = options.experiments
    error = 100 * math.sqrt(0.05 * 0.95 / number)
    print(f"{number} experiments; standard error of a share of 95 % or 5 %: {error:.2f}")
    if options.family:
        for name, table in family_tables():
            wrong = decided(table, number)["any"]
            flag = "  above 5 % + 2 standard errors" if wrong > 5 + 2 * error else ""
            print(f"{name:<50} {wrong:>6.2f}{flag}", flush=True)
    elif options.power:
        for points, seeds in ((1.0, 3), (2.0, 3), (1.0, 5)):
            share = decided(Table(10_000, (seeds,) * 4, gain=(0.0, *(points,) * 3)), number)["rows"]
            print(f"{points:g} points, {seeds} seeds: {share:.1f} % of the rows are decided", flush=True)
    else:
        _print_coverage(options.images, options.seeds, number)


def _print_coverage(images: list[int], seeds: list[int], number: int) -> None:
    names = ("images", "runs", "both", "one", "wilson", "false")
    print(f"{'images':>7} {'seeds':>5} {'sd':>9} {'accuracy':>12} {'alike':>5} " + " ".join(f"{n:>7}" for n in names))
    for many in images:
        for each in seeds:
            for scenario in coverage_scenarios(many, each):
                found = coverage(scenario, number)
                print(
                    f"{many:>7} {each:>5} {'{} {}'.format(*scenario.sd):>9} {'{} {}'.format(*scenario.accuracy):>12} "
                    f"{scenario.alike:>5g} " + " ".join(f"{found.get(n, math.nan):>7.2f}" for n in names),
                    flush=True,
                )


if __name__ == "__main__":
    main()
