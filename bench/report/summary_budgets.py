"""What the terminal says besides the results: budgets, verdicts, gates that decide nothing."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bench.evaluate.comparing.verdicts import DECIDED, NOT_REACHED, NOT_TESTED, ONE_SEED, THESE, UNSTABLE
from bench.text import from_cell, words

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

#: Verdicts that leave a question open, and why.
_OPEN = {
    NOT_REACHED: ": a question before it is undecided",
    NOT_TESTED: ": two seeds do not tell how much trainings differ",
    UNSTABLE: ": seeds choose different networks",
}

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
    """What is decided about the methods, in words or how many, and why the rest is not. Claims about single networks
    are counted apart."""
    rows = [row for row in _read(out / "verdicts.csv") if row["verdict"]]
    if not rows:
        return []
    decided = [row for row in rows if row["verdict"] in DECIDED]
    how = next((row["adjustment"] for row in rows if row["adjustment"]), "nothing was tested")
    head = f"Verdicts: {len(decided)} of {len(rows)} decided ({how}); all are in verdicts.csv."
    these = sum(row["verdict"].endswith(THESE) for row in rows)
    found = Counter(row["verdict"] for row in rows if row["verdict"] in _OPEN)
    notes = [f"  {count} {verdict}{_OPEN[verdict]}" for verdict, count in found.items()]
    if any(row["note"].startswith(ONE_SEED) for row in rows):
        notes.append(f"  {these} about these networks only ({ONE_SEED})")
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
