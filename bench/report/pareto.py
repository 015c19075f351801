"""The front over all contenders: what no other operating point beats in accuracy and cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


def draw_pareto(results: Results, rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Test numbers of the points that validation would choose, means over seeds; the front over all of them as a
    staircase. rows: those of frontier.csv. Nothing is drawn where fewer than two contenders have points."""
    rows = [row for row in rows if row["seed"] == "mean"]
    if len({row["contender"] for row in rows}) < 2:
        return []
    with styled(text_of(results)):
        return save_figure(pareto_figure(results, rows), folder / NAME)


def pareto_figure(results: Results, rows: Sequence[dict[str, Any]]):  # type: ignore[no-untyped-def]
    """The figure. rows: of frontier.csv whose seed is "mean"."""
    figure = new_figure(TWO_COLUMNS, 4.9)
    notes = wrap_text(figure, _notes(results, rows), 6.2, TWO_COLUMNS - 0.7)
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
        axes.plot([r["macs"] for r in mine], [r["top1"] for r in mine], color=look.colour, linewidth=0.6, alpha=0.45,
                  zorder=1)  # fmt: skip
        for flag, size, alpha in (("no", 3.2, 0.5), ("yes", 5.5, 1.0)):
            some = [row for row in mine if row["on_front"] == flag]
            axes.plot([r["macs"] for r in some], [r["top1"] for r in some], linestyle="none", marker=look.marker,
                      markersize=size, color=look.colour, alpha=alpha, zorder=3 + (flag == "yes"),
                      markerfacecolor=look.colour if flag == "yes" else "white")  # fmt: skip
        curves.append(np.array([[row["macs"], row["top1"]] for row in mine]))
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


def _notes(results: Results, rows: Sequence[dict[str, Any]]) -> str:
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
        f"marks: the front over all contenders by test numbers (points on it: {said}). The front itself was read off "
        f"test numbers and favours whoever has more points; verdicts do not. {CONVENTION}"
    )
