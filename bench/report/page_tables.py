"""The tables of the page: what their columns are called and mean, and their cells as text and as values to sort by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.evaluate.comparing.verdicts import DECIDED, THESE, UNDECIDED
from bench.evaluate.results import Results
from bench.evaluate.seeds import interval_over
from bench.report.style import format_macs, looks


@dataclass(frozen=True)
class Column:
    """name: heading. key: of the row, or what makes the value from it. digits: after the point; None: MACs."""

    name: str
    key: str | Callable[[Mapping[str, Any]], Any]
    help: str = ""
    digits: int | None = 2
    text: bool = False

    def cell(self, row: Mapping[str, Any]) -> dict[str, Any]:
        value = self.key(row) if callable(self.key) else row.get(self.key)
        if value is None or value == "":
            return {"text": "", "value": "", "is_text": self.text}
        if self.text:
            return {"text": str(value), "value": None, "is_text": True}
        if self.digits is None:
            shown = format_macs(value, decimals=2)
        elif self.digits and 0 < value < 0.5 * 10**-self.digits:
            shown = f"<{10**-self.digits:.{self.digits}f}"  # a small number is not 0
        else:
            shown = f"{value:.{self.digits}f}"
        return {"text": shown, "value": value, "is_text": False}


_OVER = Column("over", interval_over, "what the interval is over: trainings with other seeds, or the test images of one"
               " trained network", text=True)  # fmt: skip


def _interval(rows: Sequence[Mapping[str, Any]], low: str, high: str) -> tuple[Column, ...]:
    """The columns of an interval, given the keys of its ends; if rows differ in what it is over, each says so."""
    ends = Column("from", low, "lower end of the interval"), Column("to", high, "upper end of the interval")
    return (*ends, _OVER) if len({interval_over(row) for row in rows} - {""}) > 1 else ends


@dataclass(frozen=True)
class Table:
    """One table of the page. rows: dicts with cells, and optionally colour, more (hidden at first), words, title."""

    id: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    note: str = ""
    more: str = ""  # label of the check box that shows the rows marked so


def results_table(results: Results, lines: Sequence[dict[str, Any]], convention: str) -> Table:
    """All operating points of all runs; the default ones at first. lines: ``summarise(results)``."""
    columns = (
        Column("Run", "label", text=True),
        Column("Policy", "policy", "how each image gets its operating point", text=True),
        Column("Point", _point, "operating point, or the policy's setting", text=True),
        Column("Top-1 %", "top1_mean", "test accuracy, mean over seeds"),
        *_interval(lines, "top1_lo", "top1_hi"),
        Column("Top-5 %", "top5_mean", "label among the five most likely, mean over seeds"),
        Column("MACs", "macs_mean", "multiply-accumulates of an image, mean over images and seeds", None),
        Column("MACs p95", "macs_p95_mean", "95 % of the images cost no more", None),
        Column("Params", "params", "parameters of the whole network", None),
        Column("ECE %", "ece_mean", "expected calibration error, 15 bins"),
        Column("NLL", "nll_mean", "mean negative log-likelihood of the label, nats", 3),
        Column("Seeds", "n_seeds", "trainings that the line is a mean over", 0),
        Column("Status", "status", text=True),
    )
    own = looks(results)
    rows = []
    for line in lines:
        has = line.get("top1_mean") is not None
        names = [line.get(key) or "" for key in ("label", "run", "method", "policy")] + [_point(line), line["status"]]
        rows.append({
            "cells": [column.cell(line) for column in columns], "colour": own[line["run"]].colour,
            "more": has and line.get("default") != "yes", "words": " ".join(map(str, names)).lower(),
            "title": line.get("reason") or "",
        })  # fmt: skip
    intervals = {line["interval"]: interval_over(line) for line in lines if line.get("interval")}
    meanings = "".join(f" Interval over {over}: {text}." for text, over in intervals.items())
    note = (
        "Default operating points unless all are shown; means over seeds; oracle and random are bounds, not results. "
        f"A click on a heading sorts.{meanings} {convention}"
    )
    return Table("results", "Results", columns, rows, note, "all operating points")


def budgets_table(rows: Sequence[dict[str, Any]], note: str) -> Table:
    """Accuracy at each budget. rows: those of budget_summary.csv."""
    columns = (
        Column("Budget", "budget", "limit on the mean cost of an image", text=True),
        Column("Contender", "label", text=True),
        Column("Top-1 %", "top1_mean", "test accuracy of the points that were chosen on validation, mean over seeds"),
        *_interval(rows, "top1_lo", "top1_hi"),
        Column("Median", "top1_median", "median over seeds"),
        Column("Min", "top1_min", "worst seed"),
        Column("Max", "top1_max", "best seed"),
        Column("MACs", "macs_mean", "what it really cost on test, mean over images and seeds", None),
        Column("MACs p95", "macs_p95_mean", "95 % of the images cost no more", None),
        Column("Limit", "budget_macs", "the budget in MACs", None),
        Column("Seeds", "n_seeds", digits=0),
        Column("Note", "reason", text=True),
    )
    places = {name: place for place, name in enumerate(dict.fromkeys(row["budget"] for row in rows))}
    ordered = sorted(rows, key=lambda row: (places[row["budget"]], -(row.get("top1_mean") or -1.0)))
    return _plain("budgets", "Accuracy at a budget", columns, ordered, note)


def verdicts_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Which contender is better at which budget, by how much, and whether that is more than noise."""
    columns = (
        Column("Budget", "budget", "limit on the mean cost; auc: area under accuracy over log MACs", text=True),
        Column("A better?", "verdict", "yes, no, undecided; adjusted for the number of comparisons", text=True),
        Column("interval of the test", _ends("lo", "hi"), "points; adjusted: holds 0 exactly if undecided", text=True),
        Column("A", "label_a", text=True),
        Column("B", "label_b", text=True),
        Column("A minus B", "effect", "difference of top-1, points"),
        Column("new images", _ends("images_lo", "images_hi"),
               "interval, not adjusted: these trained networks, new images", text=True),
        Column("new trainings and images", _ends("both_lo", "both_hi"),
               "interval, not adjusted: the method trained anew, new images", text=True),
        Column("each seed", "seed_effects", "A minus B of every common seed, points", text=True),
        Column("p adjusted", "p_adjusted", "for all comparisons of this table", 4),
        Column("p moderated", "moderated_p", "second opinion, never the verdict: not adjusted, variances over seeds "
               "borrow from all contenders at this budget (Smyth 2004)", 4),
        Column("MACs A", "macs_a", "mean test cost of what A ran", None),
        Column("MACs B", "macs_b", "mean test cost of what B ran", None),
        Column("Seeds A", "n_seeds_a", digits=0),
        Column("Seeds B", "n_seeds_b", digits=0),
        Column("Note", lambda row: row.get("reason") or row.get("note"), text=True),
    )
    found = _plain("verdicts", "Verdicts: is A better than B at a budget?", columns, rows, "")
    for row, source in zip(found.rows, rows):
        row["class"] = f"verdict-{verdict_class(source.get('verdict') or '')}"
        row["more"] = not source.get("verdict") and any(one.get("verdict") for one in rows)
    how = " and ".join(dict.fromkeys(row["adjustment"] for row in rows if row.get("adjustment")))
    note = ""
    if how:
        note = (f"Verdict, interval of the test and p are adjusted ({how}); the other intervals are not. A row that is "
                "not reached comes after one that is undecided. verdicts.csv holds every interval.")  # fmt: skip
    more = "pairs that could not be compared" if any(row["more"] for row in found.rows) else ""
    return replace(found, note=note, more=more)


def verdict_class(verdict: str) -> str:
    """The look of a verdict: yes and no about methods, 'these' about these networks, undecided, else none."""
    if verdict.endswith(THESE):
        return "these"
    return verdict if verdict in (*DECIDED, UNDECIDED) else "none"


def _ends(first: str, last: str) -> Callable[[Mapping[str, Any]], str]:
    """'-1.20 to 0.35', or nothing where there is no such interval."""

    def shown(row: Mapping[str, Any]) -> str:
        low, high = row.get(first), row.get(last)
        return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"

    return shown


def ledger_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Published numbers beside ours."""
    columns = (
        Column("Run", "label", text=True),
        Column("Point", "point", text=True),
        Column("Published %", "published"),
        Column("is a", "statistic", text=True),
        Column("Ours %", "ours", "mean over seeds, or their median where a median was published"),
        *_interval(rows, "ours_lo", "ours_hi"),
        Column("Difference", "difference", "ours minus published, points"),
        Column("Seeds", "n_seeds", digits=0),
        Column("MACs published", "macs_published", digits=None),
        Column("MACs", "macs", digits=None),
        Column("Status", "status", text=True),
        Column("Source", "source", text=True),
        Column("Why they may differ", "reason", text=True),
    )
    note = "Status compares the published number with our interval; one seed says nothing about other trainings."
    return _plain("ledger", "Reported and reproduced", columns, rows, note)


def effects_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What each level of an ablation changes."""
    columns = (
        Column("Axis", "axis", text=True),
        Column("Level", "level", text=True),
        Column("against", "base", text=True),
        Column("Run", "label", text=True),
        Column("At", "others", "levels of the other axes; empty: mean over them", text=True),
        Column("Change of top-1", "top1_difference", "points, level minus base"),
        Column("from", "top1_lo"),
        Column("to", "top1_hi"),
        Column("p adjusted", "p_adjusted", "Holm's, among the effects on this axis", 4),
        Column("Change of MACs %", "macs_percent", "of the base level's", 1),
        Column("Pairs", "pairs", "pairs of networks", 0),
        Column("Interval", "interval", text=True),
        Column("Status", lambda row: row.get("reason") or row.get("status"), text=True),
    )
    return _plain("effects", "Ablation: what each level changes", columns, rows,
                  "Default operating points, paired, on these images. Intervals are not adjusted; p is.")  # fmt: skip


def latency_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Times of executed operating points."""
    columns = (
        Column("Run", "label", text=True),
        Column("Policy", "policy", text=True),
        Column("Point", _point, text=True),
        Column("Batch", "batch", digits=0),
        Column("ms per image", "ms_per_image", digits=3),
        Column("ms median", "ms_median", "of a batch", 3),
        Column("ms p95", "ms_p95", "of a batch", 3),
        Column("MACs", "macs", "mean of the images that were timed", None),
        Column("Memory MiB", "memory_mib", "weights, input and the most that is alive while executing", 1),
        Column("Energy mJ", "energy_mj", "per image, where the device says", 1),
        Column("Agreement", "agreement", "predictions that equal the record's, share; the least of the seeds", 4),
        Column("Device", "device", text=True),
        Column("Precision", "dtype", text=True),
        Column("Threads", "threads", digits=0),
    )
    return _plain("latency", "Measured time", columns, rows, "Work that a point leaves out is really left out.")


def training_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What training took; empty where no run says."""
    if not any(row.get("ms_per_step") or row.get("train_memory_mib") for row in rows):
        rows = []
    columns = (
        Column("Run", "label", text=True),
        Column("Top-1 %", "top1_mean"),
        *_interval(rows, "top1_lo", "top1_hi"),
        Column("Seeds", "n_seeds", digits=0),
        Column("MACs", "macs_mean", digits=None),
        Column("Norms and activations", "macs_elementwise_mean", "elementwise work, never part of MACs", None),
        Column("Params", "params", digits=None),
        Column("Activations MiB", "train_memory_mib", "kept by a step for its backward pass, the most of any stage", 1),
        Column("ms per step", "ms_per_step", "all stages together, median over seeds, on the machine named below", 1),
        Column("Images per s", "images_per_s", digits=0),
    )
    return _plain("training", "What training takes", columns, rows, "Times depend on the machine and its other work.")


def _plain(id: str, title: str, columns: Sequence[Column], rows: Sequence[dict[str, Any]], note: str) -> Table:
    made = [{"cells": [column.cell(row) for column in columns], "colour": row.get("colour") or "", "more": False}
            for row in rows]  # fmt: skip
    return Table(id, title, columns, made, note)


def _point(line: Mapping[str, Any]) -> str:
    point = line.get("point") or ""
    if not point and line.get("setting") is not None:
        return f"{line['setting']:g}"
    return str(point)


