"""How every figure looks: colours, markers, sizes, fonts, and files whose bytes depend on content alone.

Figures are made without pyplot, so that a user's backend and settings are neither read nor changed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.files import write_bytes_atomic
from bench.report.fonts import escape_unreadable, fonts_for
from bench.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.evaluate.results import Results

#: Okabe and Ito's colour-blind safe set, without yellow (too light on white), darker ones first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, MUTED, GRID = "#222222", "#666666", "#E6E6E6"

#: Widths in inches: one and two columns of a usual two-column paper; the latter fits a slide.
ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0

FORMATS = ("png", "svg", "pdf")
_NO_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

#: The convention that every cost axis follows.
CONVENTION = (
    "FLOPs are multiply-accumulates (MACs) of convolution, linear, matrix, attention and LSTM products; gates and "
    "heads are included; norms, activations and pooling are not."
)


@dataclass(frozen=True)
class Look:
    """Colour and marker of a run: both of its method, the colour shaded where a method has several runs with
    more than one operating point each."""

    colour: str
    marker: str


def looks(results: Results) -> dict[str, Look]:
    """The look of every run, by name; it depends on the order of the file alone. Runs of one group look alike.

    Where all runs are of one method, colour and marker tell the runs apart instead.
    """
    families = {run.run: run.group or run.run for run in results.runs}
    methods_of = {families[run.run]: run.method for run in results.runs}
    methods = list(dict.fromkeys(methods_of.values()))
    several = {families[run.run] for run in results.runs if len({(r["policy"], r["point"]) for r in run.rows}) > 1}
    several |= {name for name in methods_of if sum(other == name for other in families.values()) > 1}
    seen: dict[str, int] = {}
    own = {}
    for number, (name, method) in enumerate(methods_of.items()):
        colour, marker = pick(number if len(methods) == 1 else methods.index(method))
        variant = seen.get(method, 0)
        if name in several and len(methods) > 1:
            seen[method] = variant + 1
            colour = _shade(colour, variant)
        own[name] = Look(colour, marker)
    return {run: own[name] for run, name in families.items()}


def pick(number: int) -> tuple[str, str]:
    """Colours and markers have the same length; the second round pairs them anew."""
    round_, place = divmod(number, len(COLOURS))
    return COLOURS[place], MARKERS[(place + 3 * round_) % len(MARKERS)]


def _shade(colour: str, variant: int) -> str:
    """The colour itself, darker, lighter, darker still: lightness also survives colour blindness."""
    amount = (0.0, 0.45, -0.45, 0.7)[variant % 4]
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [round(p * (1 - amount)) if amount >= 0 else round(p + (255 - p) * -amount) for p in parts]
    return "#" + "".join(f"{p:02X}" for p in mixed)


@contextmanager
def styled(text: str = "") -> Iterator[None]:
    """Settings in force while a figure is made and saved. text: words whose characters it needs fonts for."""
    from matplotlib import style

    with warnings.catch_warnings(), style.context(["default", {
        "font.family": fonts_for(text), "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8,
        "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": INK, "ytick.color": INK,
        "xtick.direction": "out", "axes.linewidth": 0.7, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
        "grid.color": GRID, "grid.linewidth": 0.6, "lines.linewidth": 1.4, "lines.markersize": 5.5,
        "legend.frameon": False, "savefig.dpi": 220, "figure.dpi": 100,
        "text.parse_math": False,  # a label is the user's text, dollars and all
        "svg.hashsalt": "depthbench", "svg.fonttype": "path", "pdf.fonttype": 42,
    }]):  # fmt: skip
        warnings.filterwarnings("ignore", "Glyph .* missing")  # save_figure writes such characters as escapes
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure, inches, on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def spans(values: Sequence[float], factor: float = 8.0) -> bool:
    """Whether the largest is more than ``factor`` times the smallest: then an axis is logarithmic."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > factor


def accuracy_axes(axes: Axes, *, log: bool) -> None:
    """Labels, grid and ticks of accuracy against MACs, whose axis may be logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.grid(True)
    axes.set_xlabel("FLOPs (MACs) per image" + (", log scale" if log else ""))
    axes.set_ylabel("Top-1 accuracy (%)")
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_macs(value)))
    axes.yaxis.set_major_locator(MaxNLocator(7))


def wrap_text(figure: Figure, text: str, size: float, width: float, weight: str = "normal") -> list[str]:
    """Break a text into lines of at most ``width`` inches, as it will be set."""

    def measure(words: str) -> float:
        probe = figure.text(0, 0, words, size=size, weight=weight)
        extent = probe.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        probe.remove()
        return extent.width / figure.dpi

    space = measure("a a") - measure("aa")
    lines: list[list[str]] = [[]]
    used = 0.0
    for word in text.split():
        wide = measure(word)
        if lines[-1] and used + space + wide > width:
            lines.append([])
            used = 0.0
        used += wide + (space if lines[-1] else 0.0)
        lines[-1].append(word)
    return [" ".join(words) for words in lines if words]


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png``, ``.svg`` and ``.pdf``; no dates, so that the same figure gives the same bytes. Characters
    that act, or that no font has, are written as escapes."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        words = visible(text.get_text(), keep="\n")
        if not words.isascii():
            text.set_fontfamily(fonts_for(words))
        text.set_text(escape_unreadable(words))
    paths = []
    for kind in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=_NO_DATES[kind])
        path = stem.with_name(f"{stem.name}.{kind}")
        write_bytes_atomic(path, buffer.getvalue())
        paths.append(path)
    return paths


def format_macs(value: float, digits: int = 3, *, decimals: int | None = None) -> str:
    """1234567 -> '1.23M': a number with its prefix, so many significant digits, or decimals for columns."""
    for power, name in ((12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, "")):
        scaled = value / 10**power
        text = f"{scaled:.{digits}g}" if decimals is None else f"{scaled:.{decimals if power else 0}f}"
        if abs(float(text)) >= 1 or not power:
            # 999.6M with three digits is 1e+03M: whole numbers are written out
            return f"{float(text):.0f}{name}" if "e" in text and abs(scaled) >= 1 else f"{text}{name}"
    raise AssertionError("unreachable")
