"""What a finished comparison says on the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.results import Results, read_results
from bench.report.style import format_macs
from bench.report.tables import half_width, summarise

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Below this width the table keeps only what matters most.
_NARROW = 72
#: Width where nobody says how wide the output is (a file, a pipe).
_UNKNOWN = 100

_COLOURS = {"done": "green", "skipped": "yellow", "pending": "yellow", "running": "yellow"}


def print_summary(out: Path, console: Console | None = None) -> None:
    """Print one line per run (its default operating point, mean over seeds), what went wrong, where files are.

    Plain text without colours where the output is no terminal.
    """
    results = read_results(Path(out))
    console = console or _console()
    lines = summarise(results)
    defaults = [_default(lines, run) for run in results.by_name()]
    console.print()
    console.print(results.heading, style="bold", markup=False, highlight=False)
    console.print(_table(defaults, console))
    for note in _notes(results, defaults, console):
        console.print(note, markup=False, highlight=False)
    files = _files(results.out)
    if files:
        console.print()
    for title, paths in files:
        console.print(f"{title}: {paths}", markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    import sys

    from rich.console import Console

    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if known else _UNKNOWN)


def _default(lines: Sequence[dict[str, Any]], run: str) -> dict[str, Any]:
    mine = [line for line in lines if line["run"] == run]
    return next((line for line in mine if line.get("default") == "yes"), mine[0])


def _table(lines: Sequence[dict[str, Any]], console: Console) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    narrow = console.width < _NARROW
    several = any((line.get("n_seeds") or 0) > 1 for line in lines)
    table = Table(box=box.SIMPLE_HEAD if _unicode(console) else box.ASCII2, pad_edge=False, show_edge=False)
    table.add_column("Run", overflow="fold", min_width=8)
    table.add_column("Top-1 %", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("Top-5 %", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("Params", justify="right", no_wrap=True)
    if several and not narrow:
        table.add_column("Seeds", justify="right", no_wrap=True)
    table.add_column("Status", overflow="fold", min_width=6)
    for line in lines:
        has = line.get("top1_mean") is not None
        cells = [Text(line["label"]), Text(_accuracy(line, console) if has else "-")]
        if not narrow:
            cells.append(Text(f"{line['top5_mean']:.2f}" if has else "-"))
        cells.append(Text(format_macs(line["macs_mean"], decimals=2) if has else "-"))
        if not narrow:
            cells.append(Text(format_macs(line["params"], decimals=2) if has else "-"))
        if several and not narrow:
            cells.append(Text(str(line["n_seeds"])))
        cells.append(Text(line["status"], style=_COLOURS.get(line["status"], "red")))
        table.add_row(*cells)
    return table


def _accuracy(line: dict[str, Any], console: Console) -> str:
    text = f"{line['top1_mean']:.2f}"
    half = half_width(line)
    return text if half is None else f"{text} {'±' if _unicode(console) else '+-'} {half:.2f}"


def _notes(results: Results, lines: Sequence[dict[str, Any]], console: Console) -> list[str]:
    """What the intervals mean, then every run without numbers and why."""
    sign = "±" if _unicode(console) else "+-"
    meanings = dict.fromkeys(line["interval"] for line in lines if line.get("interval"))
    notes = [f"{sign} {meaning}" for meaning in meanings]
    if any(line.get("policy") for line in lines) and len(results.rows) > len(results.runs):
        notes.append("Default operating points; all of them are in summary.csv.")
    for run in results.failures():
        reason = f" - {run['reason']}" if run["reason"] else ""
        notes.append(f"{run['label']}, {run['seeds']}: {run['status']}{reason}")
    return notes


def _files(out: Path) -> list[tuple[str, str]]:
    """(kind, where): the folder once, then the names in it."""
    tables = [name for name in ("summary.csv", "results.csv", "runs.csv") if (out / name).is_file()]
    plots = sorted(path.stem for path in (out / "plots").glob("*.png"))
    found = []
    if tables:
        found.append(("Tables", f"{out} ({', '.join(tables)})"))
    if plots:
        found.append(("Figures", f"{out / 'plots'} ({', '.join(plots)}; png, svg, pdf)"))
    if (out / "report.html").is_file():
        found.append(("Report", str(out / "report.html")))
    return found


def _unicode(console: Console) -> bool:
    return "utf" in (console.encoding or "").lower()
