"""The tables of the diagnostics as CSV files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.evaluate.columns import write_table
from bench.evaluate.diagnostics import TABLES, Case, Diagnosis, diagnose
from bench.evaluate.results import Results

#: Folder of the tables, below that of the results.
FOLDER = "diagnostics"


@dataclass(frozen=True)
class Diagnostics:
    """What was found and written. tables: paths by name, those that have rows. warnings: gates that decide nothing,
    one sentence each. notes: what is missing and why."""

    diagnosis: Diagnosis
    tables: dict[str, Path]
    warnings: list[str]
    notes: list[str]


def diagnose_results(results: Results) -> Diagnosis:
    """The diagnosis of every run that is done and whose records were kept; the others are in a note."""
    kept = [run for run in results.runs if run.done and run.measured is not None]
    cases = [Case(run.run, run.label, run.seed, run.measured, run.curves) for run in kept if run.measured is not None]
    found = diagnose(cases, results.dataset)
    without = list(dict.fromkeys(run.label for run in results.runs if run.done and run.measured is None))
    if not without:
        return found
    notes = [*found.notes, f"No decision records were kept of {', '.join(without)}."]
    return Diagnosis(found.cases, found.names, found.tables, found.warnings, notes)


def write_diagnostics(results: Results, out: Path) -> Diagnostics:
    """Write ``out/diagnostics/*.csv``; the same records give the same bytes. A table without rows is not written, and
    its file of an earlier report removed."""
    diagnosis = diagnose_results(results)
    folder = Path(out) / FOLDER
    written = {}
    for name, columns in TABLES.items():
        path = folder / f"{name}.csv"
        rows = diagnosis.tables[name]
        if rows:
            write_table(path, columns, rows)
            written[name] = path
        else:
            path.unlink(missing_ok=True)
    return Diagnostics(diagnosis, written, [warning.text for warning in diagnosis.warnings], list(diagnosis.notes))
