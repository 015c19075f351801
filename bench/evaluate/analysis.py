"""Everything that a results folder says, computed once and when it is first asked for: for tables, figures and page.

A pure function of the records; nothing is read back from the tables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.evaluate import effects, latency, ledger, seeds, training
from bench.evaluate.columns import keep_table, write_rows
from bench.evaluate.comparing.compare import TABLES, Compared, compare
from bench.evaluate.diagnostics import TABLES as DIAGNOSTICS
from bench.evaluate.diagnostics import Diagnosis
from bench.evaluate.diagnostics.results import FOLDER, diagnose_results
from bench.evaluate.results import Results
from bench.store.runs_table import write_runs_table

__all__ = ["Analysis", "Table"]

RESULTS = "results.csv"
SUMMARY = "summary.csv"


@dataclass(frozen=True)
class Table:
    """name: of the file in the results folder. rows: dicts with the columns; a table without rows has no file."""

    name: str
    columns: Sequence[str]
    rows: Sequence[dict[str, Any]]


class Analysis:
    """What is computed of ``results``; each property is computed on first use and kept."""

    def __init__(self, results: Results) -> None:
        self.results = results

    @cached_property
    def summary(self) -> list[dict[str, Any]]:
        """One line per run, policy and operating point, over seeds."""
        return seeds.summarise(self.results)

    @cached_property
    def compared(self) -> Compared:
        """Budgets, front, areas and verdicts."""
        return compare(self.results)

    @cached_property
    def ledger(self) -> list[dict[str, Any]]:
        """Published numbers beside ours."""
        return ledger.make_ledger(self.results, self.summary)

    @cached_property
    def effects(self) -> list[dict[str, Any]]:
        """What each level of an ablation changes."""
        return effects.effects(self.results)

    @cached_property
    def training(self) -> list[dict[str, Any]]:
        """What each run gives and what its training took."""
        return training.training_lines(self.results, self.summary)

    @cached_property
    def times(self) -> list[dict[str, Any]]:
        """Measured times, means over seeds."""
        return latency.mean_times(self.results)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Calibration, who pays, usage, agreement, collapsed gates."""
        return diagnose_results(self.results)

    def tables(self) -> list[Table]:
        """Every table but results.csv and runs.csv, in the order in which they are named to readers."""
        summary = [*seeds.COLUMNS, *seeds.legacy_columns(self.summary)]
        return [
            Table(SUMMARY, summary, self.summary),
            *(Table(name, columns, getattr(self.compared, rows)) for name, rows, columns in TABLES),
            Table(ledger.NAME, ledger.COLUMNS, self.ledger),
            Table(effects.NAME, effects.COLUMNS, self.effects),
            Table(training.NAME, training.COLUMNS, self.training),
            # without times nothing is removed: the table itself may hold them, unread because it is damaged
            *([Table(latency.NAME, latency.COLUMNS, self.results.times)] if self.results.times else []),
            *(Table(f"{FOLDER}/{name}.csv", columns, self.diagnosis.tables[name])
              for name, columns in DIAGNOSTICS.items()),
        ]  # fmt: skip

    def write(self) -> list[Path]:
        """Write every table into the results folder, and remove those of an earlier report that no longer have rows;
        the same records give the same bytes. Raises RunError (disk)."""
        out = self.results.out
        write_rows(out / RESULTS, self.results.rows)
        found = [out / RESULTS, write_runs_table(out, _run_lines(self.results))]
        written = [keep_table(out / table.name, table.columns, table.rows) for table in self.tables()]
        return found + [path for path in written if path is not None]


def _run_lines(results: Results) -> list[dict[str, Any]]:
    """Lines of runs.csv."""
    return [
        {**run.facts, "run": run.run, "seed": run.seed, "method": run.method, "run_id": run.run_id,
         "status": run.status, "reason": run.reason, "folder": os.path.relpath(run.folder, results.out)}
        for run in results.runs
    ]  # fmt: skip
