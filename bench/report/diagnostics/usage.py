"""Which exits images take and which blocks they run, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.evaluate.diagnostics import Diagnosis
from bench.evaluate.diagnostics.diagnose import mixture_notes
from bench.evaluate.diagnostics.usage import ALL, UNIT
from bench.evaluate.results import Results
from bench.report.diagnostics.frame import (
    ALL_CLASSES,
    EXTREMES,
    GAP,
    Page,
    colour_bar,
    facts,
    first_view,
    ink_on,
    keep_runs,
    left_out,
    new_page,
    panel_title,
    room_below,
    share_colours,
    view_notes,
)
from bench.report.style import COLOURS

NAME = "usage-heatmap"

# Inches; _CELL: height of a row, _MOST: of a panel at most, less where all of them would not fit on a page (_PAGE).
_LEFT, _GAP, _WIDTH, _HEAD = 0.72, 0.82, 2.66, 0.24
_CELL, _MOST, _BAR, _PAGE = 0.2, (3.4, 2.6, 2.0, 1.5, 1.1), 0.46, 8.2
_LABEL = 0.115  # from one name of a row to the next, at least


def usage_figure(results: Results, diagnosis: Diagnosis):  # type: ignore[no-untyped-def]
    """One panel per run with exits or gates: rows are exits or units, columns classes. None where there is none."""
    shown = first_view(diagnosis.tables["usage"])
    if not shown:
        return None
    drawn, others = keep_runs(list(shown))
    panels = [_Panel(shown[run], diagnosis) for run in drawn]
    for most in _MOST:
        places, down = _arrange(panels, most)
        if max(down) <= _PAGE:
            break
    bar = int(down[1] < down[0] and len(panels) > 1)
    notes = [
        *facts(results, diagnosis),
        "Cells: share of a class's test images, percent, mean over seeds: that stop at an exit (of a cascade: that a "
        "path answers), or for which a block runs.",
        "Units that every network of that design runs for every image, and points at which no image "
        "stops, are not drawn.",
        *([f"Of many classes, the {EXTREMES} cheapest and {EXTREMES} dearest of each run."]
          if any(GAP in panel.texts for panel in panels) else []),
        view_notes({run: shown[run] for run in drawn}),
        *left_out([shown[run][0]["label"] for run in others]),
        *mixture_notes(diagnosis.cases),
        *_warned(diagnosis),
    ]  # fmt: skip
    page = new_page("Which exits are taken and which blocks run", notes, max(*down, down[bar] + _BAR))
    for panel, (column, top) in zip(panels, places):
        panel.draw(page, _LEFT + column * (_WIDTH + _GAP), top)
    left = _LEFT + bar * (_WIDTH + _GAP)
    colour_bar(page, left, down[bar], 2.2, share_colours(), 0, 100, "Share of the class's images (%)")
    return page.figure


def _warned(diagnosis: Diagnosis) -> list[str]:
    """The first warning of every run; the panels name the seeds, ``gate_warnings.csv`` has them all."""
    first: dict[str, str] = {}
    for warning in diagnosis.warnings:
        first.setdefault(warning.run, warning.text)
    return list(first.values())


def _arrange(panels: Sequence[_Panel], most: float) -> tuple[list[tuple[int, float]], list[float]]:
    """(column and distance from the top of every panel, height of both columns): the next panel always goes where
    there is more room."""
    down = [0.0, 0.0]
    places = []
    for panel in panels:
        column = int(down[1] < down[0])
        places.append((column, down[column]))
        panel.height = min(_CELL * len(panel.names), most)
        down[column] += panel.height + panel.around
    return places, down


class _Panel:
    """rows: of the usage table, one view of one run."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], diagnosis: Diagnosis) -> None:
        self.label = rows[0]["label"]
        used = {row["name"] for row in rows if row["kind"] == UNIT or row["share"] > 0}
        self.names = [name for name in dict.fromkeys(row["name"] for row in rows) if name in used]
        share = {(row["name"], row["class"]): row["share"] for row in rows}
        columns, texts = _columns(rows, diagnosis)
        self.texts = ["all images", *texts]
        self.values = np.array([[share.get((name, column), np.nan) for column in (ALL, *columns)]
                                for name in self.names])  # fmt: skip
        self.height = _CELL * len(self.names)
        self.around = _HEAD + room_below(self.texts) + 0.08
        self.warned = [w.seed for w in diagnosis.warnings if w.run == rows[0]["run"]]

    def draw(self, page: Page, left: float, top: float) -> None:
        axes = page.axes(left, top + _HEAD, _WIDTH, self.height)
        rows, columns = self.values.shape
        # The mean over all images stands apart from the classes.
        edges = np.concatenate([[0.0, 1.0], np.arange(1, columns) + 1.3])
        centres = np.concatenate([[0.5], np.arange(1, columns) + 0.8])
        colours = share_colours()
        lines = self.height / rows > 0.08  # between rows as well as columns; thin rows would be all line
        for part in (slice(0, 1), slice(1, columns)):
            x = edges[:2] if part.start == 0 else np.concatenate([[1.3], edges[2:]])
            axes.pcolormesh(x, np.arange(rows + 1), np.ma.masked_invalid(self.values[:, part]), cmap=colours, vmin=0,
                            vmax=1, edgecolors="white" if lines else "none", linewidth=0.6)  # fmt: skip
        if not lines:
            axes.vlines(edges[2:-1], 0, rows, color="white", linewidth=0.6)
        axes.set_ylim(rows, 0)
        axes.set_xlim(0, edges[-1])
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_xticks(centres, self.texts, rotation=50, ha="right", rotation_mode="anchor", fontsize=6.5)
        kept = range(0, rows, -(-rows // max(int(self.height / _LABEL), 1)))
        axes.set_yticks([k + 0.5 for k in kept], [self.names[k] for k in kept], fontsize=6.5)
        axes.tick_params(length=0, pad=2)
        if self.height / rows > 0.13 and _WIDTH / columns > 0.19:
            self._numbers(axes, centres)
        many = "s" if len(self.warned) > 1 else ""
        said = f"gates collapsed (seed{many} {', '.join(map(str, self.warned))})" if self.warned else ""
        panel_title(page, axes, self.label, _WIDTH - 0.053 * len(said))
        if said:
            axes.set_title(said, loc="right", fontsize=6.5, color=COLOURS[1], pad=4)

    def _numbers(self, axes: Any, centres: np.ndarray) -> None:
        for row, line in enumerate(self.values):
            for x, value in zip(centres, line):
                if value >= 0.005:  # nan is not
                    axes.text(x, row + 0.52, f"{100 * value:.0f}", ha="center", va="center", size=5.6,
                              color=ink_on(value))  # fmt: skip


def _columns(rows: Sequence[Mapping[str, Any]], diagnosis: Diagnosis) -> tuple[list[Any], list[str]]:
    """Classes to show and their names: all of them, or the cheapest and dearest of this run with '...' between."""
    if len(diagnosis.names) <= ALL_CLASSES:
        return list(range(len(diagnosis.names))), list(diagnosis.names)
    key = rows[0]["run"], rows[0]["policy"], rows[0]["point"]
    cost = {row["class"]: row["relative_mean"] for row in diagnosis.tables["cost_by_class"]
            if (row["run"], row["policy"], row["point"]) == key and row["relative_mean"] is not None}  # fmt: skip
    known = cost or {row["class"]: 0.0 for row in rows if row["class"] != ALL and row["n"]}
    ordered = sorted(known, key=lambda k: (known[k], k))
    if len(ordered) <= ALL_CLASSES:
        return ordered, [diagnosis.names[k] for k in ordered]
    ends = [*ordered[:EXTREMES], None, *ordered[-EXTREMES:]]
    return ends, [GAP if k is None else diagnosis.names[k] for k in ends]
