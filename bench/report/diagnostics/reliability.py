"""Reliability diagrams of every run: some of its points, and its mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.evaluate.diagnostics import Case, Diagnosis
from bench.evaluate.diagnostics.diagnose import mixture_notes
from bench.evaluate.diagnostics.views import by_run
from bench.evaluate.results import Results
from bench.report.diagnostics.frame import (
    Page,
    facts,
    keep_runs,
    left_out,
    new_page,
    panel_title,
    share_colours,
    thin,
    words_of,
)
from bench.report.style import COLOURS, GRID, INK, MUTED

NAME = "reliability"

#: Bins with fewer images (all seeds together) are not drawn: their accuracy is noise.
LEAST_IMAGES = 20

#: Points of a run that are drawn, from the cheapest to the dearest.
MOST_POINTS = 4

_LEFT, _RIGHT, _GAP, _HEAD, _FOOT = 0.52, 0.16, 0.2, 0.24, 0.2
_ALONE = 2.6


def reliability_figure(results: Results, diagnosis: Diagnosis):  # type: ignore[no-untyped-def]
    """Small multiples, one panel per run; None where there is no run."""
    runs = by_run(diagnosis.cases)
    if not runs:
        return None
    drawn, others = keep_runs(list(runs), lambda run: len(runs[run][0].views) > 1)
    across = 4 if len(drawn) in (4, 7, 8) else 3
    side = min((7.0 - _LEFT - _RIGHT - (across - 1) * _GAP) / across, _ALONE)
    down = -(-len(drawn) // across)
    panels = [_Panel(runs[run], diagnosis) for run in drawn]
    mixed = [panel.said for panel in panels if panel.said]
    notes = [
        *facts(results, diagnosis),
        "Accuracy against mean confidence in 15 equally wide bins, images of all seeds together; below the diagonal a "
        f"network claims more than it holds. Bins with fewer than {LEAST_IMAGES} images are not drawn. Numbers: "
        "expected calibration error (ECE, percent), mean over seeds.",
        *([f"Mixtures: {'; '.join(mixed)}."] if mixed else []),
        *(["Of many points some are drawn, evenly spread in order of cost."] if any(p.thinned for p in panels) else []),
        *mixture_notes(diagnosis.cases),
        *left_out([runs[run][0].label for run in others]),
    ]  # fmt: skip
    body = down * (_HEAD + side) + (down - 1) * _FOOT + 0.42
    page = new_page("Reliability: is a confidence of 80 % right in 80 % of the cases?", notes, body)
    for k, panel in enumerate(panels):
        row, column = divmod(k, across)
        below = k + across >= len(panels)
        panel.draw(page, _LEFT + column * (side + _GAP), row * (_HEAD + side + _FOOT), side, column == 0, below)
    return page.figure


class _Panel:
    """seeds: the cases of one run."""

    def __init__(self, seeds: Sequence[Case], diagnosis: Diagnosis) -> None:
        self.label = seeds[0].label
        names = [seeds[0].test.points[k] for k in seeds[0].order]
        kept = thin(len(names), MOST_POINTS)
        self.thinned = len(kept) < len(names)
        self.points = [names[k] for k in kept]
        mine = [row for row in diagnosis.tables["calibration"] if row["run"] == seeds[0].run]
        summary = [row for row in diagnosis.tables["calibration_summary"] if row["run"] == seeds[0].run]
        mixtures = [row for row in summary if not row["point"]]
        self.mixture = mixtures[0]["policy"] if mixtures else None
        self.said = ""
        if self.mixture:
            settings = [f"{row['setting']:g}" for row in mixtures if row["policy"] == self.mixture]
            shown = settings[:1] if len(set(settings)) == 1 else settings
            self.said = f"{self.label}: {words_of(self.mixture, '', ' '.join(shown))}"
        self.curves = {name: _pool([row for row in mine if row["point"] == name]) for name in self.points}
        self.ece = {name: _mean([row for row in summary if row["point"] == name]) for name in self.points}
        if self.mixture:
            self.curves[""] = _pool([row for row in mine if _of(row, self.mixture)])
            self.ece[""] = _mean([row for row in summary if _of(row, self.mixture)])

    def draw(self, page: Page, left: float, top: float, side: float, first: bool, below: bool) -> None:
        axes = page.axes(left, top + _HEAD, side, side)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=(0, (3, 2)), zorder=1)
        axes.grid(True, color=GRID)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        ticks = [0, 0.25, 0.5, 0.75, 1]
        axes.set_xticks(ticks, ["0", "", "50", "", "100"] if below else [""] * 5, fontsize=7)
        axes.set_yticks(ticks, ["0", "", "50", "", "100"] if first else [""] * 5, fontsize=7)
        if below:
            axes.set_xlabel("Confidence (%)", fontsize=7, labelpad=2)
        if first:
            axes.set_ylabel("Accuracy (%)", fontsize=7, labelpad=2)
        colours = self._colours()
        for name, (confidence, accuracy) in self.curves.items():
            axes.plot(confidence, accuracy, color=colours[name], linewidth=1.6 if name == "" else 1.1, marker="o",
                      markersize=2.4 if name == "" else 1.8, zorder=4 if name == "" else 3,
                      clip_on=False)  # fmt: skip
        self._legend(axes, colours)
        panel_title(page, axes, self.label, side, 3)

    def _colours(self) -> dict[str, Any]:
        """Points from light to dark in order of cost; the mixture in a colour of its own."""
        scale = share_colours()
        alone = len(self.points) == 1
        shades = [scale(0.62 if alone else 0.4 + 0.55 * k / (len(self.points) - 1)) for k in range(len(self.points))]
        return dict(zip(self.points, shades)) | {"": COLOURS[1]}

    def _legend(self, axes: Any, colours: Mapping[str, Any]) -> None:
        """Names with their ECE, in the half of the panel that the curves leave free."""
        gaps = np.concatenate([accuracy - confidence for confidence, accuracy in self.curves.values()])
        over = not len(gaps) or float(np.mean(gaps)) <= 0
        lines = [("ECE", INK), *((f"{name or 'mixture'} {self.ece[name]:.1f}", colours[name]) for name in self.curves)]
        for k, (words, colour) in enumerate(lines):
            place = k if over else len(lines) - 1 - k
            at = {"xy": (0, 1), "xytext": (4, -4 - 7.4 * place), "ha": "left", "va": "top"} if over else {
                "xy": (1, 0), "xytext": (-4, 4 + 7.4 * place), "ha": "right", "va": "bottom"}  # fmt: skip
            axes.annotate(words, xycoords="axes fraction", textcoords="offset points", fontsize=6.2, color=colour,
                          zorder=5, **at)  # fmt: skip


def _of(row: Mapping[str, Any], policy: str) -> bool:
    return row["policy"] == policy and not row["point"]


def _pool(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Bins of several seeds together: mean confidence and accuracy of those that have enough images."""
    sums: dict[float, np.ndarray] = {}
    for row in rows:
        if row["count"]:
            values = row["count"] * np.array([1.0, row["confidence"], row["accuracy"]])
            sums[row["bin_low"]] = sums.get(row["bin_low"], 0) + values
    found = np.array([sums[low] for low in sorted(sums) if sums[low][0] >= LEAST_IMAGES]).reshape(-1, 3)
    return found[:, 1] / found[:, 0], found[:, 2] / found[:, 0]


def _mean(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([row["ece"] for row in rows]))
