"""What a finished comparison says on the terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.results import Results, read_results
from bench.report.style import format_macs
from bench.report.summary_budgets import budget_table, gate_lines, verdict_lines
from bench.report.tables import half_width, summarise
from bench.report.training import FACTS, training_lines

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

#: Below this width the table keeps only what matters most.
_NARROW = 72
#: Width where nobody says how wide the output is (a file, a pipe).
_UNKNOWN = 100

#: Columns that need room: title, key, how a value is written.
_TRAINING: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("Elementwise", "macs_elementwise_mean", lambda value: format_macs(value, decimals=2)),
    ("Step MiB", "train_memory_mib", lambda value: f"{value:,.1f}"),
    ("ms/step", "ms_per_step", lambda value: f"{value:,.1f}"),
)

_COLOURS = {"done": "green", "skipped": "yellow", "pending": "yellow", "running": "yellow"}


def print_summary(out: Path, console: Console | None = None) -> None:
    """Print one line per run (its default operating point, mean over seeds), what went wrong, where files are.

    Where the terminal is wide enough and they are known: elementwise operations, and what a training step took.
    Plain text without colours where the output is no terminal.
    """
    results = read_results(Path(out))
    console = console or _console()
    lines = summarise(results)
    took = {line["run"]: {name: line[name] for name in FACTS} for line in training_lines(results, lines)}
    defaults = [{**_default(lines, run), **took[run]} for run in results.by_name()]
    table, training = _widest(defaults, console)
    console.print()
    console.print(results.heading, style="bold", markup=False, highlight=False)
    console.print(table)
    for note in [*_notes(results, defaults, console), *(_training_notes(defaults) if training else ())]:
        console.print(note, markup=False, highlight=False)
    budgets = budget_table(results.out, _box(console))
    if budgets is not None:
        console.print()
        console.print(budgets)
    for line in [*verdict_lines(results.out), *gate_lines(results.out)]:
        console.print(line, markup=False, highlight=False)
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


def _widest(lines: Sequence[dict[str, Any]], console: Console) -> tuple[Table, bool]:
    """The table, and whether it says what training took: where that fits without folding a cell.

    Where all runs cost the same MACs (norms, recipes), that matters more than the top-5 accuracy and the parameters.
    """
    alike = len({line.get("macs_mean") for line in lines} - {None}) == 1 < len(lines)
    for columns in ("all", "training") if alike else ("all",):
        table = _table(lines, console, columns)
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            return table, True
    return _table(lines, console), False


def _table(lines: Sequence[dict[str, Any]], console: Console, columns: str = "usual") -> Table:
    """columns: usual; training: those about training instead of top-5 and parameters; all."""
    from rich.table import Table
    from rich.text import Text

    narrow, both = console.width < _NARROW, console.width >= _NARROW and columns != "training"
    several = any((line.get("n_seeds") or 0) > 1 for line in lines)
    extra = [column for column in _TRAINING if any(line.get(column[1]) for line in lines)] if columns != "usual" else []
    table = Table(box=_box(console), pad_edge=False, show_edge=False)
    table.add_column("Run", overflow="fold", min_width=8)
    table.add_column("Top-1 %", justify="right", no_wrap=True)
    if both:
        table.add_column("Top-5 %", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    if both:
        table.add_column("Params", justify="right", no_wrap=True)
    if several and not narrow:
        table.add_column("Seeds", justify="right", no_wrap=True)
    for title, _, _ in extra:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("Status", overflow="fold", min_width=6)
    for line in lines:
        has = line.get("top1_mean") is not None
        cells = [Text(line["label"]), Text(_accuracy(line, console) if has else "-")]
        if both:
            cells.append(Text(f"{line['top5_mean']:.2f}" if has else "-"))
        cells.append(Text(format_macs(line["macs_mean"], decimals=2) if has else "-"))
        if both:
            cells.append(Text(format_macs(line["params"], decimals=2) if has else "-"))
        if several and not narrow:
            cells.append(Text(str(line["n_seeds"])))
        for _, name, form in extra:
            cells.append(Text(form(line[name]) if line.get(name) is not None else "-"))
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


def _training_notes(lines: Sequence[dict[str, Any]]) -> list[str]:
    """What the columns about training mean, where there are any."""
    if not any(line.get(name) for line in lines for name in FACTS):
        return []
    return ["Step MiB: activations that one training step keeps for its backward pass (estimate). ms/step: median "
            "wall time of a training step on this machine, with whatever else it did."]  # fmt: skip


def _files(out: Path) -> list[tuple[str, str]]:
    """(kind, where): the folder once, then the names in it."""
    names = ("summary.csv", "budget_summary.csv", "verdicts.csv", "ledger.csv", "effects.csv", "latency.csv",
             "training.csv", "results.csv", "runs.csv")  # fmt: skip
    tables = [name for name in names if (out / name).is_file()]
    plots = sorted(path.stem for path in (out / "plots").glob("*.png"))
    found = []
    if tables:
        found.append(("Tables", f"{out} ({', '.join(tables)})"))
    if plots:
        found.append(("Figures", f"{out / 'plots'} ({', '.join(plots)}; png, svg, pdf)"))
    if (out / "report.html").is_file():
        found.append(("Report", str(out / "report.html")))
    return found


def _box(console: Console) -> Box:
    from rich import box

    return box.SIMPLE_HEAD if _unicode(console) else box.ASCII2


def _unicode(console: Console) -> bool:
    return "utf" in (console.encoding or "").lower()
