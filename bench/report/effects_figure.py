"""Dots and intervals: what each level of an ablation's axes changes in accuracy, and in cost beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluate.results import Results
from bench.report.fonts import text_of
from bench.report.style import (
    CONVENTION,
    INK,
    MUTED,
    TWO_COLUMNS,
    Look,
    looks,
    new_figure,
    save_figure,
    styled,
    wrap_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURE", "draw_effects", "effects_figure"]

FIGURE = "ablation-effects"

#: Inches: height of a row and of a heading, width of the cost panel, the gap before it, most room for names.
_ROW, _HEADING, _COST, _GAP, _NAMES = 0.2, 0.27, 1.35, 0.25, 2.7
_SIZE, _NOTE = 7.5, 6.2


def draw_effects(results: Results, rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw the effects into a folder, every format; nothing without an ablation that has numbers. rows:
    ``effects(results)``."""
    if not any(row.get("top1_difference") is not None for row in rows):
        return []
    with styled(text_of(results)):
        return save_figure(effects_figure(results, rows), folder / FIGURE)


def effects_figure(results: Results, rows: Sequence[dict[str, Any]]) -> Figure:
    """Two columns wide: one row for each run and level, grouped by axis. rows: ``effects(results)``."""
    shown = [row for row in rows if row["kind"] in ("main", "all runs")]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in shown:
        groups.setdefault((row["axis"], row["base"]), []).append(row)
    figure = new_figure(TWO_COLUMNS, 4)
    place, headings, y = {}, [], 0.0
    for group, own in groups.items():
        headings.append((y + _HEADING / 2, group))
        y += _HEADING
        for row in own:
            place[id(row)] = y + _ROW / 2
            y += _ROW
        y += 0.06
    several = len({row["run"] for row in shown}) > 1
    names = {id(row): f"{row['level']}, {row['label']}" if several else str(row["level"]) for row in shown}
    names = {key: _shorten(figure, name, _NAMES) for key, name in names.items()}
    left = max(_width(figure, name) for name in names.values()) + 0.24
    room = TWO_COLUMNS - 0.2
    title = wrap_text(figure, f"{results.heading}: effects", 9, room, "bold")
    limits, cut = _limits(shown, rows)
    notes = wrap_text(figure, " ".join(_notes(results, rows, cut)), _NOTE, room)
    above, below = 0.17 * len(title) + 0.12, 0.5 + len(notes) * _NOTE / 72 * 1.32 + 0.1
    total = above + y + below
    figure.set_size_inches(TWO_COLUMNS, total)
    width = TWO_COLUMNS - left - _GAP - _COST - 0.12

    def panel(x: float, wide: float, label: str) -> Axes:
        axes = figure.add_axes((x / TWO_COLUMNS, below / total, wide / TWO_COLUMNS, y / total))
        axes.set_ylim(y, 0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="x")
        axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
        axes.set_xlabel(label)
        return axes

    accuracy = panel(left, width, "Change in top-1 accuracy, points")
    cost = panel(left + width + _GAP, _COST, "Change in MACs, %")
    own_looks = looks(results)
    accuracy.set_xlim(limits)
    for row in shown:
        at = place[id(row)]
        look = own_looks.get(row["run"]) or Look(INK, "D")
        small = [r for r in rows if r["kind"] == "combination" and _same(r, row)]
        _draw(accuracy, cost, row, at, look, small)
        figure.text((left - 0.08) / TWO_COLUMNS, 1 - (above + at) / total, names[id(row)], ha="right", va="center",
                    size=_SIZE, color=look.colour)  # fmt: skip
    for at, (axis, base) in headings:
        _heading(figure, 1 - (above + at) / total, axis, base, left, left + width)
    _cost_limits(cost, shown)
    figure.text(0.1 / TWO_COLUMNS, 1 - 0.06 / total, "\n".join(title), va="top", weight="bold", size=9)
    figure.text(0.1 / TWO_COLUMNS, 0.06 / total, "\n".join(notes), va="bottom", size=_NOTE, color=MUTED,
                linespacing=1.3)  # fmt: skip
    return figure


def _heading(figure: Figure, y: float, axis: str, base: str, left: float, right: float) -> None:
    """The name of an axis, and its base beside it: where the panel begins, or after a name that is longer. left, right:
    of the panel, inches."""
    bold: dict[str, Any] = {"size": _SIZE + 0.5, "weight": "bold"}
    name = _shorten(figure, axis, _NAMES, **bold)
    x = max(left + 0.04, 0.1 + _width(figure, name, **bold) + 0.1)
    against = _shorten(figure, f"against {base}", right - x, size=_NOTE + 0.3)
    figure.text(0.1 / TWO_COLUMNS, y, name, va="center", **bold)
    figure.text(x / TWO_COLUMNS, y, against, va="center", size=_NOTE + 0.3, color=MUTED,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in ("run", "axis", "level", "base"))


def _draw(
    accuracy: Axes, cost: Axes, row: dict[str, Any], at: float, look: Look, small: Sequence[dict[str, Any]]
) -> None:
    if row.get("top1_difference") is None:
        accuracy.text(0, at, f" {row['status']}", va="center", size=_NOTE, color=MUTED, style="italic", clip_on=True)
        return
    for one in small:
        accuracy.plot(one["top1_difference"], at, marker="|", color=look.colour, markersize=6, alpha=0.6, zorder=2)
    if row["top1_lo"] is not None:
        accuracy.plot([row["top1_lo"], row["top1_hi"]], [at, at], color=look.colour, linewidth=1.3, zorder=3)
    elif len(row["seeds"].split()) == 2:
        accuracy.plot([row["top1_min"], row["top1_max"]], [at, at], color=look.colour, marker="o", markersize=2.2,
                      linestyle="none", zorder=3)  # fmt: skip
    mark: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": 4.8, "zorder": 4}
    accuracy.plot(row["top1_difference"], at, **mark)
    if row["macs_percent"] is not None:
        cost.plot([0, row["macs_percent"]], [at, at], color=look.colour, linewidth=1.0, alpha=0.6, zorder=2)
        cost.plot(row["macs_percent"], at, **{**mark, "markersize": 4.0})


def _limits(shown: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> tuple[tuple[float, float], bool]:
    """From the least to the greatest change, and intervals as far as they stay within twice that range beyond it:
    the interval of two seeds must not flatten the rest. Also whether some are cut."""
    drawn = [row for row in rows if row["kind"] != "interaction"]
    changes = [row["top1_difference"] for row in drawn if row.get("top1_difference") is not None]
    means = [0.0, *changes]
    named = ("top1_lo", "top1_hi", "top1_min", "top1_max")
    ends = means + [row[name] for row in shown for name in named if row.get(name) is not None]
    beyond = max(2 * (max(means) - min(means)), 0.5)
    low, high = max(min(ends), min(means) - beyond), min(max(ends), max(means) + beyond)
    room = 0.05 * (high - low) or 1.0
    return (low - room, high + room), low > min(ends) or high < max(ends)


def _cost_limits(axes: Axes, shown: Sequence[dict[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    known = [0.0, *(row["macs_percent"] for row in shown if row.get("macs_percent") is not None)]
    low, high = min(known), max(known)
    room = 0.12 * (high - low) or 1.0
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _shorten(figure: Figure, name: str, room: float, **look: Any) -> str:
    """A name that is wider than that many inches ends in an ellipsis."""
    shown = name
    while _width(figure, shown, **look) > room and name:
        name = name[:-1]
        shown = name.rstrip(" ,") + "..."
    return shown


def _width(figure: Figure, name: str, **look: Any) -> float:
    """Width of a name, inches; a little more, since a figure is saved in a finer grid than it is measured in."""
    probe = figure.text(0, 0, name, **{"size": _SIZE, **look})
    width = probe.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi  # type: ignore[attr-defined]
    probe.remove()
    return 1.03 * float(width)


def _notes(results: Results, rows: Sequence[dict[str, Any]], cut: bool) -> list[str]:
    """What a reader must know to read the figure alone."""
    done = [row for row in rows if row.get("top1_difference") is not None]
    meanings = list(dict.fromkeys(row["interval"] for row in done if row["interval"]))
    seeds = sorted({int(seed) for row in done for seed in row["seeds"].split()})
    kinds = {row["kind"] for row in rows}
    return [
        "Each mark: the level minus the axis' base level, everything else equal, at the default operating points"
        + (", mean over the levels of the other axes (ticks: each of them)." if "combination" in kinds else "."),
        f"Data: {results.dataset}. {'Seeds ' + ', '.join(map(str, seeds)) if len(seeds) > 1 else 'One seed'}.",
        f"Lines: {'; or '.join(meanings)}; each by itself, not adjusted for their number."
        f"{' Some are longer than the figure.' if cut else ''}" if meanings else "",
        CONVENTION,
    ]
