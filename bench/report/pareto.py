"""The front over all contenders: what no other operating point beats in accuracy and cost; the areas beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.evaluate.comparing.compare import Compared
from bench.evaluate.results import Results
from bench.report.fonts import text_of
from bench.report.labels import Label, densify, place_labels
from bench.report.style import (
    CONVENTION,
    INK,
    MUTED,
    TWO_COLUMNS,
    accuracy_axes,
    looks,
    new_figure,
    save_figure,
    spans,
    styled,
    wrap_text,
)

NAME = "pareto-front"


def draw_pareto(results: Results, compared: Compared, folder: Path) -> list[Path]:
    """Test numbers of the points that validation would choose, means over seeds, the front over all of them, and the
    staircases whose areas are taken. Nothing is drawn where fewer than two contenders have points."""
    rows = [row for row in compared.frontier if row["seed"] == "mean"]
    if len({row["contender"] for row in rows}) < 2:
        return []
    with styled(text_of(results)):
        return save_figure(pareto_figure(results, rows, compared), folder / NAME)


def pareto_figure(results: Results, rows: Sequence[dict[str, Any]], compared: Compared):  # type: ignore[no-untyped-def]
    """The figure. rows: of frontier.csv whose seed is "mean"."""
    figure = new_figure(TWO_COLUMNS, 4.9)
    notes = wrap_text(figure, _notes(results, rows, compared), 6.2, TWO_COLUMNS - 0.7)
    below = 0.56 + len(notes) * 0.115
    total = 3.6 + below + 0.34
    figure.set_size_inches(TWO_COLUMNS, total)
    axes = figure.add_axes((0.08, below / total, 0.9, 3.6 / total))
    own = looks(results)
    macs = [row["macs"] for row in rows]
    accuracy_axes(axes, log=spans(macs))
    front = sorted((row for row in rows if row["on_front"] == "yes"), key=lambda row: row["macs"])
    x = np.array([row["macs"] for row in front] + [max(macs) * 1.06])
    y = np.array([row["top1"] for row in front] + [front[-1]["top1"]])
    axes.step(x, y, where="post", color=INK, linewidth=1.1, zorder=2)
    labels, curves = [], []
    for contender in dict.fromkeys(row["contender"] for row in rows):
        mine = sorted((row for row in rows if row["contender"] == contender), key=lambda row: row["macs"])
        look = own[mine[0]["run"]]
        stairs = _stairs(compared, contender)
        if len(stairs):
            axes.step(stairs[:, 0], stairs[:, 1], where="post", color=look.colour, linewidth=0.8, alpha=0.6, zorder=1)
        for flag, size, alpha in (("no", 3.2, 0.5), ("yes", 5.5, 1.0)):
            some = [row for row in mine if row["on_front"] == flag]
            axes.plot([r["macs"] for r in some], [r["top1"] for r in some], linestyle="none", marker=look.marker,
                      markersize=size, color=look.colour, alpha=alpha, zorder=3 + (flag == "yes"),
                      markerfacecolor=look.colour if flag == "yes" else "white")  # fmt: skip
        curves.append(np.array([*([row["macs"], row["top1"]] for row in mine), *_corners(stairs)]))
        anchors = [row for row in mine if row["on_front"] == "yes"] or mine
        anchors = anchors[:: max(len(anchors) // 6, 1)] + anchors[-1:]
        labels.append(Label(mine[0]["label"], [(r["macs"], r["top1"]) for r in anchors], look.colour))
    axes.margins(x=0.08, y=0.1)
    axes.set_xlim(axes.get_xlim())  # labels are placed in the final limits
    axes.set_ylim(axes.get_ylim())
    place_labels(axes, labels, densify(axes, [np.column_stack([x, y]), *curves]), 7.5)
    figure.text(0.08, 1 - 0.05 / total, results.heading, va="top", weight="bold", size=9)
    figure.text(0.08, 0.06 / total, "\n".join(notes), va="bottom", size=6.2, color=MUTED, linespacing=1.3)
    return figure


def _stairs(compared: Compared, contender: str) -> np.ndarray:
    """[K, 2] budgets and accuracies of the staircase whose area is taken, to the high end of the range; K = 0 if there
    is none."""
    steps = compared.staircases.get(contender)
    if not steps or compared.auc_range is None:
        return np.zeros((0, 2))
    return np.array([*steps, (compared.auc_range[1], steps[-1][1])])


def _corners(stairs: np.ndarray) -> list[list[float]]:
    """The same line with both ends of every step."""
    found = [[x, before] for (x, _), (_, before) in zip(stairs[1:], stairs)]
    return [point for pair in zip(stairs.tolist(), found) for point in pair]


def _notes(results: Results, rows: Sequence[dict[str, Any]], compared: Compared) -> str:
    seeds = sorted({run.seed for run in results.runs if run.done})
    shares = {
        contender: sum(r["on_front"] == "yes" for r in rows if r["contender"] == contender)
        for contender in dict.fromkeys(row["contender"] for row in rows)
    }
    names = {row["contender"]: row["label"] for row in rows}
    said = ", ".join(f"{names[contender]} {count}" for contender, count in shares.items())
    return (
        f"Marks: operating points that some budget would choose on validation, with their test accuracy and cost"
        f"{', means over seeds ' + ', '.join(map(str, seeds)) if len(seeds) > 1 else ', one seed'}. Line and filled "
        f"marks: the front over all contenders by test numbers (points on it: {said}). {_range(compared)}"
        f"The front itself was read off test numbers and favours whoever has more points; verdicts do not. {CONVENTION}"
    )


def _range(compared: Compared) -> str:
    if compared.auc_range is None or not compared.staircases:
        return ""
    low, high = (f"{end / 1e6:.4g}M" for end in compared.auc_range)
    return (f"Thin coloured staircases: what each contender would run at every budget from {low} to {high} MACs, by "
            "cost on validation; their mean height is the area (AUC). ")  # fmt: skip
