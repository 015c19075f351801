"""Whether the points of a network agree, and what the dearer one undoes."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.evaluate.diagnostics import Diagnosis
from bench.evaluate.diagnostics.views import by_run
from bench.evaluate.results import Results
from bench.report.diagnostics.frame import (
    Page,
    colour_bar,
    facts,
    ink_on,
    keep_runs,
    left_out,
    new_page,
    panel_title,
    room_below,
    share_colours,
    thin,
)
from bench.report.style import COLOURS, GRID, INK

NAME = "exit-agreement"

#: Points of one run that are drawn; of more, these many, evenly spread in order of cost.
MOST_POINTS = 16

_LEFT, _RIGHT, _GAP, _HEAD = 0.55, 0.1, 0.5, 0.36
_NUMBERS = 9  # up to so many points each cell holds its number


def agreement_figure(results: Results, diagnosis: Diagnosis):  # type: ignore[no-untyped-def]
    """One matrix per run with several points; None where there is none."""
    pairs = diagnosis.tables["agreement"]
    if not pairs:
        return None
    runs = list(dict.fromkeys(row["run"] for row in pairs))
    labels = {row["run"]: row["label"] for row in pairs}
    drawn, others = keep_runs(runs)
    matrices = [_Matrix(run, diagnosis) for run in drawn]
    across = min(max(len(drawn), 2), 3)
    side = min((7.0 - _LEFT - _RIGHT - (across - 1) * _GAP) / across, 2.3)
    down = -(-len(drawn) // across)
    foot = room_below([name for matrix in matrices for name in matrix.names]) + 0.04
    same = np.concatenate([matrix.same for matrix in matrices])
    undone = np.concatenate([matrix.undone for matrix in matrices])
    scales = (float(10 * np.floor(np.nanmin(same) / 10)), max(float(np.ceil(np.nanmax(undone))), 1.0))
    notes = [
        *facts(results, diagnosis),
        "Percent of the test images, mean over seeds; points in order of cost. Diagonal: top-1 accuracy, where numbers "
        "have room. "
        "Below it: both points predict the same class. Above it: the cheaper point (row) is right and the dearer one "
        "(column) wrong. Overthinking: an earlier point is right, the last one wrong. Never falls: images whose label "
        "loses no probability from any point to a later one.",
        *(["Of many points some are drawn."] if any(matrix.thinned for matrix in matrices) else []),
        *left_out([labels[run] for run in others]),
    ]
    page = new_page("Agreement: what more compute changes", notes, down * (_HEAD + side + foot) + 0.42)
    for k, matrix in enumerate(matrices):
        row, column = divmod(k, across)
        matrix.draw(page, _LEFT + column * (side + _GAP), row * (_HEAD + side + foot), side, scales)
    top = down * (_HEAD + side + foot)
    colour_bar(page, _LEFT, top, 2.2, share_colours(), scales[0], 100, "Below: same prediction (%)")
    colour_bar(page, _LEFT + 2.9, top, 2.2, share_colours(COLOURS[1]), 0, scales[1],
               "Above: right at the cheaper, wrong at the dearer (%)")  # fmt: skip
    return page.figure


class _Matrix:
    """Numbers of one run, percent, [P, P]."""

    def __init__(self, run: str, diagnosis: Diagnosis) -> None:
        seeds = by_run(diagnosis.cases)[run]
        names = [seeds[0].test.points[k] for k in seeds[0].order]
        kept = thin(len(names), MOST_POINTS)
        self.thinned = len(kept) < len(names)
        self.names = [names[k] for k in kept]
        place = {name: k for k, name in enumerate(self.names)}
        p = len(kept)
        square = np.full((3, p, p), np.nan)
        for row in diagnosis.tables["agreement"]:
            if row["run"] == run and row["point_a"] in place and row["point_b"] in place:
                a, b = place[row["point_a"]], place[row["point_b"]]
                square[0, b, a] = row["same_mean"]
                square[1, a, b] = row["only_a_right_mean"]
        for name, k in place.items():
            accuracy = [row["accuracy"] for row in diagnosis.tables["calibration_summary"]
                        if row["run"] == run and row["point"] == name]  # fmt: skip
            square[2, k, k] = np.mean(accuracy)
        self.square = square
        self.same = square[0][np.isfinite(square[0])]
        self.undone = square[1][np.isfinite(square[1])]
        self.steps = next(row for row in diagnosis.tables["agreement_steps"] if row["run"] == run)

    def draw(self, page: Page, left: float, top: float, side: float, scales: tuple[float, float]) -> None:
        axes = page.axes(left, top + _HEAD, side, side)
        p = len(self.names)
        low, most = scales
        filled = [(self.square[0] - low) / max(100 - low, 1e-9), self.square[1] / most]
        edges = np.arange(p + 1)
        for values, colour in zip(filled, (COLOURS[0], COLOURS[1])):
            axes.pcolormesh(edges, edges, np.ma.masked_invalid(values), cmap=share_colours(colour), vmin=0, vmax=1,
                            edgecolors="white", linewidth=0.6 if p <= _NUMBERS else 0.3)  # fmt: skip
        axes.set_ylim(p, 0)
        axes.set_xlim(0, p)
        for spine in axes.spines.values():
            spine.set_visible(False)
        size = 6.5 if p <= _NUMBERS else 5.2
        axes.set_xticks(np.arange(p) + 0.5, self.names, rotation=50, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(np.arange(p) + 0.5, self.names, fontsize=size)
        axes.tick_params(length=0, pad=2)
        self._write(axes, filled, p)
        panel_title(page, axes, self.steps["label"], side, 13)
        said = f"overthinking {self.steps['overthinking_mean']:.1f} %, never falls {self.steps['monotone_mean']:.1f} %"
        axes.annotate(said, (0, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", fontsize=6.2)

    def _write(self, axes: Any, filled: list[np.ndarray], p: int) -> None:
        """Numbers in the cells; of many points only the diagonal is marked."""
        if p > _NUMBERS:
            for k in range(p):
                axes.fill_between([k, k + 1], k, k + 1, color=GRID, linewidth=0)
            return
        size = 6.0 if p <= 6 else 5.2
        for layer, digits in ((0, 0), (1, 1), (2, 1)):
            for row, column in np.argwhere(np.isfinite(self.square[layer])):
                value = self.square[layer, row, column]
                colour = INK if layer == 2 else ink_on(float(filled[layer][row, column]))
                axes.text(column + 0.5, row + 0.52, f"{value:.{digits}f}", ha="center", va="center", size=size,
                          color=colour, weight="bold" if layer == 2 else "normal")  # fmt: skip
