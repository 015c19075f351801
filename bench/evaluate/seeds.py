"""Over seeds: one line per run, policy and operating point."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from bench.evaluate.columns import LEGACY
from bench.evaluate.results import Results
from bench.evaluate.stats import TWO_SEEDS, over_seeds_interval


class SummaryRow(TypedDict, total=False):
    """One operating point over the seeds that have it. Percent and MACs as in the long table."""

    run: str
    label: str
    method: str
    backbone: str
    stage: str
    policy: str
    point: str
    default: str
    setting: float | None
    chosen_on: str
    adaptive: str  # yes: the cost depends on the image
    n: int | None  # test images
    n_seeds: int  # seeds with numbers
    seeds: str  # which
    top1_mean: float | None
    top1_median: float | None
    top1_min: float | None
    top1_max: float | None
    top1_sd: float | None  # sample standard deviation over seeds
    top1_lo: float | None
    top1_hi: float | None
    interval: str  # what top1_lo and top1_hi are about
    top5_mean: float | None
    nll_mean: float | None
    ece_mean: float | None
    macs_mean: float | None
    macs_min: float | None  # smallest mean cost of a seed
    macs_max: float | None  # largest mean cost of a seed
    macs_p95_mean: float | None
    macs_elementwise_mean: float | None
    macs_fvcore_mean: float | None
    params: int | None
    status: str  # done where every seed is, else how many of each
    reason: str


COLUMNS: tuple[str, ...] = tuple(SummaryRow.__annotations__)


def summarise(results: Results) -> list[dict[str, Any]]:
    """Rows of ``summary.csv``, runs in file order, the default point of each first.

    One seed keeps its interval over test images; from three on it is Student's t over seeds; two have none.
    """
    lines: list[dict[str, Any]] = []
    for name, runs in results.by_name().items():
        status, reason = _status(runs)
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for run in runs:
            for row in run.rows if run.done else []:
                groups.setdefault((row["policy"], row["point"], row["setting"]), []).append(row)
        for rows in groups.values():
            lines.append({**_over_seeds(rows, results.confidence_level), "status": status, "reason": reason})
        if not groups:
            lines.append({"run": name, "label": runs[0].label, "method": runs[0].method, "n_seeds": 0,
                          "status": status, "reason": reason})  # fmt: skip
    return lines


def legacy_columns(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the published ways of counting that some line has."""
    return sorted({name for line in lines for name in line if name.startswith(LEGACY)})


def interval_over(line: Mapping[str, Any]) -> str:
    """What the interval of a line of any table is over: '3 seeds', or 'images' (of one trained network); empty if it
    has none."""
    if line.get("top1_lo") is None and line.get("ours_lo") is None:
        return ""
    return f"{line['n_seeds']} seeds" if line["n_seeds"] > 1 else "images"


def _over_seeds(rows: list[dict[str, Any]], level: float) -> dict[str, Any]:
    first = rows[0]
    top1 = [row["top1"] for row in rows]
    macs = [row["macs"] for row in rows]
    interval = over_seeds_interval(top1, first["n"], level) if first["n"] else None
    if len(rows) == 1 or first["top1_lo"] is None:  # a bound: an expectation has no interval
        ends = {name: first[name] for name in ("top1_lo", "top1_hi", "interval")}
    elif interval is None:
        ends = {"top1_lo": None, "top1_hi": None, "interval": TWO_SEEDS}
    else:
        ends = {"top1_lo": interval.low, "top1_hi": interval.high, "interval": str(interval)}
    kept = ("run", "label", "method", "backbone", "stage", "policy", "point", "default", "setting", "chosen_on",
            "n", "params")  # fmt: skip
    means = ("top5", "nll", "ece", "macs", "macs_p95", "macs_elementwise", "macs_fvcore")
    line = {
        **{name: first[name] for name in kept},
        "adaptive": "yes" if any(row["adaptive"] == "yes" for row in rows) else "no",
        "n_seeds": len(rows),
        "seeds": " ".join(str(row["seed"]) for row in rows),
        "top1_mean": _mean(top1),
        "top1_median": statistics.median(top1),
        "top1_min": min(top1),
        "top1_max": max(top1),
        "top1_sd": statistics.stdev(top1) if len(top1) > 1 else None,
        **ends,
        **{f"{name}_mean": _mean([row[name] for row in rows]) for name in means},
        "macs_min": min(macs),
        "macs_max": max(macs),
        **{name: _mean([row.get(name) for row in rows]) for name in first if name.startswith(LEGACY)},
    }
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in line.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _status(runs: Sequence[Any]) -> tuple[str, str]:
    """('done', '') or ('1 of 3 done', 'seed 1 diverged: ...; seed 2 pending')."""
    others = [run for run in runs if not run.done]
    if not others:
        return "done", ""
    words = [f"{run.status}: {run.reason}" if run.reason else run.status for run in others]
    if len(runs) == 1:
        return others[0].status, others[0].reason
    if len(others) == len(runs) and len(set(words)) == 1:
        return others[0].status, others[0].reason
    done = len(runs) - len(others)
    status = f"{done} of {len(runs)} done" if done else others[0].status
    return status, "; ".join(f"seed {run.seed} {word}" for run, word in zip(others, words))
