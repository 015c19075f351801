"""Measured time against compute: which savings are real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.evaluate.latency import SETUP
from bench.evaluate.results import Results
from bench.report.accuracy import are_steps
from bench.report.fonts import text_of
from bench.report.labels import Label, place_labels
from bench.report.style import (
    CONVENTION,
    INK,
    MUTED,
    TWO_COLUMNS,
    Look,
    format_macs,
    looks,
    new_figure,
    save_figure,
    spans,
    styled,
    wrap_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NAME", "draw_latency"]

NAME = "latency-vs-macs"

#: Both axes are logarithmic where the dearest point costs so many times the cheapest.
LOG_FROM = 6.0
_POINT = ("run", "policy", "point", "setting")
_LEFT, _RIGHT, _BETWEEN, _HEIGHT = 0.6, 0.1, 0.55, 2.9


def draw_latency(results: Results, rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Milliseconds per image against mean MACs, a panel per batch size and a row per machine, device and number of
    threads. rows: ``mean_times(results)``. Nothing is drawn, and nothing returned, if nothing was
    measured."""
    if not rows:
        return []
    with styled(text_of(results)):
        return save_figure(latency_figure(results, rows), folder / NAME)


def latency_figure(results: Results, rows: Sequence[dict[str, Any]]) -> Figure:
    """The figure, two columns wide."""
    setups = list(dict.fromkeys(tuple(row[name] for name in SETUP) for row in rows))
    batches = sorted({row["batch"] for row in rows})
    own = looks(results)
    figure = new_figure(TWO_COLUMNS, 4)
    room = TWO_COLUMNS - _LEFT - _RIGHT
    title = wrap_text(figure, f"{results.heading}: time and compute", 9, room, "bold")
    references = {setup: _reference(results, [r for r in rows if _setup(r) == setup]) for setup in setups}
    notes = wrap_text(figure, " ".join(_notes(rows, setups)), 6.2, room)
    above, below = 0.17 * len(title) + 0.12, 0.46 + len(notes) * 6.2 / 72 * 1.32
    each = _HEIGHT + 0.62  # with its x axis and its own title
    total = above + below + each * len(setups)
    figure.set_size_inches(TWO_COLUMNS, total)
    width = (room - _BETWEEN * (len(batches) - 1)) / len(batches)
    log = spans([row["macs"] for row in rows], LOG_FROM)
    for line, setup in enumerate(setups):
        for place, batch in enumerate(batches):
            mine = [row for row in rows if _setup(row) == setup and row["batch"] == batch]
            bottom = total - above - each * line - 0.24 - _HEIGHT
            left = _LEFT + place * (width + _BETWEEN)
            axes = figure.add_axes((left / TWO_COLUMNS, bottom / total, width / TWO_COLUMNS, _HEIGHT / total))
            _panel(axes, mine, references[setup], own, log)
            words = f"{setup[0].upper()}, batch {batch}"
            axes.set_title(words if len(setups) == 1 or place else f"{words} - {setup[1]}", loc="left", size=8)
            if not place:
                axes.set_ylabel("Milliseconds per image" + (", log scale" if log else ""))
    figure.text(_LEFT / TWO_COLUMNS, 1 - 0.06 / total, "\n".join(title), va="top", weight="bold", size=9)
    figure.legend(
        handles=_legend(rows, references), loc="lower left", ncols=2, fontsize=7, handlelength=2.2, borderaxespad=0,
        labelspacing=0.35, bbox_to_anchor=((_LEFT - 0.06) / TWO_COLUMNS, (below - 0.34) / total),
    )  # fmt: skip
    figure.text(_LEFT / TWO_COLUMNS, 0.06 / total, "\n".join(notes), va="bottom", size=6.2, color=MUTED,
                linespacing=1.3)  # fmt: skip
    return figure


def _setup(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SETUP)


def _reference(results: Results, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the line of proportional time goes through: the comparison's reference at its default point, else the
    dearest network with one static point, else the dearest point."""
    defaults = {run.run: row["point"] for run in results.runs for row in run.rows if row["default"] == "yes"}
    own = [row for row in rows if row["run"] == results.reference and row["point"] == defaults.get(row["run"])]
    single = [row for row in rows if not row["adaptive"] and sum(r["run"] == row["run"] for r in rows) == len(
        {r["batch"] for r in rows if r["run"] == row["run"]})]  # fmt: skip
    return max(own or single or rows, key=lambda row: row["macs"], default=None)


def _panel(
    axes: Axes, rows: Sequence[dict[str, Any]], reference: dict[str, Any] | None, own: dict[str, Look], log: bool
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.grid(True)
    axes.set_xlabel("FLOPs (MACs) per image" + (", log scale" if log else ""))
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_macs(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    if not rows:
        return
    _limits(axes, rows, log)
    obstacles = [np.array([[row["macs"], row["ms_per_image"]]] * 3) for row in rows]
    through = [reference[name] for name in _POINT] if reference else None
    same = next((row for row in rows if [row[name] for name in _POINT] == through), None)
    if same is not None:
        low, high = axes.get_xlim()
        x = np.geomspace(max(low, 1e-9), high, 120) if log else np.linspace(low, high, 120)
        y = same["ms_per_image"] * x / same["macs"]
        axes.plot(x, y, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
        obstacles.append(np.column_stack([x, y])[np.asarray(y) <= axes.get_ylim()[1]])
    labels = []
    for run in dict.fromkeys(row["run"] for row in rows):
        look, mine = own[run], sorted((row for row in rows if row["run"] == run), key=lambda row: row["macs"])
        for adaptive in (False, True):
            some = [row for row in mine if row["adaptive"] == adaptive]
            across, up = [row["macs"] for row in some], [row["ms_per_image"] for row in some]
            # Exits and gate thresholds are steps of one way; static paths have no natural order.
            joined = len(some) > 1 and (adaptive or are_steps(some[0]))
            axes.plot(across, up, color=look.colour, marker=look.marker, markersize=4.8, markeredgewidth=1.0, zorder=3,
                      markerfacecolor=look.colour if adaptive else "white",
                      linewidth=0.8 if joined else 0, linestyle="-" if adaptive else (0, (3, 2)))  # fmt: skip
        for row in mine:
            top = max(row["ms_p95"] / row["batch"], row["ms_per_image"])
            axes.plot([row["macs"]] * 2, [row["ms_per_image"], top], color=look.colour, linewidth=0.7, alpha=0.3,
                      zorder=2)  # fmt: skip
            obstacles.append(np.column_stack([[row["macs"]] * 8, np.geomspace(row["ms_per_image"], top, 8)]))
        first = next((row for row in rows if row["run"] == run), mine[0])
        anchors = [(row["macs"], row["ms_per_image"]) for row in (first, *mine)]
        labels.append(Label(first["label"], anchors, look.colour))
    place_labels(axes, labels, np.concatenate(obstacles), 7)


def _limits(axes: Axes, rows: Sequence[dict[str, Any]], log: bool) -> None:
    """Around the points, with room for labels; whiskers may leave it."""
    for setter, name in ((axes.set_xlim, "macs"), (axes.set_ylim, "ms_per_image")):
        values = [row[name] for row in rows]
        low, high = min(values), max(values)
        if log:
            setter(low / 1.6, high * 1.9)
        else:
            setter(0, high * 1.22)


def _legend(rows: Sequence[dict[str, Any]], references: dict[Any, dict[str, Any] | None]) -> list[Any]:
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(row["label"] for row in references.values() if row is not None))
    handles = [Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)),
                      label=f"time proportional to MACs, through {' or '.join(names)}")]  # fmt: skip
    kinds = {False: "every image costs the same", True: "the cost depends on the image"}
    for adaptive, words in kinds.items():
        if any(row["adaptive"] == adaptive for row in rows):
            handles.append(Line2D([], [], color=INK, marker="o", markersize=4.5, linestyle="none", label=words,
                                  markerfacecolor=INK if adaptive else "white"))  # fmt: skip
    return handles


def _notes(rows: Sequence[dict[str, Any]], setups: Sequence[tuple[Any, ...]]) -> list[str]:
    """What a reader must know to read the figure alone."""
    machines = "; ".join(f"{host}, {threads} thread{'s' if threads > 1 else ''}" for _, host, threads in setups)
    dtypes = " and ".join(sorted({row["dtype"] for row in rows}))
    return [
        "Above the dashed line a network is slower than its MACs say, below it faster; a saving is real as far as time "
        "falls with it.",
        f"Machine: {machines}; {dtypes}; torch {', '.join(sorted({row['torch'] for row in rows}))}.",
        f"{' or '.join(str(n) for n in sorted({row['rounds'] for row in rows}))} rounds interleaved over all points; "
        "marks: mean over batches of each one's median; thin lines: up to the 95th percentile of rounds.",
        CONVENTION,
    ]
