"""What a finished comparison says on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluate.analysis import Analysis
from bench.evaluate.results import Results
from bench.evaluate.seeds import interval_over
from bench.evaluate.training import FACTS
from bench.report.fonts import font_note
from bench.report.style import format_macs
from bench.report.summary_budgets import budget_table, verdict_lines
from bench.text import terminal, words

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

#: Groups of columns that need room: all; what training took instead of others; the usual ones,
#: and less of them, down to none on a narrow terminal.
_ALL = frozenset({"interval", "wide", "seeds", "training"})
_TRAINS = _ALL - {"wide", "seeds"}
_USUAL = _ALL - {"training"}
_NONE: frozenset[str] = frozenset()
#: Width where nobody says how wide the output is (a file, a pipe).
_UNKNOWN = 110

#: What training took: title, key, how a value is written.
_TRAINING: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("Elementwise", "macs_elementwise_mean", lambda value: format_macs(value, decimals=2)),
    ("Step MiB", "train_memory_mib", lambda value: f"{value:,.1f}"),
    ("ms/step", "ms_per_step", lambda value: f"{value:,.1f}"),
)

_COLOURS = {"done": "green", "skipped": "yellow", "pending": "yellow", "running": "yellow"}


def print_summary(analysis: Analysis, console: Console | None = None) -> None:
    """Print one line per run (its default operating point, mean over seeds), what went wrong, where files are.

    Where the terminal is wide enough and they are known: elementwise operations, and what a training step took.
    Plain text without colours where the output is no terminal.
    """
    results, lines = analysis.results, analysis.summary
    console = console or terminal(width=_UNKNOWN)
    took = {line["run"]: {name: line[name] for name in FACTS} for line in analysis.training}
    defaults = [{**_default(lines, run), **took[run]} for run in results.by_name()]
    table, parts = _widest(defaults, console)
    console.print()
    console.print(results.heading, style="bold", markup=False, highlight=False)
    console.print(table)
    for note in [*_notes(results, defaults, parts), *(_training_notes(defaults) if "training" in parts else ())]:
        console.print(note, markup=False, highlight=False)
    budgets = budget_table(analysis.compared.budget_summary, _box(console), console)
    if budgets is not None:
        console.print()
        console.print(budgets)
    gates = [f"Warning: {warning.text}" for warning in analysis.diagnosis.warnings]
    for line in [*verdict_lines(analysis.compared.verdicts), *gates, *filter(None, [font_note(results)])]:
        console.print(line, markup=False, highlight=False)
    files = _files(results.out)
    if files:
        console.print()
    for title, paths in files:
        console.print(f"{title}: {paths}", markup=False, highlight=False, soft_wrap=True)


def _default(lines: Sequence[dict[str, Any]], run: str) -> dict[str, Any]:
    mine = [line for line in lines if line["run"] == run]
    return next((line for line in mine if line.get("default") == "yes"), mine[0])


def _widest(lines: Sequence[dict[str, Any]], console: Console) -> tuple[Table, frozenset[str]]:
    """The table that says most without folding a cell, else without cutting a number, and its groups of columns.

    Where all runs cost the same MACs (norms, recipes), that matters more than the top-5 accuracy and the parameters.
    """
    alike = len({line.get("macs_mean") for line in lines} - {None}) == 1 < len(lines)
    few = (_USUAL, _USUAL - {"wide"}, _USUAL - {"wide", "seeds"})
    made = {parts: _table(lines, console, parts) for parts in (_ALL, *((_TRAINS,) if alike else ()), *few, _NONE)}
    sizes = {parts: _measure(table, console) for parts, table in made.items()}
    whole = (parts for parts in made if parts and sizes[parts].maximum <= console.width)
    folded = (parts for parts in few if sizes[parts].minimum <= console.width)
    parts = next(whole, None) or next(folded, _NONE)
    return made[parts], parts


def _measure(table: Table, console: Console) -> Measurement:
    return console.measure(table, options=console.options.update(width=10_000))


def _table(lines: Sequence[dict[str, Any]], console: Console, parts: frozenset[str]) -> Table:
    """parts: groups of columns besides run, accuracy, cost and status; see ``_ALL``."""
    from rich.table import Table

    table = Table(box=_box(console), pad_edge=False, show_edge=False)
    table.add_column("Run", overflow="fold", min_width=12 if parts else 8)
    columns = [column for column in _columns(lines) if column[0] in parts or not column[0]]
    for _, title, value in columns:
        wide = max(len(title), *(len(value(line)) for line in lines))
        table.add_column(title, justify="right", no_wrap=True, min_width=wide)
    table.add_column("Status", overflow="fold", min_width=6)
    for line in lines:
        status = words(line["status"], console)
        status.stylize(_COLOURS.get(line["status"], "red"))
        table.add_row(words(line["label"], console), *(value(line) for _, _, value in columns), status)
    return table


def _columns(lines: Sequence[dict[str, Any]]) -> list[tuple[str, str, Callable[[dict[str, Any]], str]]]:
    """(group, title, text of a line's cell). Where some intervals are over seeds and others over images, each line says
    which its own is."""
    over = {interval_over(line) for line in lines} - {""}
    seeds = any((line.get("n_seeds") or 0) > 1 for line in lines)
    columns: list[tuple[str, str, Callable[[dict[str, Any]], str]]] = [("", "Top-1 %", _cell("top1_mean", _percent))]
    if over:
        columns.append(("interval", "Interval", _ends))
    mixed = len(over) > 1  # then each line says, with its interval
    if mixed and "images" in over:
        columns.append(("interval", "Over", interval_over))
    columns.append(("wide", "Top-5 %", _cell("top5_mean", _percent)))
    columns.append(("", "MACs", _cell("macs_mean", _macs)))
    columns.append(("wide", "Params", _cell("params", _macs)))
    if seeds and not (mixed and "images" in over):
        columns.append(("interval" if mixed else "seeds", "Seeds", _cell("n_seeds", str)))
    return columns + [
        ("training", title, _cell(key, form)) for title, key, form in _TRAINING if any(line.get(key) for line in lines)
    ]


def _cell(key: str, form: Callable[[Any], str]) -> Callable[[dict[str, Any]], str]:
    """The text of a column; '-' for a line without the value."""
    return lambda line: "-" if line.get(key) is None else form(line[key])


def _percent(value: float) -> str:
    return f"{value:.2f}"


def _macs(value: float) -> str:
    return format_macs(value, decimals=2)


def _ends(line: dict[str, Any]) -> str:
    """'61.20 to 64.08': both ends, since they need not be equally far away."""
    return "-" if line.get("top1_lo") is None else f"{line['top1_lo']:.2f} to {line['top1_hi']:.2f}"


def _notes(results: Results, lines: Sequence[dict[str, Any]], parts: frozenset[str]) -> list[str]:
    """What the intervals mean, then every run without numbers and why."""
    meanings = dict.fromkeys(line["interval"] for line in lines if line.get("interval"))
    notes = [f"Interval: {meaning}" for meaning in meanings]
    if notes and "interval" not in parts:
        notes = ["Intervals are in summary.csv."]
    if any(line.get("policy") for line in lines) and len(results.rows) > len(results.runs):
        notes.append("Default operating points; all of them are in summary.csv.")
    notes += results.notes()
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
