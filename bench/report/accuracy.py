"""The figure that the harness exists for: accuracy against compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.evaluate.bounds import ORACLE, RANDOM
from bench.evaluate.policies import Policy, known_policy, policy_class
from bench.evaluate.results import Results
from bench.report.fonts import text_of
from bench.report.labels import Label, densify, place_labels
from bench.report.style import (
    CONVENTION,
    INK,
    MUTED,
    ONE_COLUMN,
    TWO_COLUMNS,
    Look,
    accuracy_axes,
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

NAME = "accuracy-vs-macs"

_PROTOCOLS = {
    "holdout": "holdout (trained without the validation part; every choice made on it)",
    "published": "published (trained on the whole training set; nothing chosen)",
}


def draw_accuracy(results: Results, lines: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Accuracy against mean MACs, for two columns and for one. lines: ``summarise(results)``.

    Nothing is drawn, and nothing returned, where no run has numbers.
    """
    lines = [line for line in lines if line.get("top1_mean") is not None]
    if not any(is_point(line) for line in lines):
        return []
    paths = []
    with styled(text_of(results)):
        for stem, width, height in ((NAME, TWO_COLUMNS, 3.9), (f"{NAME}-column", ONE_COLUMN, 2.7)):
            paths += save_figure(accuracy_figure(results, lines, width, height), folder / stem)
    return paths


def accuracy_figure(results: Results, lines: Sequence[dict[str, Any]], width: float, height: float):  # type: ignore[no-untyped-def]
    """The figure of a given width; height: of the axes alone, inches; title, legend and notes come on top."""
    wide = width > 5
    size, note_size = (7.5, 6.2) if wide else (6.5, 5.6)
    left, right = (0.56, 0.12) if wide else (0.5, 0.12)
    own = looks(results)
    handles = _legend(lines, any(len(members) > 1 for members in families(results)))
    columns = 2 if wide else 1
    figure = new_figure(width, height)
    room = width - left - right
    title = wrap_text(figure, results.heading, 9, room, "bold")
    notes = wrap_text(figure, " ".join(_notes(results, lines)), note_size, room)
    noted = len(notes) * note_size / 72 * 1.32
    above = 0.17 * len(title) + 0.12
    below = 0.46 + -(-len(handles) // columns) * size / 72 * 1.5 + noted + 0.12
    total = height + above + below
    figure.set_size_inches(width, total)
    axes = figure.add_axes((left / width, below / total, room / width, height / total))
    accuracy_axes(axes, log=_is_log(lines))
    obstacles, labels = _draw_runs(axes, lines, own, wide)
    obstacles += _draw_families(axes, results, lines, own)
    _limits(axes, lines)
    obstacles += _draw_bounds(axes, lines, own)
    place_labels(axes, labels, densify(axes, obstacles), size)
    figure.text(left / width, 1 - 0.06 / total, "\n".join(title), va="top", ha="left", weight="bold", size=9)
    figure.legend(
        handles=handles, loc="lower left", ncols=columns, fontsize=size, handlelength=2.2, columnspacing=1.6,
        borderaxespad=0, labelspacing=0.35, bbox_to_anchor=((left - 0.06) / width, (0.1 + noted) / total),
    )  # fmt: skip
    figure.text(left / width, 0.06 / total, "\n".join(notes), va="bottom", size=note_size, color=MUTED, linespacing=1.3)
    return figure


def _is_log(lines: Sequence[dict[str, Any]]) -> bool:
    macs = [line["macs_mean"] for line in lines if known_policy(line["policy"])]
    return spans(macs)


def _draw_runs(
    axes: Axes, lines: Sequence[dict[str, Any]], own: dict[str, Look], wide: bool
) -> tuple[list[np.ndarray], list[Label]]:
    """Draw every run; returns polylines that labels should keep off, and one label per run."""
    obstacles: list[np.ndarray] = []
    labels: list[Label] = []
    for run in dict.fromkeys(line["run"] for line in lines):
        look = own[run]
        mine = [line for line in lines if line["run"] == run]
        points = [line for line in mine if is_point(line)]
        curve = curve_of(mine)
        if curve:
            x, y = _xy(curve)
            axes.plot(x, y, color=look.colour, linestyle=_line_style(curve[0]["policy"]), zorder=3)
            if all(line["top1_lo"] is not None for line in curve):
                low, high = ([line[name] for line in curve] for name in ("top1_lo", "top1_hi"))
                axes.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0, zorder=1)
            elif all(line["n_seeds"] == 2 for line in curve):
                for name in ("top1_min", "top1_max"):
                    axes.plot(x, [line[name] for line in curve], color=look.colour, alpha=0.35, linewidth=0.5, zorder=1)
            obstacles.append(np.column_stack([x, y]))
        obstacles += _draw_points(axes, points, look, wide)
        where = points[:1] + curve[:: max(len(curve) // 6, 1)] + (points[1:] if len(points) < 7 else [])
        labels.append(Label(mine[0]["label"], list(zip(*_xy(where))), look.colour))
    return obstacles, labels


def _draw_families(
    axes: Axes, results: Results, lines: Sequence[dict[str, Any]], own: dict[str, Look]
) -> list[np.ndarray]:
    """A line through the default points of the runs of a group: networks that were trained one by one."""
    obstacles = []
    for members in families(results):
        mine = [line for line in lines if line["run"] in members and line.get("default") == "yes"]
        if len(members) > 1 and len(mine) > 1:
            x, y = _xy(sorted(mine, key=lambda line: line["macs_mean"]))
            axes.plot(x, y, color=own[members[0]].colour, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1.8)
            obstacles.append(np.column_stack([x, y]))
    return obstacles


def families(results: Results) -> list[list[str]]:
    """Names of runs that share a group, in file order; a run without one stands by itself."""
    grouped: dict[str, list[str]] = {}
    for run in results.runs:
        members = grouped.setdefault(f"group {run.group}" if run.group else f"run {run.run}", [])
        if run.run not in members:
            members.append(run.run)
    return list(grouped.values())


def _draw_bounds(axes: Axes, lines: Sequence[dict[str, Any]], own: dict[str, Look]) -> list[np.ndarray]:
    """Lightly, and without asking for room in the axes: what random choices get, and what an oracle would."""
    obstacles = []
    low, high = axes.get_ylim()
    for run in dict.fromkeys(line["run"] for line in lines):
        mine = [line for line in lines if line["run"] == run]
        luck = sorted((line for line in mine if line["policy"] == RANDOM), key=lambda line: line["macs_mean"])
        if luck:
            axes.plot(*_xy(luck), color=own[run].colour, linewidth=0.7, linestyle=(0, (1, 2)), alpha=0.55, zorder=1.2)
        for line in mine:
            if line["policy"] == ORACLE and low <= line["top1_mean"] <= high:
                axes.plot([line["macs_mean"]], [line["top1_mean"]], marker="*", markersize=6, color=own[run].colour,
                          alpha=0.45, linestyle="none", zorder=1.2)  # fmt: skip
                obstacles.append(np.array([[line["macs_mean"], line["top1_mean"]]] * 4))
    return obstacles


def _draw_points(axes: Axes, points: list[dict[str, Any]], look: Look, wide: bool) -> list[np.ndarray]:
    """Markers: hollow where every image costs the same, filled where the cost depends on the image. Exits and
    gate thresholds of one network are joined by a line; static paths have no natural order."""
    if not points:
        return []
    ordered = sorted(points, key=lambda line: line["macs_mean"])
    x, y = _xy(ordered)
    adaptive = any(line["adaptive"] == "yes" for line in points)
    obstacles = []
    if len(points) > 1 and (adaptive or are_steps(points[0])):
        axes.plot(x, y, color=look.colour, linewidth=1.0, linestyle="-" if adaptive else (0, (3, 2)), zorder=2)
        obstacles.append(np.column_stack([x, y]))
    crowd = len(points) > 6
    for line in points:
        main = line is points[0] or not crowd
        at = ([line["macs_mean"]], [line["top1_mean"]])
        if main and line["top1_lo"] is not None:
            errors = [[line["top1_mean"] - line["top1_lo"]], [line["top1_hi"] - line["top1_mean"]]]
            axes.errorbar(*at, yerr=errors, fmt="none", ecolor=look.colour, elinewidth=0.8, capsize=1.8, alpha=0.75,
                          zorder=2.5)  # fmt: skip
            obstacles.append(np.array([[at[0][0], line["top1_lo"]], [at[0][0], line["top1_hi"]]]))
        elif main and line["n_seeds"] == 2:
            axes.plot(at[0] * 2, [line["top1_min"], line["top1_max"]], marker="_", color=look.colour, linestyle="none",
                      markersize=4, markeredgewidth=0.8, alpha=0.75, zorder=2.5)  # fmt: skip
            obstacles.append(np.array([[at[0][0], line["top1_min"]], [at[0][0], line["top1_max"]]]))
        axes.plot(*at, marker=look.marker, color=look.colour, linestyle="none", zorder=4,
                  markersize=(5.5 if wide else 4.5) * (1.0 if main else 0.7), markeredgewidth=1.1,
                  markerfacecolor=look.colour if line["adaptive"] == "yes" else "white")  # fmt: skip
        obstacles.append(np.array([[at[0][0], at[1][0]]] * 4))
    return obstacles


def is_point(line: Mapping[str, Any]) -> bool:
    """Whether a row is drawn as a mark."""
    policy = known_policy(line["policy"])
    return policy is not None and policy.kind != "curve"


def are_steps(line: Mapping[str, Any]) -> bool:
    """Whether the marks of a row's policy are steps of one way."""
    policy = known_policy(line["policy"])
    return policy is not None and policy.kind == "steps"


def curve_of(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The one curve of a run that is drawn, in order of cost: that of the policy of the lowest rank."""
    found = _curves(lines)
    mine = [line for line in lines if found and line["policy"] == found[0].name and not line["point"]]
    return sorted(mine, key=lambda line: line["macs_mean"])


def _curves(lines: Sequence[dict[str, Any]]) -> list[type[Policy]]:
    """Policies that are drawn as a curve, the lowest rank first."""
    known = [known_policy(name) for name in dict.fromkeys(line["policy"] for line in lines)]
    curves = [policy for policy in known if policy is not None and policy.kind == "curve"]
    return sorted(curves, key=lambda policy: (policy.rank, policy.name))


def _line_style(policy: str) -> Any:
    """As matplotlib has it."""
    found = known_policy(policy)
    return (0, found.dashes) if found is not None and found.dashes else "-"


def _xy(lines: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [line["macs_mean"] for line in lines], [line["top1_mean"] for line in lines]


def _limits(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    """Room for labels beside the outermost points; room for intervals too, but not more than points get."""
    drawn = _drawn(lines)
    low, high = (f([line["macs_mean"] for line in drawn]) for f in (min, max))
    if axes.get_xscale() == "log":
        room = max((high / low) ** 0.07, 1.08)
        axes.set_xlim(low / room, high * room**1.6)
    else:
        room = (high - low) * 0.07 or high * 0.2 or 1.0
        axes.set_xlim(max(low - room, 0), high + 1.6 * room)
    bottom, top = _accuracy_range(drawn)
    axes.set_ylim(max(bottom - 0.06 * (top - bottom), -1.0), min(top + 0.09 * (top - bottom), 101.0))


def _drawn(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines that the figure shows: the points and one curve of each run."""
    found = [line for line in lines if is_point(line)]
    for run in dict.fromkeys(line["run"] for line in lines):
        found += curve_of([line for line in lines if line["run"] == run])
    return found


def _accuracy_range(drawn: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """From the lowest to the highest accuracy, and to the ends of intervals as far as these lie within 0.4 of that
    range (1.5 percent at least) beyond it: an interval of two seeds must not flatten everything else."""
    means = [line["top1_mean"] for line in drawn]
    known = [line for line in drawn if line["top1_lo"] is not None]
    ends = [line["top1_lo"] for line in known] + [line["top1_hi"] for line in known] + means
    beyond = max(0.4 * (max(means) - min(means)), 1.5)
    bottom, top = max(min(ends), min(means) - beyond), min(max(ends), max(means) + beyond)
    return (bottom, top) if top - bottom > 0.2 else (bottom - 0.1, top + 0.1)


def _legend(lines: Sequence[dict[str, Any]], grouped: bool) -> list[Any]:
    """What markers and lines mean; the runs themselves are labelled in the figure."""
    from matplotlib.lines import Line2D

    def mark(label: str, filled: bool, dashed: bool = False) -> Line2D:
        return Line2D(
            [], [], label=label, color=INK, marker="o", markersize=4.5, linewidth=1.0,
            markerfacecolor=INK if filled else "white", linestyle=(0, (3, 2)) if dashed else "none",
        )  # fmt: skip

    points = [line for line in lines if is_point(line)]
    handles = []
    if any(line["adaptive"] == "no" for line in points):
        handles.append(mark("static: every image costs the same", False))
    for name in dict.fromkeys(line["policy"] for line in points if are_steps(line)):
        handles.append(mark(policy_class(name).words, False, dashed=True))
    if any(line["adaptive"] == "yes" for line in points):
        handles.append(mark("input-adaptive: gates", True))
    runs = dict.fromkeys(line["run"] for line in lines)
    drawn = [line for run in runs for line in curve_of([line for line in lines if line["run"] == run])[:1]]
    for policy in _curves(drawn):
        style = _line_style(policy.name)
        handles.append(Line2D([], [], color=INK, linestyle=style, label=f"input-adaptive: {policy.words}"))
    if grouped:
        handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), label="trained one by one"))
    if any(line["policy"] == RANDOM for line in lines):
        handles.append(Line2D([], [], color=INK, linewidth=0.7, linestyle=(0, (1, 2)), alpha=0.6,
                              label="bound: exits drawn at random"))  # fmt: skip
    low, high = _accuracy_range(_drawn(lines))
    if any(line["policy"] == ORACLE and line["top1_mean"] < high + 0.09 * (high - low) for line in lines):
        handles.append(Line2D([], [], color=INK, linestyle="none", marker="*", markersize=6, alpha=0.5,
                              label="bound: oracle"))  # fmt: skip
    return handles


def _notes(results: Results, lines: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know to read the figure alone."""
    done = [run for run in results.runs if run.done]
    images = sorted({row["n"] for run in done for row in run.rows if row["n"]})
    seeds = sorted({run.seed for run in done})
    fewest = min((sum(run.done for run in runs) for runs in results.by_name().values() if any(r.done for r in runs)),
                 default=0)  # fmt: skip
    count = f"{fewest} to {len(seeds)}" if fewest < len(seeds) else f"{len(seeds)}"
    many = f"{count} seeds ({', '.join(map(str, seeds))}), means shown." if len(seeds) > 1 else "One seed."
    meanings: dict[str, dict[str, None]] = {}
    for line in lines:
        if line["interval"]:
            meanings.setdefault(line["interval"], {})[line["label"]] = None
    usual = max(meanings, key=lambda meaning: len(meanings[meaning]), default="")
    bars = [usual, *(f"of {', '.join(labels)}: {one}" for one, labels in meanings.items() if one != usual)]
    failed = sorted({run.label for run in results.runs if not run.done})
    bottom, top = _accuracy_range(_drawn(lines))
    known = [line for line in _drawn(lines) if line["top1_lo"] is not None]
    cut = any(line["top1_lo"] < bottom or line["top1_hi"] > top for line in known)
    return [
        CONVENTION,
        f"Data: {results.dataset}, {' / '.join(f'{n:,}' for n in images)} test images.",
        f"Protocol: {_PROTOCOLS.get(results.protocol, results.protocol)}.",
        many,
        f"Bars and bands: {'; '.join(bars)}.{' Some are longer than the figure.' if cut else ''}",
        *_beyond(lines),
        *([f"Not drawn or incomplete: {', '.join(failed)}."] if failed else []),
    ]


def _beyond(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Oracles that lie above the figure, in words."""
    low, high = _accuracy_range(_drawn(lines))
    found = [line for line in lines if line["policy"] == ORACLE and line["top1_mean"] >= high + 0.09 * (high - low)]
    if not found:
        return []
    words = [f"{line['label']} {line['top1_mean']:.1f} % at {format_macs(line['macs_mean'])}" for line in found[:4]]
    return [f"Oracle bounds above the figure: {', '.join(words)}{' and more' if len(found) > 4 else ''}."]
