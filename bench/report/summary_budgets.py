"""What the terminal says besides the results: budgets and verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.evaluate.comparing.verdicts import DECIDED, NOT_REACHED, NOT_TESTED, ONE_SEED, THESE, UNSTABLE
from bench.text import words

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


def budget_table(rows: Sequence[dict[str, Any]], box: Box, console: Console) -> Table | None:
    """Contenders by budgets: test accuracy of what validation chose, mean over seeds; '-' where nothing is cheap
    enough. None if the comparison names no budgets. rows: of budget_summary.csv."""
    from rich.table import Table

    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    if not budgets:
        return None
    table = Table(box=box, pad_edge=False, show_edge=False)
    table.add_column("Top-1 % at a budget of", overflow="fold", min_width=12)
    for budget in budgets:
        table.add_column(words(budget, console), justify="right", no_wrap=True)
    cells = {(row["contender"], row["budget"]): row.get("top1_mean") for row in rows}
    for name, label in {row["contender"]: row["label"] for row in rows}.items():
        values = [cells.get((name, budget)) for budget in budgets]
        if any(value is not None for value in values):
            table.add_row(words(label, console), *("-" if value is None else f"{value:.2f}" for value in values))
    return table


def verdict_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is decided about the methods, in words or how many, and why the rest is not. Claims about single networks
    are counted apart. rows: of verdicts.csv."""
    rows = [row for row in rows if row.get("verdict")]
    if not rows:
        return []
    decided = [row for row in rows if row["verdict"] in DECIDED]
    how = next((row["adjustment"] for row in rows if row.get("adjustment")), "nothing was tested")
    head = f"Verdicts: {len(decided)} of {len(rows)} decided ({how}); all are in verdicts.csv."
    these = sum(row["verdict"].endswith(THESE) for row in rows)
    found = Counter(row["verdict"] for row in rows if row["verdict"] in _OPEN)
    notes = [f"  {count} {verdict}{_OPEN[verdict]}" for verdict, count in found.items()]
    if any(str(row.get("note") or "").startswith(ONE_SEED) for row in rows):
        notes.append(f"  {these} about these networks only ({ONE_SEED})")
    if not decided or len(decided) > LISTED:
        return [head, *notes]
    return [head, *notes, *(_words(row) for row in decided)]


def _words(row: dict[str, Any]) -> str:
    better, other = ("a", "b") if row["verdict"] == "yes" else ("b", "a")
    at = "over the whole curve" if row["budget"] == "auc" else f"at {row['budget']}"
    return (
        f"  {row['label_' + better]} is better than {row['label_' + other]} {at}: by "
        f"{abs(float(row['effect'])):.2f} points (adjusted p {float(row['p_adjusted']):.2g})"
    )
