"""Is A better than B at this budget: yes, no or undecided, and by how much.

What is asked is said beforehand (``Asked``): usually each contender against the reference, the area first, then the
budgets from the dearest on. Each contender's questions are a chain of the graphical procedure (``graph``), so that the
chance of even one wrong yes or no is at most 1 - level. A pair is tested on the seeds that both have. From three common
seeds on a verdict is about the methods; with one it is about these networks, a family of its own; two hardly tell how
much runs differ, so that they are not tested. Nor is a budget at which the seeds of a contender choose different
networks: its runs come in two kinds, for which no t test holds its level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from bench.config.comparing import AUC
from bench.evaluate.comparing.budgets import rounded
from bench.evaluate.comparing.contenders import Contender
from bench.evaluate.comparing.differences import Difference, measure_difference
from bench.evaluate.comparing.graph import Decision, decide
from bench.evaluate.comparing.moderated import fit_prior, moderate, moderated_degrees
from bench.evaluate.stats import FEWEST_SEEDS, Interval, accuracy_grain

COLUMNS = (
    "a", "b", "label_a", "label_b", "budget", "verdict", "better", "effect", "lo", "hi", "interval", "p", "p_adjusted",
    "comparisons", "adjustment", "asked", "weight", "images_lo", "images_hi", "images_interval", "runs_lo", "runs_hi",
    "runs_interval", "both_lo", "both_hi", "both_interval", "seeds", "seed_effects", "left_out", "n_seeds_a",
    "n_seeds_b", "top1_a", "top1_b", "macs_a", "macs_b", "n", "moderated", "moderated_p", "moderated_lo",
    "moderated_hi", "d0", "s0", "s_a", "s_b", "note", "reason",
)  # fmt: skip

YES, NO, UNDECIDED = "yes", "no", "undecided"
#: Of one seed: a claim about the networks, not about the methods.
THESE = ", these networks"
NOT_REACHED, NOT_TESTED, UNSTABLE = "not reached", "not tested", "unstable"
#: Verdicts that decide something about the methods.
DECIDED = (YES, NO)
ONE_SEED = "one seed: says nothing about other trainings"
TWO_SEEDS = "two seeds: both differences are in seed_effects; they do not tell how much trainings differ"
#: Fewer degrees of freedom than this are not borrowed.
LEAST_D0 = 4.0


@dataclass(frozen=True)
class Standing:
    """A contender at one budget. scores: of its seeds, each [N] over the test images, between 0 and 1. macs: mean over
    seeds of the mean cost on test. reason: why it cannot be compared here; scores are then empty. networks: the
    run that each seed chose; empty for the area, which no seed spends on one network."""

    contender: Contender
    scores: tuple[np.ndarray, ...]
    macs: float | None = None
    reason: str = ""
    networks: tuple[str, ...] = ()

    @property
    def seeds(self) -> list[int]:
        return [trained.seed for trained in self.contender.seeds]


@dataclass(frozen=True)
class Asked:
    """What was asked beforehand. against: name of the contender that every other one is compared with; None: all pairs.
    order: ``budget`` of the rows in the order in which they are tested."""

    against: str | None
    order: Sequence[str]


@dataclass
class _Row:
    """A row while it is made. found: None if there is nothing to test."""

    values: dict[str, Any]
    found: Difference | None = None

    @property
    def pair(self) -> tuple[str, str]:
        return self.values["a"], self.values["b"]


def verdict_rows(standings: Mapping[str, Sequence[Standing]], level: float, asked: Asked) -> list[dict[str, Any]]:
    """Rows of ``verdicts.csv``. standings: budget as written (or ``AUC``) -> all contenders in file order. A is the
    contender and B what it is compared with; of all pairs A is the first of the file."""
    rows: list[_Row] = []
    for budget, entrants in standings.items():
        spread = _spread(entrants)
        for a, b in _pairs(entrants, asked.against):
            rows.append(_measure(budget, a, b, level, asked, spread))
    for several in (True, False):
        family = [row for row in rows if row.found is not None and (row.found.over_runs is not None) is several]
        _decide(family, asked, level)
    return [_rounded(row.values) for row in rows]


def count_pairs(contenders: int, against: str | None) -> int:
    """The number of pairs of contenders that are compared."""
    return contenders * (contenders - 1) // 2 if against is None else contenders - 1


def _pairs(entrants: Sequence[Standing], against: str | None) -> Iterator[tuple[Standing, Standing]]:
    if against is None:
        yield from combinations(entrants, 2)
        return
    fixed = next((one for one in entrants if one.contender.name == against), None)
    if fixed is not None:
        yield from ((one, fixed) for one in entrants if one is not fixed)


def _measure(
    budget: str, a: Standing, b: Standing, level: float, asked: Asked, spread: Mapping[str, float] | str
) -> _Row:
    """What is known of a pair before anything is decided. found: set if the pair is to be tested."""
    common = [seed for seed in a.seeds if seed in b.seeds]
    row: dict[str, Any] = {
        "a": a.contender.name, "b": b.contender.name, "label_a": a.contender.label, "label_b": b.contender.label,
        "budget": budget, "n_seeds_a": len(a.scores), "n_seeds_b": len(b.scores), "reason": _reason(a, b, common),
    }  # fmt: skip
    if row["reason"]:
        return _Row(row)
    scores = [np.stack([one.scores[one.seeds.index(seed)] for seed in common]) for one in (a, b)]
    found = measure_difference(scores[0], scores[1])
    each = 100 * (scores[0].mean(axis=1) - scores[1].mean(axis=1))
    unstable = list(filter(None, (_unstable(one, common) for one in (a, b))))
    left_out = _left_out(a, b, common)
    row |= {
        **_effect(scores, found, level), "macs_a": a.macs, "macs_b": b.macs, "asked": asked.order.index(budget) + 1,
        "seeds": " ".join(map(str, common)), "left_out": left_out, **_moderated(found, a, b, level, spread),
        "seed_effects": " ".join(f"{effect:.4g}" for effect in each),
    }  # fmt: skip
    if unstable:
        row |= {"verdict": UNSTABLE, "note": f"seeds choose different networks, not tested ({'; '.join(unstable)})"}
    elif len(common) == 2:
        row |= {"verdict": NOT_TESTED, "note": TWO_SEEDS}
    elif len(common) == 1:
        row["note"] = ONE_SEED
    if left_out:
        row["note"] = "; ".join(filter(None, [row.get("note"), f"common seeds only: without {left_out}"]))
    return _Row(row, None if "verdict" in row else found)


def _reason(a: Standing, b: Standing, common: Sequence[int]) -> str:
    """Why two cannot be compared, or ''."""
    lacking = [f"{one.contender.label}: {one.reason}" for one in (a, b) if one.reason]
    if lacking:
        return "; ".join(lacking)
    assert a.contender.images is not None
    assert b.contender.images is not None
    if a.scores[0].size < 2:
        return "one test image is too few for a difference"
    return a.contender.images.differs(b.contender.images) or ("" if common else "no seed in common")


def _unstable(one: Standing, common: Sequence[int]) -> str:
    """'A: resnet8 (seeds 0, 1), resnet14 (seed 2)' if the common seeds chose different networks, else ''."""
    chosen: dict[str, list[str]] = {}
    for seed, network in zip(one.seeds, one.networks):
        if seed in common:
            chosen.setdefault(network, []).append(str(seed))
    if len(chosen) < 2:
        return ""
    parts = (f"{network} ({_seeds(seeds)})" for network, seeds in chosen.items())
    return f"{one.contender.label}: {', '.join(parts)}"


def _seeds(seeds: Sequence[str]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _left_out(a: Standing, b: Standing, common: Sequence[int]) -> str:
    """'2 seeds of A (3, 4)': what the other side does not have."""
    parts = []
    for one in (a, b):
        lost = [str(seed) for seed in one.seeds if seed not in common]
        if lost:
            parts.append(f"{len(lost)} seed{'s' if len(lost) > 1 else ''} of {one.contender.label} ({', '.join(lost)})")
    return " and ".join(parts)


def _effect(scores: Sequence[np.ndarray], found: Difference, level: float) -> dict[str, Any]:
    """The difference in percent points with the interval of every estimand, not adjusted."""
    row: dict[str, Any] = {
        "effect": 100 * found.effect, "n": scores[0].shape[1], "note": "",
        "top1_a": 100 * float(scores[0].mean()), "top1_b": 100 * float(scores[1].mean()),
    }  # fmt: skip
    for name in ("images", "runs", "both"):
        interval = getattr(found, name)(level)
        if interval is not None and (name == "images" or found.number >= FEWEST_SEEDS):
            row |= {**_ends(name, interval), f"{name}_interval": str(interval)}
    return row


def _ends(name: str, interval: Interval) -> dict[str, float]:
    """In points, cut to what a difference of accuracies can be."""
    return {f"{name}_lo": max(100 * interval.low, -100.0), f"{name}_hi": min(100 * interval.high, 100.0)}


def _decide(family: Sequence[_Row], asked: Asked, level: float) -> None:
    """Write the verdicts of rows that are adjusted together."""
    chains: dict[tuple[str, str], list[_Row]] = {}
    for row in sorted(family, key=lambda row: row.values["asked"]):
        chains.setdefault(row.pair, []).append(row)
    decisions = decide([[_found(row).p_value() for row in chain] for chain in chains.values()], 1 - level)
    for chain, decided in zip(chains.values(), decisions):
        before = ""
        for row, decision in zip(chain, decided):
            row.values |= _verdict(row, decision, level, len(family), before)
            before = before or ("" if decision.decided else _name(row.values["budget"]))


def _verdict(row: _Row, decision: Decision, level: float, family: int, before: str) -> dict[str, Any]:
    """before: the question of the chain that was not decided, '' if all were."""
    found, values = _found(row), row.values
    made: dict[str, Any] = {
        "p": found.p_value(), "p_adjusted": decision.adjusted, "comparisons": family, "weight": decision.weight,
        "adjustment": f"graphical procedure over {family} comparison{'s' if family > 1 else ''}",
    }  # fmt: skip
    if not decision.reached:
        why = f"not reached: {before} comes before it and is undecided"
        return {**made, "verdict": NOT_REACHED, "note": "; ".join(filter(None, [values["note"], why]))}
    own = 1 - (1 - level) * decision.weight
    interval = found.cautious(own)
    made |= {**_ends("", interval), "interval": f"{100 * own:.6g} % {interval.kind}: {interval.about}"}
    made |= {"lo": made.pop("_lo"), "hi": made.pop("_hi")}
    if not decision.decided:
        return {**made, "verdict": UNDECIDED}
    ahead = found.effect > 0
    about = "" if found.over_runs is not None else THESE
    return {**made, "verdict": (YES if ahead else NO) + about, "better": values["label_a" if ahead else "label_b"]}


def _name(budget: str) -> str:
    return "the area" if budget == AUC else f"the budget {budget}"


def _found(row: _Row) -> Difference:
    assert row.found is not None
    return row.found


# ---- variances that borrow from each other -------------------------------------------------------------
def _spread(entrants: Sequence[Standing]) -> dict[str, float] | str:
    """Variances of the accuracies over seeds by contender, with the grain; or why they are not put together."""
    able = [one for one in entrants if one.scores]
    if len({tuple(one.seeds) for one in able}) > 1:
        return "hidden: seeds differ"
    if len(able) < 2 or len(able[0].scores) < 2:
        return "hidden: too few seeds or contenders"
    return {
        one.contender.name: float(np.var([s.mean() for s in one.scores], ddof=1)) + accuracy_grain(one.scores[0].size)
        for one in able
    }  # fmt: skip


def _moderated(
    found: Difference, a: Standing, b: Standing, level: float, spread: Mapping[str, float] | str
) -> dict[str, Any]:
    """The second opinion: the same test with variances that borrow from all contenders at this budget."""
    if isinstance(spread, str):
        return {"moderated": spread}
    degrees = found.number - 1
    prior = fit_prior(list(spread.values()), degrees)
    own = [spread[one.contender.name] for one in (a, b)]
    row: dict[str, Any] = {
        "d0": prior.degrees, "s0": 100 * prior.variance**0.5, "s_a": 100 * own[0] ** 0.5, "s_b": 100 * own[1] ** 0.5,
    }  # fmt: skip
    if prior.degrees < LEAST_D0:
        return {**row, "moderated": f"hidden: d0 below {LEAST_D0:g}"}
    both = tuple(moderate(variance, degrees, prior) / found.number for variance in own)
    borrowed = replace(
        found, over_runs=(both[0], both[1]), degrees=moderated_degrees(degrees, prior, len(spread))
    )  # fmt: skip
    words = f"{100 * level:g} %, variances of {len(spread)} contenders moderated; not adjusted and not the verdict"
    return {**row, "moderated": words, "moderated_p": borrowed.p_value(),
            **_ends("moderated", borrowed.cautious(level))}  # fmt: skip


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """As elsewhere; p-values keep their leading digits, however small they are."""
    small: dict[str, Any] = {
        name: float(f"{row[name]:.4g}") for name in ("p", "p_adjusted", "moderated_p") if name in row
    }  # fmt: skip
    return {**rounded(row), **small}
