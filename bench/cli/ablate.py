"""bench ablate"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from bench.cli import run
from bench.cli.common import load, output_folder
from bench.config.load import Loaded
from bench.config.resolve import RunSpec
from bench.errors import BenchError, ConfigError
from bench.launch.folder import one_line
from bench.launch.preflight import leave_out_impossible
from bench.text import terminal, words

NAME = "ablate"
HELP = "vary runs along the axes of an `ablation:` section, and say what each level changes"
EXAMPLES = (
    "bench ablate configs/ablations/cifar10_dynamic_depth.yaml --dry-run",
    "bench ablate configs/ablations/cifar10_dynamic_depth.yaml --data-root ~/data --seeds 0,1,2",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    run.add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="only list the combinations")


def main(options: argparse.Namespace) -> int:
    loaded, specs = load(options)
    if not loaded.comparison.ablation:
        raise ConfigError("has no `ablation:` section; `bench run` does a comparison without one",
                          where=str(options.file))  # fmt: skip
    if options.dry_run:
        _list(loaded, specs)
        return 0
    code = run.main(options)
    if int(os.environ.get("RANK") or 0) != 0:
        return code  # under torchrun the first process writes and prints
    # a dry run needs no results
    from bench.evaluate.columns import keep_table
    from bench.evaluate.effects import COLUMNS, effects
    from bench.evaluate.effects import NAME as TABLE
    from bench.evaluate.results import read_results

    results = read_results(output_folder(loaded))
    rows = effects(results)
    table = keep_table(results.out / TABLE, COLUMNS, rows)
    if table is not None:
        _print(rows)
        print(f"table in {table}")
    return code


def _list(loaded: Loaded, specs: Sequence[RunSpec]) -> None:
    """Every combination with its levels, and why `bench run` will leave it out."""
    try:
        specs = leave_out_impossible(loaded, specs)
    except BenchError as error:
        print(f"networks are not looked at: {one_line(error)}")
    reasons = {spec.run: spec.skip for spec in specs}
    runs = loaded.comparison.runs
    varied = [entry for entry in runs if entry.base is not None]
    width = max(len(entry.name) for entry in runs)
    for entry in runs:
        levels = ", ".join(f"{axis} {level}" for axis, level in entry.factors.items()) or "not varied"
        reason = reasons[entry.name]
        print(f"{entry.name:<{width}}  {levels}" + (f"  (skipped: {reason})" if reason else ""))
    skipped = sum(reasons[entry.name] is not None for entry in varied)
    base = len({entry.base for entry in varied})
    print(f"{len(varied)} combinations of {base} runs, {skipped} of them impossible; "
          f"{len(runs) - len(varied)} further runs")  # fmt: skip


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    console = terminal(width=160)
    table = Table("axis", "level", "against", "run", "top-1", "interval", "MACs", "pairs", box=None, pad_edge=False)
    for column in (*table.columns[4:5], *table.columns[6:]):
        column.justify = "right"
    meanings: dict[str, None] = {}
    for row in rows:
        where = row["label"] + (f" ({row['others']})" if row.get("others") else "")
        cells = [row["axis"], row["level"], row["base"], where]
        if row.get("top1_difference") is None:
            cells += ["-", row["status"], "-", "0"]
        else:
            ends = "" if row["top1_lo"] is None else f"{row['top1_lo']:+.2f} to {row['top1_hi']:+.2f}"
            percent = "" if row["macs_percent"] is None else f"{row['macs_percent']:+.1f} %"
            cells += [f"{row['top1_difference']:+.2f}", ends, percent, str(row["pairs"])]
            meanings.setdefault(row["interval"])
        table.add_row(*(words(cell, console) for cell in cells))
    console.print()
    console.print(table)
    for meaning in filter(None, meanings):
        console.print(f"interval: {meaning}; each by itself", markup=False, highlight=False, soft_wrap=True)
    for reason in dict.fromkeys(row["reason"] for row in rows if row.get("reason")):
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
