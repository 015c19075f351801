"""What the terminal says besides the results: budgets, verdicts, gates that decide nothing."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.text import from_cell, words

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

#: More decided comparisons than this are counted, not listed.
LISTED = 4


def budget_table(out: Path, box: Box, console: Console) -> Table | None:
    """Contenders by budgets: test accuracy of what validation chose, mean over seeds; '-' where nothing is cheap
    enough. None where the comparison names no budgets."""
    from rich.table import Table

    rows = _read(out / "budget_summary.csv")
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    if not budgets:
        return None
    table = Table(box=box, pad_edge=False, show_edge=False)
    table.add_column("Top-1 % at a budget of", overflow="fold", min_width=12)
    for budget in budgets:
        table.add_column(words(budget, console), justify="right", no_wrap=True)
    cells = {(row["contender"], row["budget"]): row["top1_mean"] for row in rows}
    for name, label in {row["contender"]: row["label"] for row in rows}.items():
        values = [cells.get((name, budget)) for budget in budgets]
        if any(values):
            table.add_row(words(label, console), *(f"{float(value):.2f}" if value else "-" for value in values))
    return table


def verdict_lines(out: Path) -> list[str]:
    """The decided comparisons in words, or how many there are."""
    rows = [row for row in _read(out / "verdicts.csv") if row["verdict"]]
    decided = [row for row in rows if row["verdict"] != "undecided"]
    if not rows:
        return []
    head = f"Verdicts: {len(decided)} of {len(rows)} decided ({rows[0]['adjustment']}); all are in verdicts.csv."
    counts = Counter(row["note"] for row in rows if row["note"])
    notes = [f"  {note}" if count == len(rows) else f"  {count} of them with {note}" for note, count in counts.items()]
    if not decided or len(decided) > LISTED:
        return [head, *notes]
    return [head, *notes, *(_words(row) for row in decided)]


def gate_lines(out: Path) -> list[str]:
    """Gated networks that treat all images alike."""
    return [f"Warning: {row['text']}" for row in _read(out / "diagnostics" / "gate_warnings.csv")]


def _words(row: dict[str, str]) -> str:
    better, other = ("a", "b") if row["verdict"] == "yes" else ("b", "a")
    at = "over the whole curve" if row["budget"] == "auc" else f"at {row['budget']}"
    return (
        f"  {row['label_' + better]} is better than {row['label_' + other]} {at}: by "
        f"{abs(float(row['effect'])):.2f} points (adjusted p {float(row['p_adjusted']):.2g})"
    )


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{name: from_cell(cell or "") for name, cell in row.items()} for row in csv.DictReader(file)]
    except OSError:
        return []
