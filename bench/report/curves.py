"""Training curves: loss and accuracy of every run, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.evaluate.results import Results, RunResult
from bench.report.fonts import text_of
from bench.report.style import MUTED, TWO_COLUMNS, Look, looks, new_figure, save_figure, styled, wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "training-curves"

#: More runs than this share no figure.
RUNS_PER_FIGURE = 7

#: Lines of the runs that share a colour.
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))


def draw_curves(results: Results, folder: Path) -> list[Path]:
    """Loss and accuracy against epochs, stages one after the other, runs in the colours of the other figures, one line
    per seed."""
    named = {name: [run for run in runs if run.curves] for name, runs in results.by_name().items()}
    named = {name: runs for name, runs in named.items() if runs}
    names = list(named)
    paths = []
    with styled(text_of(results)):
        pages = [names[i : i + RUNS_PER_FIGURE] for i in range(0, len(names), RUNS_PER_FIGURE)]
        for number, page in enumerate(pages, 1):
            stem = NAME if len(pages) == 1 else f"{NAME}-{number}"
            figure = curves_figure(results, [named[name] for name in page])
            paths += save_figure(figure, folder / stem)
    return paths


def curves_figure(results: Results, groups: Sequence[Sequence[RunResult]]):  # type: ignore[no-untyped-def]
    """Two panels side by side. groups: the seeds of each run. Runs of one colour differ in their lines."""
    from matplotlib.lines import Line2D

    rows = -(-len(groups) // 4)
    height = 3.15 + 0.16 * rows
    figure = new_figure(TWO_COLUMNS, height)
    bottom, tall = (0.84 + 0.16 * rows) / height, 1.98 / height
    loss = figure.add_axes((0.075, bottom, 0.40, tall))
    accuracy = figure.add_axes((0.575, bottom, 0.40, tall))
    for axes, title in ((loss, "Training loss"), (accuracy, "Training accuracy (%)")):
        axes.grid(True)
        axes.set_xlabel("Epoch, all stages")
        axes.set_ylabel(title)
    colours = looks(results)
    own = [colours[runs[0].run] for runs in groups]
    alike = [sum(other.colour == look.colour for other in own[:k]) for k, look in enumerate(own)]
    styles = [_LINES[before % len(_LINES)] for before in alike]
    validated = staged = False
    for look, style, runs in zip(own, styles, groups):
        for run in runs:
            line = join_stages(run.curves)
            for axes, key in ((loss, "loss"), (accuracy, "accuracy")):
                _plot(axes, line, key, look.colour, style, len(runs))
            staged |= _mark_stages(loss, line, "loss", look) | _mark_stages(accuracy, line, "accuracy", look)
            looked = [point for point in line if _finite(point.get("val_top1"))]
            if looked:
                validated = True
                accuracy.plot([p["x"] for p in looked], [p["val_top1"] for p in looked], color=look.colour,
                              linewidth=0.5, alpha=0.8, linestyle=style, marker=look.marker, markersize=3,
                              markerfacecolor="white", markeredgewidth=0.7)  # fmt: skip
    _log_if_wide(loss)
    handles = [Line2D([], [], color=look.colour, linestyle=style, label=runs[0].label)
               for look, style, runs in zip(own, styles, groups)]  # fmt: skip
    figure.legend(handles=handles, loc="lower left", ncols=4, bbox_to_anchor=(0.065, 0.34 / height),
                  borderaxespad=0, columnspacing=1.4, handlelength=2.2)  # fmt: skip
    figure.text(0.075, 1 - 0.06 / height, results.heading, va="top", weight="bold", size=9)
    notes = ["Running means over each epoch, with the augmentation and in training mode; one line per seed."]
    if validated:
        notes.append("Thin, with marks: top-1 on the validation part.")
    if staged:
        notes.append("Bar: a new stage begins; its loss may be another one.")
    figure.text(0.075, 0.06 / height, "\n".join(wrap_text(figure, " ".join(notes), 6.2, 0.9 * TWO_COLUMNS)), size=6.2,
                color=MUTED, linespacing=1.3)  # fmt: skip
    return figure


def join_stages(curves: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics with ``x``, the epoch counted over all stages, and ``first``, whether a stage begins there."""
    joined: list[dict[str, Any]] = []
    offset, stage = 0.0, None
    for point in curves:
        begins = point.get("stage") != stage
        if begins and joined:
            offset = joined[-1]["x"]
        stage = point.get("stage")
        joined.append({**point, "x": offset + point["epoch"], "first": begins and bool(joined)})
    return joined


def _plot(axes: Axes, line: list[dict[str, Any]], key: str, colour: str, style: Any, seeds: int) -> None:
    points = [point for point in line if _finite(point.get(key))]
    axes.plot([p["x"] for p in points], [p[key] for p in points], color=colour, linestyle=style,
              linewidth=1.3 if seeds == 1 else 0.9, alpha=1.0 if seeds == 1 else 0.75,
              marker="." if len(points) < 4 else None)  # fmt: skip


def _mark_stages(axes: Axes, line: list[dict[str, Any]], key: str, look: Look) -> bool:
    """A short bar on the curve where a stage begins."""
    begins = [point for point in line if point["first"] and _finite(point.get(key))]
    axes.plot([p["x"] for p in begins], [p[key] for p in begins], linestyle="none", marker="|", markersize=9,
              markeredgewidth=1.2, color=look.colour)  # fmt: skip
    return bool(begins)


def _log_if_wide(axes: Axes) -> None:
    """A logarithmic loss where it falls by more than a factor of 30."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [float(v) for line in axes.get_lines() for v in np.asarray(line.get_ydata())]
    if values and min(values) > 0 and max(values) / min(values) > 30:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
