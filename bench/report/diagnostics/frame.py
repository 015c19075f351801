"""What the figures of the diagnostics share: title, notes, panels in inches, colours of shares, words of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.evaluate.diagnostics import Diagnosis
from bench.evaluate.policies import known_policy
from bench.evaluate.results import Results
from bench.report.style import COLOURS, INK, MUTED, TWO_COLUMNS, new_figure, wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

#: More runs than this share no figure.
MOST_RUNS = 8

#: Up to so many classes all are drawn; of more, so many at each end.
ALL_CLASSES, EXTREMES, GAP = 20, 5, "..."

NOTE_SIZE = 6.2
ELLIPSIS = "\u2026"
_MARGIN = 0.1


@dataclass(frozen=True)
class Page:
    """A figure with its title above and its notes below; the body between them is measured in inches."""

    figure: Figure
    above: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes in the body: distances from its left and upper edge, and size, inches."""
        bottom = self.height - self.above - top - height
        wide = TWO_COLUMNS
        return self.figure.add_axes((left / wide, bottom / self.height, width / wide, height / self.height))

    def text(self, left: float, top: float, words: str, **look: Any) -> None:
        """A text at a place in the body, inches."""
        y = 1 - (self.above + top) / self.height
        self.figure.text(left / TWO_COLUMNS, y, words, **{"va": "top", "ha": "left", **look})


def new_page(title: str, notes: Sequence[str], body: float) -> Page:
    """An empty figure two columns wide. body: inches between title and notes."""
    figure = new_figure(TWO_COLUMNS, 3.0)
    room = TWO_COLUMNS - 2 * _MARGIN
    heading = wrap_text(figure, title, 9, room, "bold")
    lines = wrap_text(figure, " ".join(notes), NOTE_SIZE, room)
    above = 0.06 + 0.17 * len(heading) + 0.08
    below = len(lines) * NOTE_SIZE / 72 * 1.32 + 0.14
    height = above + body + below
    figure.set_size_inches(TWO_COLUMNS, height)
    left = _MARGIN / TWO_COLUMNS
    figure.text(left, 1 - 0.06 / height, "\n".join(heading), va="top", weight="bold", size=9)
    figure.text(left, 0.06 / height, "\n".join(lines), va="bottom", size=NOTE_SIZE, color=MUTED, linespacing=1.3)
    return Page(figure, above, height)


def share_colours(colour: str = COLOURS[0]) -> Colormap:
    """Nearly white over a colour of the set to nearly black: lightness alone says how much, for every kind of vision.
    Zero is a little darker than paper, so that it is not taken for a missing value."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

    red, green, blue = to_rgb(colour)
    light, dark = (to_hex((a + b * red, a + b * green, a + b * blue)) for a, b in ((0.95, 0.05), (0.0, 0.35)))
    return LinearSegmentedColormap.from_list("share", [(0.0, light), (0.62, colour), (1.0, dark)])


def ink_on(share: float) -> str:
    """A text colour that can be read on ``share_colours()`` at a share between 0 and 1."""
    return "white" if share > 0.42 else INK


def words_of(policy: str, point: str, setting: str) -> str:
    """'budgeted batch, r = 0.55', 'point t0.5'; different settings of several seeds stand as '0.5 / 0.55'."""
    if point:
        return f"point {point}"
    known = known_policy(policy)
    return (known.setting_words if known is not None else f"{policy} {{}}").format(" / ".join(setting.split()))


def facts(results: Results, diagnosis: Diagnosis) -> list[str]:
    """Data, images and seeds: what every figure says."""
    images = sorted({case.test.n for case in diagnosis.cases})
    seeds = sorted({case.seed for case in diagnosis.cases})
    many = f"{len(seeds)} seeds ({', '.join(map(str, seeds))})" if len(seeds) > 1 else f"One seed ({seeds[0]})"
    return [f"Data: {results.dataset}, {' / '.join(f'{n:,}' for n in images)} test images. {many}."]


def first_view(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Run -> its rows of the first view in a table: the default point, or the first policy's mixture."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        mine = found.setdefault(row["run"], [])
        if not mine or (mine[0]["policy"], mine[0]["point"]) == (row["policy"], row["point"]):
            mine.append(row)
    return found


def view_notes(shown: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """'Early exits: budgeted batch, r = 0.55; Gated: point t0.5.'"""
    said = [f"{rows[0]['label']}: {words_of(rows[0]['policy'], rows[0]['point'], rows[0]['setting'])}"
            for rows in shown.values()]  # fmt: skip
    mixed = any(not rows[0]["point"] for rows in shown.values())
    how = " Settings are those whose mean cost on validation is nearest the middle between cheapest and default point."
    return "; ".join(said) + "." + (how if mixed else "")


def keep_runs(runs: Sequence[str], first: Callable[[str], bool] = bool) -> tuple[list[str], list[str]]:
    """(drawn, left out): at most ``MOST_RUNS``, those that ``first`` holds for before the others; in file order."""
    ranked = sorted(runs, key=lambda run: not first(run))[:MOST_RUNS]
    return [run for run in runs if run in ranked], [run for run in runs if run not in ranked]


def left_out(labels: Sequence[str]) -> list[str]:
    return [f"Not drawn, for want of room: {', '.join(labels)}."] if labels else []


def thin(count: int, most: int) -> list[int]:
    """At most so many of ``count`` places, evenly spread, with both ends."""
    if count <= most:
        return list(range(count))
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})


def panel_title(page: Page, axes: Axes, text: str, width: float, above: float = 4) -> None:
    """The name of a run over its panel: set smaller, and cut at last, where it is wider than that many inches."""
    title = axes.set_title(text, loc="left", fontsize=8, pad=above)
    renderer = page.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    size, shown = 8.0, text
    while title.get_window_extent(renderer).width > width * page.figure.dpi and len(shown) > 2:
        if size > 6:
            size -= 0.5
        else:
            shown = shown.rstrip(ELLIPSIS)[:-1].rstrip() + ELLIPSIS
        title.set_fontsize(size)
        title.set_text(shown)


def room_below(texts: Sequence[str]) -> float:
    """Inches that slanted tick labels of about 6.5 points need below their axes."""
    return 0.14 + 0.039 * max(map(len, texts), default=0)


def colour_bar(page: Page, left: float, top: float, width: float, colours: Colormap, low: float, high: float,
               label: str) -> None:  # fmt: skip
    """A labelled horizontal bar, percent, 0.09 inches high; its label stands above it."""
    from matplotlib.ticker import MaxNLocator

    axes = page.axes(left, top + 0.14, width, 0.09)
    axes.imshow([[k / 63 for k in range(64)]], aspect="auto", cmap=colours, extent=(low, high, 0, 1), vmin=0, vmax=1)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(axis="x", labelsize=6.2, length=2, pad=1.5)
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_linewidth(0.4)
    page.text(left, top, label, size=6.5)
