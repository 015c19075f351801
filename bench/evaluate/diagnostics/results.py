"""The diagnosis of a whole results folder."""

from __future__ import annotations

from bench.evaluate.diagnostics.diagnose import Diagnosis, diagnose
from bench.evaluate.diagnostics.views import Case
from bench.evaluate.results import Results

#: Folder of the tables, below that of the results.
FOLDER = "diagnostics"


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
