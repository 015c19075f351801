"""What each level of an ablation's axes changes: accuracy and cost against the axis' base level, paired.

An effect is a contrast: a weighted sum over trained networks, the same for each seed. With three seeds or more its
interval is Student's t over the seeds' values, with one it is normal over the shared test images; two have none.
p-values are adjusted by Holm's procedure among the effects of one kind on one axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from bench.evaluate.results import Results, RunResult
from bench.evaluate.stats import (
    NEW_IMAGES,
    NEW_RUNS,
    TWO_SEEDS,
    Interval,
    accuracy_grain,
    holm,
    mean_interval,
    normal_quantile,
    normal_tail,
    t_interval,
    t_quantile,
    t_tail,
)

__all__ = ["COLUMNS", "NAME", "effects"]

NAME = "effects.csv"

MAIN, COMBINATION, ALL_RUNS, INTERACTION = "main", "combination", "all runs", "interaction"


class Effect(TypedDict, total=False):
    """One effect at the default operating points. Numbers are None where no pair of networks has them."""

    kind: str  # main: mean over the other axes' levels; combination: at some of them; all runs; interaction
    run: str  # the run that was varied; empty for all runs
    label: str
    axis: str  # two of them for an interaction
    level: str
    base: str  # the level it is compared with
    others: str  # levels of the other axes, where it is at some of them
    top1_difference: float | None  # points of percent, level minus base; an interaction: what both add to their sum
    top1_lo: float | None
    top1_hi: float | None
    interval: str  # what the interval is about
    top1_min: float | None  # of the seeds' differences
    top1_max: float | None
    p: float | None  # two-sided, of no effect; about what the interval is about
    p_adjusted: float | None  # Holm's, among the effects of this kind on this axis
    macs_difference: float | None  # mean over images and networks
    macs_percent: float | None  # of the base level's MACs
    pairs: int  # pairs of networks (quadruples for an interaction)
    seeds: str
    status: str  # done, else what became of the networks that are missing
    reason: str


COLUMNS: tuple[str, ...] = tuple(Effect.__annotations__)

Levels = tuple[tuple[str, str], ...]  # (axis, level), sorted
Term = tuple[float, "RunResult"]


@dataclass(frozen=True)
class _Family:
    """One run that was varied: its combinations, each with its seeds, and its base levels."""

    run: str
    label: str
    base: dict[str, str]
    cells: dict[Levels, dict[int, RunResult]]

    def levels(self, axis: str) -> list[str]:
        """Levels of an axis besides the base, in file order."""
        found = dict.fromkeys(dict(levels)[axis] for levels in self.cells)
        return [level for level in found if level != self.base[axis]]

    def at(self, levels: Mapping[str, str]) -> dict[int, RunResult] | None:
        return self.cells.get(_key(levels))


@dataclass(frozen=True)
class _Contrast:
    """Weights of networks, by the levels of the other axes and by seed; all of them done."""

    terms: dict[Levels, dict[int, list[Term]]]

    def seeds(self) -> list[int]:
        """Seeds that every entry has: a mean must not mix changes of seeds with those of levels."""
        sets = [set(by_seed) for by_seed in self.terms.values()]
        return sorted(set.intersection(*sets)) if sets else []

    def of_seed(self, seed: int) -> list[Term]:
        share = 1 / len(self.terms)
        return [(share * weight, run) for by_seed in self.terms.values() for weight, run in by_seed[seed]]


def effects(results: Results) -> list[dict[str, Any]]:
    """Rows of ``effects.csv``, axes in file order; empty where nothing was varied."""
    families = _families(results)
    axes = list(dict.fromkeys(axis for family in families for axis in family.base))
    rows: list[dict[str, Any]] = []
    for axis in axes:
        mains: dict[tuple[str, str], list[_Contrast]] = {}
        for family in families:
            for level in family.levels(axis) if axis in family.base else []:
                pairs = _pairs(family, axis, level)
                rows += _of_level(results, family, axis, level, pairs)
                if pairs.terms:
                    mains.setdefault((level, family.base[axis]), []).append(pairs)
        for (level, base), contrasts in mains.items():
            if len(contrasts) > 1:
                named = {"kind": ALL_RUNS, "run": "", "label": f"mean of {len(contrasts)} runs", "axis": axis,
                         "level": level, "base": base}  # fmt: skip
                rows.append({**named, **_estimate(results, contrasts)})
    for family in families:
        rows += _interactions(results, family)
    _adjust(rows)
    return rows


# ---- runs by their levels ---------------------------------------------------------------------------
def _key(levels: Mapping[str, str]) -> Levels:
    return tuple(sorted(levels.items()))


def _families(results: Results) -> list[_Family]:
    said = {axis: level for part in results.ablation.get("sections", []) for axis, level in part["base"].items()}
    found: dict[str, _Family] = {}
    for run in results.runs:
        if run.base is None or not run.factors:
            continue
        family = found.get(run.base)
        if family is None:
            base = next((r for r in results.runs if r.run == run.base), None)
            levels = base.factors if base is not None else {axis: said.get(axis, "") for axis in run.factors}
            family = found[run.base] = _Family(run.base, base.label if base is not None else run.base, levels, {})
        family.cells.setdefault(_key(run.factors), {})[run.seed] = run
    return list(found.values())


def _contrast(family: _Family, weights: Sequence[tuple[float, dict[str, str]]]) -> _Contrast:
    """The contrast of levels of some axes, at every combination of the others that has all of its networks.

    weights: (weight, levels of the axes that are contrasted).
    """
    axes = set(weights[0][1])
    others = dict.fromkeys(tuple(part for part in levels if part[0] not in axes) for levels in family.cells)
    terms: dict[Levels, dict[int, list[Term]]] = {}
    for other in others:
        cells = [family.at({**dict(other), **levels}) for _, levels in weights]
        if any(cell is None for cell in cells):
            continue
        shared = set.intersection(*({seed for seed, run in (cell or {}).items() if run.done} for cell in cells))
        shared = {seed for seed in shared if len({cell[seed].tested_on for cell in cells if cell} - {""}) < 2}
        if shared:
            terms[other] = {
                seed: [(weight, cell[seed]) for (weight, _), cell in zip(weights, cells) if cell is not None]
                for seed in sorted(shared)
            }
    return _Contrast(terms)


def _pairs(family: _Family, axis: str, level: str) -> _Contrast:
    return _contrast(family, [(1.0, {axis: level}), (-1.0, {axis: family.base[axis]})])


# ---- rows ----------------------------------------------------------------------------------------------
def _of_level(
    results: Results, family: _Family, axis: str, level: str, pairs: _Contrast
) -> Iterator[dict[str, Any]]:
    """The main effect of a level in one run, and its effect at each combination of the other axes."""
    named = {"run": family.run, "label": family.label, "axis": axis, "level": level, "base": family.base[axis]}
    missing = _missing(family, axis, level)
    if not pairs.terms:
        alone = {"status": "missing", "reason": f"{family.label}: no run here that differs in {axis} alone, with "
                 f"{family.base[axis] or 'its base level'}, to compare {level} with"}  # fmt: skip
        yield {"kind": MAIN, **named, "pairs": 0, **(missing or alone)}
        return
    main: dict[str, Any] = {"kind": MAIN, **named, **_estimate(results, [pairs])}
    main["reason"] = "; ".join(filter(None, [main.get("reason"), missing.get("reason")]))
    yield main
    if len(pairs.terms) > 1:
        parts = [set(other) for other in pairs.terms]
        vary = parts[0].union(*parts) - parts[0].intersection(*parts)
        for other, by_seed in pairs.terms.items():
            words = ", ".join(f"{axis} {at}" for axis, at in other if (axis, at) in vary)
            yield {"kind": COMBINATION, **named, "others": words,
                   **_estimate(results, [_Contrast({other: by_seed})])}  # fmt: skip


def _missing(family: _Family, axis: str, level: str) -> dict[str, str]:
    """What became of networks with this level, or with the base, that have no numbers."""
    absent: list[RunResult] = []
    for levels, cells in family.cells.items():
        partner = family.at({**dict(levels), axis: family.base[axis]})
        if dict(levels)[axis] == level and partner is not None:
            absent += [run for run in (*cells.values(), *partner.values()) if not run.done]
    if not absent:
        return {}
    reasons = dict.fromkeys(f"{run.run}: {run.status}" + (f", {run.reason}" if run.reason else "") for run in absent)
    return {"status": absent[0].status, "reason": "; ".join(reasons)}


def _interactions(results: Results, family: _Family) -> Iterator[dict[str, Any]]:
    """For two levels of two axes: what both together change beyond the sum of what each changes alone."""
    for first, second in itertools.combinations(family.base, 2):
        for one, two in itertools.product(family.levels(first), family.levels(second)):
            zero_one, zero_two = family.base[first], family.base[second]
            contrast = _contrast(family, [
                (1.0, {first: one, second: two}), (-1.0, {first: zero_one, second: two}),
                (-1.0, {first: one, second: zero_two}), (1.0, {first: zero_one, second: zero_two}),
            ])  # fmt: skip
            if contrast.terms:
                row = {"kind": INTERACTION, "run": family.run, "label": family.label, "axis": f"{first} x {second}",
                       "level": f"{one} x {two}", "base": f"{zero_one} x {zero_two}"}  # fmt: skip
                yield {**row, **_estimate(results, [contrast]), "macs_percent": None}


# ---- numbers -------------------------------------------------------------------------------------------
def _estimate(results: Results, contrasts: Sequence[_Contrast]) -> dict[str, Any]:
    """The mean of contrasts over the seeds that all have, with its interval."""
    seeds = sorted(set.intersection(*(set(contrast.seeds()) for contrast in contrasts)))
    share = 1 / len(contrasts)
    networks = [[(share * w, run) for c in contrasts for w, run in c.of_seed(seed)] for seed in seeds]
    if not networks:
        why = "no seed has all combinations of the other axes; a mean over them cannot be computed"
        return {"pairs": 0, "status": "no common seed", "reason": why}
    top1 = [sum(weight * _default(run)["top1"] for weight, run in terms) for terms in networks]
    macs = [sum(weight * _default(run)["macs"] for weight, run in terms) for terms in networks]
    before = [-sum(weight * _default(run)["macs"] for weight, run in terms if weight < 0) for terms in networks]
    interval, p = _tested(top1, networks, results.confidence_level)
    change = float(np.mean(macs))
    return {
        "top1_difference": round(float(np.mean(top1)), 4),
        "top1_lo": None if interval is None else round(interval.low, 4),
        "top1_hi": None if interval is None else round(interval.high, 4),
        "interval": str(interval) if interval is not None else TWO_SEEDS if len(top1) == 2 else "",
        "top1_min": round(min(top1), 4),
        "top1_max": round(max(top1), 4),
        "p": None if p is None else float(f"{p:.4g}"),
        "macs_difference": round(change, 2),
        "macs_percent": round(100 * change / float(np.mean(before)), 4) if np.mean(before) else None,
        "pairs": len(seeds) * sum(len(contrast.terms) for contrast in contrasts),
        "seeds": " ".join(map(str, seeds)),
        "status": "done",
    }


def _tested(
    top1: Sequence[float], networks: Sequence[Sequence[Term]], level: float
) -> tuple[Interval | None, float | None]:
    """Interval in points of percent and p-value of the mean over seeds. top1: of each seed."""
    if len(top1) == 1:
        return _over_images(networks[0], level)
    images = _default(networks[0][0][1])["n"]
    grain = 100**2 * accuracy_grain(images) * sum(weight * weight for weight, _ in networks[0])
    found = t_interval(top1, level, grain=grain)
    if found is None:
        return None, None
    degrees, mean = len(top1) - 1, (found.low + found.high) / 2
    error = (found.high - found.low) / 2 / t_quantile(0.5 + level / 2, degrees)
    named = replace(found, about=f"{NEW_RUNS}, on these images").within(-100.0, 100.0)
    return named, min(1.0, 2 * t_tail(abs(mean) / error, degrees))


def _over_images(terms: Sequence[Term], level: float) -> tuple[Interval | None, float | None]:
    """One seed: over the test images, paired; None if records were not kept."""
    records = [run.measured.test if run.measured is not None else None for _, run in terms]
    first = records[0]
    if first is None or any(r is None or not np.array_equal(r.signals.indices, first.signals.indices) for r in records):
        return None, None
    if first.n < 2:
        return None, None
    values = np.zeros(first.n)
    for (weight, _), record in zip(terms, records):
        assert record is not None
        values += weight * record.outcomes.hit[0]
    found = mean_interval(values, level, NEW_IMAGES)
    error = (found.high - found.low) / 2 / normal_quantile(0.5 + level / 2)
    p = min(1.0, 2 * normal_tail(abs(float(values.mean())) / error))
    return replace(found, low=100 * found.low, high=100 * found.high).within(-100.0, 100.0), p


def _adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Holm's procedure among the effects of one kind on one axis."""
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("p") is not None:
            families.setdefault((row["kind"], row["axis"]), []).append(row)
    for family in families.values():
        for row, adjusted in zip(family, holm([row["p"] for row in family])):
            row["p_adjusted"] = float(f"{adjusted:.4g}")


def _default(run: RunResult) -> dict[str, Any]:
    """The row of a run's default operating point."""
    return next((row for row in run.rows if row["default"] == "yes"), run.rows[0])
