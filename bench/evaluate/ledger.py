"""Reported against reproduced: published numbers beside ours, with a status that an interval decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from bench.evaluate.results import Results

NAME = "ledger.csv"


class LedgerRow(TypedDict, total=False):
    """One published number. Percent and MACs as in the other tables."""

    run: str
    label: str
    point: str
    published: float  # percent
    statistic: str  # what the published number is: one run, median of 5
    source: str
    ours: float | None  # percent; the same statistic over our seeds where it is a median, else the mean
    ours_lo: float | None
    ours_hi: float | None
    interval: str  # what ours_lo and ours_hi are about
    n_seeds: int
    difference: float | None  # ours minus published, points
    macs_published: float | None
    macs: float | None
    status: str  # within our interval, above it, below it, one seed, 2 seeds, not measured
    reason: str  # why ours may differ, or why there is none


COLUMNS: tuple[str, ...] = tuple(LedgerRow.__annotations__)


def make_ledger(results: Results, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each published number of the file, in file order. lines: ``summarise(results)``.

    Ours is the line of the point that the number is of. From two seeds on the interval is over seeds; with one seed
    it is over test images, which says nothing about other trainings, and the status says so.
    """
    rows = []
    for name, runs in results.by_name().items():
        for published in runs[0].published:
            rows.append(_row(name, runs[0].label, published, [line for line in lines if line["run"] == name]))
    return rows


def _row(name: str, label: str, published: dict[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    point = published.get("point")
    line = next((one for one in lines if _is_of(one, point)), None)
    row: dict[str, Any] = {
        "run": name, "label": label, "point": point or (line or {}).get("point") or "", "published": published["top1"],
        "statistic": published["statistic"], "source": published["source"],
        "macs_published": published.get("macs"), "reason": published.get("note") or "", "n_seeds": 0,
    }  # fmt: skip
    if line is None or line.get("top1_mean") is None:
        status = lines[0]["status"] if lines else "no results"
        why = (lines[0].get("reason") if lines else "") or status
        if any(one.get("top1_mean") is not None for one in lines):
            why = f"no operating point '{point or 'default'}'"
        return {**row, "status": "not measured", "reason": "; ".join(filter(None, [why, row["reason"]]))}
    ours = line["top1_median"] if "median" in published["statistic"] else line["top1_mean"]
    low, high = line["top1_lo"], line["top1_hi"]
    if line["n_seeds"] < 2:
        status = "one seed"
    elif low is None:
        status = f"{line['n_seeds']} seeds"  # too few for an interval over seeds
    else:
        status = "within our interval" if low <= published["top1"] <= high else (
            "ours is higher" if published["top1"] < low else "ours is lower")  # fmt: skip
    return {
        **row, "ours": ours, "ours_lo": low, "ours_hi": high, "interval": line["interval"], "n_seeds": line["n_seeds"],
        "difference": round(ours - published["top1"], 4), "macs": line["macs_mean"], "status": status,
    }  # fmt: skip


def _is_of(line: dict[str, Any], point: str | None) -> bool:
    if point is None:
        return line.get("default") == "yes"
    return bool(line.get("point") == point)
