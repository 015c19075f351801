"""The comparison's tables: points within each budget, the front, areas, verdicts. A pure function of the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.config.comparing import ALL, AUC, AUC_RANGE, REFERENCE, parse_budget
from bench.evaluate.columns import format_value
from bench.evaluate.comparing import budgets as at_budget
from bench.evaluate.comparing import frontier, verdicts
from bench.evaluate.comparing.budgets import Chosen, Latencies, Limit, Prices, mean
from bench.evaluate.comparing.contenders import NO_RECORDS, Contender, make_contender
from bench.evaluate.comparing.verdicts import Standing
from bench.evaluate.measured import Measured
from bench.evaluate.policies.fitted import macs_of_points
from bench.evaluate.results import Results, RunResult

#: More comparisons than this are not made: adjusted for so many, next to nothing could be decided.
MOST_VERDICTS = 3000
#: File, the field of ``Compared`` and its columns.
TABLES: tuple[tuple[str, str, Sequence[str]], ...] = (
    ("budgets.csv", "budgets", at_budget.COLUMNS),
    ("budget_summary.csv", "budget_summary", at_budget.SUMMARY_COLUMNS),
    ("frontier.csv", "frontier", frontier.COLUMNS),
    ("auc.csv", "auc", frontier.AUC_COLUMNS),
    ("verdicts.csv", "verdicts", verdicts.COLUMNS),
)


@dataclass(frozen=True)
class Compared:
    """Rows of the tables, as dicts whose columns TABLES names, and lines for readers: what was left out and why."""

    budgets: list[dict[str, Any]] = field(default_factory=list)
    budget_summary: list[dict[str, Any]] = field(default_factory=list)
    frontier: list[dict[str, Any]] = field(default_factory=list)
    auc: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: By contender: the curve whose area is taken, and the range that it is taken over.
    staircases: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    auc_range: tuple[float, float] | None = None


def compare(results: Results) -> Compared:
    """Compare all contenders of a results folder, at its budgets and over the whole curve.

    Everything is chosen on validation records; test records are opened to score what was chosen. Raises RunError
    where latency.csv is damaged.
    """
    notes: list[str] = []
    contenders = [_contender(name, runs, notes) for name, runs in _entrants(results).items()]
    level = results.confidence_level
    prices = Prices(_latencies(results, notes))
    limits = _limits(results, prices)
    chosen = at_budget.choose_all(contenders, limits, prices)
    common = _auc_range(results)
    areas = {
        c.name: [common if isinstance(common, str) else frontier.auc_scores(t, common) for t in c.seeds]
        for c in contenders
    }
    standings = {limit.name: _standings([c for c in chosen if c.limit is limit]) for limit in limits}
    if not isinstance(common, str):
        standings[AUC] = [_area_standing(c, areas[c.name]) for c in contenders]
    elif any(c.seeds for c in contenders):
        notes.append(f"No area under the curve: {common}.")
    return Compared(
        at_budget.budget_rows(chosen, level), at_budget.budget_summary(chosen, level),
        frontier.frontier_rows(contenders), frontier.auc_rows(contenders, areas, common, level),
        _verdicts(results, contenders, limits, standings, notes), notes,
        {c.name: steps for c in contenders if not isinstance(common, str) and (steps := frontier.staircase(c, common))},
        None if isinstance(common, str) else common,
    )  # fmt: skip


def _verdicts(
    results: Results, contenders: Sequence[Contender], limits: Sequence[Limit],
    standings: dict[str, list[Standing]], notes: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of verdicts.csv: nobody to compare with, or too many comparisons, leaves none."""
    able = sum(bool(c.seeds) for c in contenders)
    if able < 2:
        return []
    costs = [limit.macs or limit.ms or 0.0 for limit in limits]
    order = results.asked.arrange([limit.budget for limit in limits], costs)
    asked = verdicts.Asked(_against(results), order)
    count = verdicts.count_pairs(able, asked.against) * len(standings)
    if count > MOST_VERDICTS:
        notes.append(f"No verdicts: {count:,} comparisons would decide nothing; put runs into groups, or ask for fewer "
                     "budgets.")  # fmt: skip
        return []
    return verdicts.verdict_rows(standings, results.confidence_level, asked)


def _against(results: Results) -> str | None:
    """Name of the contender that the others are tested against; None: every pair."""
    said = results.asked.against or (REFERENCE if results.reference else ALL)
    if said == ALL:
        return None
    name = results.reference if said == REFERENCE else said
    entrants = _entrants(results)
    for contender, runs in entrants.items():
        if name in (contender, *(run.run for run in runs)) or (said != REFERENCE and runs[0].group == name):
            return contender
    return str(name)


def _auc_range(results: Results) -> tuple[float, float] | str:
    """The range of budgets of the area, MACs: the file's, whoever takes part; or why there is none."""
    entries = results.auc or (AUC_RANGE if results.reference else None)
    if entries is None:
        return "the file names no range (`auc:` in MACs) and no reference run"
    ends = [parse_budget(entry) for entry in entries]
    reference = reference_macs(results)
    if any(end.unit == "relative" for end in ends) and isinstance(reference, str):
        return reference
    low, high = (end.value * reference if isinstance(reference, float) and end.unit == "relative" else end.value
                 for end in ends)  # fmt: skip
    return (low, high) if low < high else f"its range does not grow ({low / 1e6:.4g}M to {high / 1e6:.4g}M MACs)"


def _entrants(results: Results) -> dict[str, list[RunResult]]:
    """Runs by contender, in file order: the group, or the run by itself. A run may be called as a group is."""
    found: dict[tuple[bool, str], list[RunResult]] = {}
    for run in results.runs:
        found.setdefault((run.group is not None, run.group or run.run), []).append(run)
    names = [name for _, name in found]
    return {
        f"{name} (run)" if names.count(name) > 1 and not grouped else name: runs
        for (grouped, name), runs in found.items()
    }


def _contender(name: str, runs: Sequence[RunResult], notes: list[str]) -> Contender:
    """Runs without any finished seed are left out of a group; so is a seed that lacks one of the others, since a
    family without one of its members would count as a worse family."""
    label = runs[0].group or runs[0].label
    done = [run for run in runs if run.done]
    if not done:
        reason = runs[0].reason or f"not done ({runs[0].status})"
        notes.append(f"{label} is not compared: {reason}.")
        return make_contender(name, label, {}, reason)
    measured: dict[int, dict[str, Measured]] = {}
    for run in done:
        if run.measured is not None:
            measured.setdefault(run.seed, {})[run.run] = run.measured
    names = list(dict.fromkeys(run.run for run in runs))
    members = [one for one in names if any(one in of_seed for of_seed in measured.values())]
    for one in names:
        if measured and one not in members:
            why = next(run.reason or run.status if not run.done else NO_RECORDS for run in runs if run.run == one)
            notes.append(f"{label}: without {one} ({why}).")
    whole: dict[int, dict[str, Measured]] = {}
    for seed, of_seed in sorted(measured.items()):
        lacking = [one for one in members if one not in of_seed]
        if lacking:
            notes.append(f"{label}: without seed {seed}, which lacks {', '.join(lacking)}.")
        else:
            whole[seed] = {one: of_seed[one] for one in members}
    lost = sorted({run.seed for run in runs} - set(measured))
    if lost and measured:
        notes.append(f"{label}: without seed{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))} (not done).")
    reason = "no seed has all runs of the group" if measured and not whole else ""
    found = make_contender(name, label, whole, reason, {run.tested_on for run in done})
    if found.reason:
        notes.append(f"{label} is not compared: {found.reason}.")
    elif len(found.seeds) == 1:
        notes.append(f"{label}: one seed; its intervals say nothing about other trainings.")
    return found


def _limits(results: Results, prices: Prices) -> list[Limit]:
    """The budgets, shares turned into MACs."""
    reference = reference_macs(results)
    limits = []
    for entry in results.budgets:
        budget = parse_budget(entry)
        if budget.unit == "macs":
            limits.append(Limit(budget, macs=budget.value))
        elif budget.unit == "relative":
            if isinstance(reference, str):
                limits.append(Limit(budget, reason=reference))
            else:
                limits.append(Limit(budget, macs=budget.value * reference))
        elif prices.latencies:
            limits.append(Limit(budget, ms=budget.value))
        else:
            limits.append(Limit(budget, reason="nothing was timed at batch 1"))
    return list({limit.name: limit for limit in limits}.values())


def reference_macs(results: Results) -> float | str:
    """Mean validation cost of an image at the reference run's default operating point, of the seed where that is
    largest, so that the reference itself fits a budget of 1 in every seed; or why it is unknown. Where it is the same
    for all images, no validation part is needed."""
    costs = []
    for run in results.runs:
        if run.run == results.reference and run.done and run.measured is not None:
            measured = run.measured
            record = measured.val or (measured.test if measured.test.signals.same_for_all else None)
            if record is not None:
                costs.append(float(macs_of_points(record, measured.cost)[0].mean()))
    if results.reference is None:
        return "a share of what: the file names no reference run"
    if costs:
        return max(costs)
    statuses = dict.fromkeys(run.status for run in results.runs if run.run == results.reference)
    if not statuses:
        why = "is none of the runs here"
    else:
        why = "has no validation records" if "done" in statuses else f"is not done ({', '.join(statuses)})"
    return f"the reference run {results.reference} {why}"


def _standings(chosen: Sequence[Chosen]) -> list[Standing]:
    """Contenders at one budget; one whose seeds cannot all afford it is not compared there."""
    by_contender: dict[str, list[Chosen]] = {}
    for one in chosen:
        by_contender.setdefault(one.contender.name, []).append(one)
    found = []
    for members in by_contender.values():
        reasons = dict.fromkeys(m.reason for m in members if m.scored is None)
        scored = [m.scored for m in members if m.scored is not None]
        contender = members[0].contender
        if reasons:
            found.append(Standing(contender, (), reason="; ".join(reasons)))
        else:
            networks = tuple(m.candidate.run for m in members if m.candidate is not None)
            macs = mean([s.mean_macs for s in scored])
            found.append(Standing(contender, tuple(s.hit for s in scored), macs, networks=networks))
    return found


def _area_standing(contender: Contender, areas: Sequence[Any]) -> Standing:
    reasons = dict.fromkeys(values for values in areas if isinstance(values, str))
    reason = contender.reason or "; ".join(reasons)
    return Standing(contender, () if reason else tuple(areas), reason=reason)


def _latencies(results: Results, notes: list[str]) -> Latencies:
    """Milliseconds of an image at batch 1, mean over the seeds that were timed. Where points were timed in several
    ways (device, machine, threads), those of the first count."""
    current = {run.run_id for run in results.runs if run.done}
    rows = [
        row for row in results.times
        if row["batch"] == 1 and row["run_id"] in current and row["ms_per_image"] is not None
    ]  # fmt: skip
    ways = list(dict.fromkeys((row["device"], row["host_class"], row["threads"]) for row in rows))
    found: dict[tuple[str, str, str, str], list[float]] = {}
    for row in rows:
        if (row["device"], row["host_class"], row["threads"]) == ways[0]:
            key = (row["run"], row["policy"], row["point"], format_value(row["setting"]))
            found.setdefault(key, []).append(row["ms_per_image"])
    if len(ways) > 1 and any(parse_budget(entry).unit == "ms" for entry in results.budgets):
        device, machine, threads = ways[0]
        notes.append(f"Budgets in milliseconds are those of {device} on {machine}, threads: {threads}.")
    return {key: math.fsum(values) / len(values) for key, values in found.items()}
