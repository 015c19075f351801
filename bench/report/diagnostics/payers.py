"""Who pays for the savings: cost and accuracy by class and by difficulty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.evaluate.diagnostics import Diagnosis
from bench.evaluate.diagnostics.diagnose import difficulty_notes, mixture_notes
from bench.evaluate.diagnostics.payers import QUANTILES
from bench.evaluate.results import Results
from bench.report.diagnostics.frame import (
    ALL_CLASSES,
    EXTREMES,
    GAP,
    Page,
    facts,
    first_view,
    keep_runs,
    left_out,
    new_page,
    room_below,
    view_notes,
)
from bench.report.style import CONVENTION, MUTED, TWO_COLUMNS, Look, looks, wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "who-pays"

_LEFT, _MIDDLE, _HEIGHT, _BETWEEN, _HEAD = 0.55, 0.42, 1.5, 0.16, 0.22
_LABELS = 1.15  # inches at the right for the names of runs
_LABEL_SIZE = 6.8


def payers_figure(results: Results, diagnosis: Diagnosis):  # type: ignore[no-untyped-def]
    """Two panels above (cost over the run's own mean) and two below (accuracy); None where nobody pays more."""
    by_class = first_view(diagnosis.tables["cost_by_class"])
    by_quantile = first_view(diagnosis.tables["cost_by_difficulty"])
    if not by_class:
        return None
    drawn, others = keep_runs(list(by_class))
    own = looks(results)
    classes = _classes([by_class[run] for run in drawn])
    texts = [GAP if k is None else diagnosis.names[k] for k in classes]
    several = any(rows[0]["n_seeds"] > 1 for rows in by_class.values())
    notes = [
        *facts(results, diagnosis),
        "Cost: mean MACs of the group's images over those of all test images, at the same setting. Difficulty: "
        "log-probability of the label at the default points, mean over all other runs of the comparison, in fifths.",
        *(["Bars: smallest and largest seed; lines join the means."] if several else []),
        "Classes are in order of their cost"
        + (f"; the {EXTREMES} cheapest and {EXTREMES} dearest of {len(diagnosis.names)} are drawn."
           if GAP in texts else "."),
        view_notes({run: by_class[run] for run in drawn}),
        CONVENTION,
        *mixture_notes(diagnosis.cases),
        *difficulty_notes(diagnosis.cases),
        *left_out([by_class[run][0]["label"] for run in others]),
    ]  # fmt: skip
    page = new_page("Who pays: cost and accuracy by class and by difficulty", notes,
                    _HEAD + 2 * _HEIGHT + _BETWEEN + max(room_below(texts), 0.42))  # fmt: skip
    room = TWO_COLUMNS - _LEFT - _MIDDLE - _LABELS
    wide, narrow = 0.6 * room, 0.4 * room
    for row, (key, words) in enumerate((("relative", "Cost (% of the run's mean)"), ("top1", "Top-1 accuracy (%)"))):
        top = _HEAD + row * (_HEIGHT + _BETWEEN)
        left = page.axes(_LEFT, top, wide, _HEIGHT)
        right = page.axes(_LEFT + wide + _MIDDLE, top, narrow, _HEIGHT)
        lines = [
            _Line(_pick(by_class[run], "class", classes), _pick(by_quantile[run], "quantile", range(1, QUANTILES + 1)),
                  own[run], by_class[run][0]["label"])
            for run in drawn
        ]  # fmt: skip
        _draw(left, [(line.classes, line.look) for line in lines], key, dodge=0.5)
        _draw(right, [(line.quantiles, line.look) for line in lines], key, dodge=0.15)
        left.set_ylabel(words)
        bottom = row == 1
        left.set_xticks(range(len(classes)), texts if bottom else [""] * len(classes), rotation=50, ha="right",
                        rotation_mode="anchor", fontsize=6.8)  # fmt: skip
        fifths = ["easiest", *map(str, range(2, QUANTILES)), "hardest"]
        right.set_xticks(range(QUANTILES), fifths if bottom else [""] * QUANTILES, fontsize=6.8)
        if not bottom:
            left.set_title("By class", loc="left", fontsize=8, pad=4)
            right.set_title("By difficulty of the image", loc="left", fontsize=8, pad=4)
        else:
            right.set_xlabel("Fifth of the test images")
        ends = [(line.label, line.quantiles, line.look) for line in lines]
        _end_labels(page, right, ends, key)
    return page.figure


class _Line:
    """Rows of one run in the order of the axis; None where a place is empty."""

    def __init__(self, classes: list[Any], quantiles: list[Any], look: Look, label: str) -> None:
        self.classes, self.quantiles, self.look, self.label = classes, quantiles, look, label


def _pick(rows: Sequence[Mapping[str, Any]], column: str, places: Sequence[Any]) -> list[Mapping[str, Any] | None]:
    found = {row[column]: row for row in rows}
    return [None if place is None else found.get(place) for place in places]


def _classes(shown: Sequence[Sequence[Mapping[str, Any]]]) -> list[int | None]:
    """Classes in order of their relative cost, mean over runs; of many, both ends with a None between them."""
    costs: dict[int, list[float]] = {}
    for rows in shown:
        for row in rows:
            if row["relative_mean"] is not None:
                costs.setdefault(row["class"], []).append(row["relative_mean"])
    ordered = sorted(costs, key=lambda k: (float(np.mean(costs[k])), k))
    if len(ordered) <= ALL_CLASSES:
        return list(ordered)
    return [*ordered[:EXTREMES], None, *ordered[-EXTREMES:]]


def _draw(axes: Axes, lines: Sequence[tuple[list[Any], Look]], key: str, dodge: float) -> None:
    """Means with bars from the smallest to the largest seed; runs stand side by side, ``dodge`` apart in all."""
    axes.grid(True, axis="y")
    for number, (rows, look) in enumerate(lines):
        shift = dodge * (number / (len(lines) - 1) - 0.5) if len(lines) > 1 else 0.0
        x = np.arange(len(rows)) + shift
        mean, low, high = (_numbers(rows, f"{key}_{end}") for end in ("mean", "min", "max"))
        axes.plot(x, mean, color=look.colour, linewidth=0.9, alpha=0.45, zorder=2)
        axes.vlines(x, low, high, color=look.colour, linewidth=0.8, zorder=2.5)
        axes.plot(x, mean, color=look.colour, marker=look.marker, markersize=3.6, linestyle="none", zorder=3)
    if key == "relative":
        axes.axhline(100, color=MUTED, linewidth=0.7, linestyle=(0, (3, 2)), zorder=1)
    axes.set_xlim(-0.6, max(len(rows) for rows, _ in lines) - 0.4)
    axes.tick_params(axis="x", length=2)


def _numbers(rows: Sequence[Mapping[str, Any] | None], name: str) -> np.ndarray:
    return np.array([np.nan if row is None or row[name] is None else row[name] for row in rows], dtype=np.float64)


def _end_labels(page: Page, axes: Axes, lines: Sequence[tuple[str, list[Any], Look]], key: str) -> None:
    """The name of each run at the right end of its line, moved apart where they would overlap."""
    texts = ["\n".join(wrap_text(page.figure, label, _LABEL_SIZE, _LABELS - 0.2)) for label, _, _ in lines]
    high = [(text.count("\n") + 1) * _LABEL_SIZE * 1.22 / 72 for text in texts]  # inches
    low, top = axes.get_ylim()
    values = [_numbers(rows, f"{key}_mean") for _, rows, _ in lines]
    ends = [row[np.isfinite(row)][-1] if np.isfinite(row).any() else low for row in values]
    wanted = [_HEIGHT * (end - low) / (top - low) for end in ends]
    places = spread(wanted, high, _HEIGHT)
    for text, at, place, (_, rows, look) in zip(texts, ends, places, lines):
        axes.annotate(text, (len(rows) - 1, at), xytext=(1.07, place / _HEIGHT), textcoords="axes fraction",
                      fontsize=_LABEL_SIZE, color=look.colour, va="center", ha="left", linespacing=1.05,
                      annotation_clip=False, arrowprops={"arrowstyle": "-", "color": look.colour, "linewidth": 0.5,
                                                         "alpha": 0.6, "shrinkA": 1, "shrinkB": 4,
                                                         "relpos": (0, 0.5)})  # fmt: skip


def spread(wanted: Sequence[float], high: Sequence[float], room: float) -> list[float]:
    """Centres of boxes as near as possible to where they are wanted, in that order, without overlaps. Where they
    need more room than there is, they start at the bottom."""
    order = sorted(range(len(wanted)), key=lambda k: (wanted[k], k))
    centres = dict(zip(order, (wanted[k] for k in order)))
    bottom = 0.0
    for k in order:  # upwards, off the one below
        centres[k] = max(centres[k], bottom + high[k] / 2)
        bottom = centres[k] + high[k] / 2
    top = room
    for k in reversed(order):  # downwards, off the edge and the one above
        centres[k] = min(centres[k], top - high[k] / 2)
        top = centres[k] - high[k] / 2
    if order and centres[order[0]] < high[order[0]] / 2:
        bottom = 0.0
        for k in order:
            centres[k] = bottom + high[k] / 2
            bottom += high[k]
    return [centres[k] for k in range(len(wanted))]
