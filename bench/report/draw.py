"""Everything that is drawn from a results folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.evaluate import latency
from bench.evaluate.columns import write_rows, write_table
from bench.evaluate.results import Results, read_results
from bench.evaluate.seeds import COLUMNS, legacy_columns, summarise
from bench.report.fonts import font_note, legible
from bench.store.runs_table import write_runs_table

#: Figures between the front and the diagnostics, by stem.
_CAPTIONS = {
    "ablation-effects": "Ablation: what each level changes",
    "latency-vs-macs": "Measured time against MACs: which savings are real",
}


@dataclass(frozen=True)
class ReportFiles:
    """What was written. page: report.html. tables: further CSV files. plots: every figure in every format. read: what
    it was drawn from."""

    read: Results
    results: Path
    summary: Path
    page: Path
    tables: list[Path] = field(default_factory=list)
    plots: list[Path] = field(default_factory=list)

    def all(self) -> list[Path]:
        return [self.results, self.summary, self.page, *self.tables, *self.plots]


def draw(out: Path) -> ReportFiles:
    """Write the tables (results.csv, summary.csv and those of the comparison), plots/ and report.html from the runs'
    files; the same files give the same bytes.

    Raises RunError where the folder holds no comparison or cannot be written to.
    """
    from bench.report.html import NAME, draw_page

    out = Path(out)
    results = read_results(out)
    lines = summarise(results)
    files = ReportFiles(results, out / "results.csv", out / "summary.csv", out / NAME)
    write_rows(files.results, results.rows)
    write_table(files.summary, [*COLUMNS, *legacy_columns(lines)], lines)
    files.tables.append(write_runs_table(out, _run_lines(results)))
    if results.times:
        write_table(out / latency.NAME, latency.COLUMNS, results.times)
    page = _draw_parts(results, lines, files)
    _remove_stale(out / "plots", files.plots)
    draw_page(results, lines, files.plots, page)
    return files


def _run_lines(results: Results) -> list[dict[str, Any]]:
    """Lines of runs.csv."""
    return [
        {**run.facts, "run": run.run, "seed": run.seed, "method": run.method, "run_id": run.run_id,
         "status": run.status, "reason": run.reason, "folder": os.path.relpath(run.folder, results.out)}
        for run in results.runs
    ]  # fmt: skip


def _draw_parts(results: Results, lines: Sequence[dict[str, Any]], files: ReportFiles):  # type: ignore[no-untyped-def]
    """Tables and figures besides the results themselves; returns what the page needs to know of them."""
    from bench.evaluate import ledger
    from bench.evaluate.comparing import compare as comparing
    from bench.evaluate.effects import effects, write_effects
    from bench.evaluate.training import training_lines, write_training
    from bench.report import diagnostics, pareto
    from bench.report.accuracy import draw_accuracy
    from bench.report.curves import draw_curves
    from bench.report.effects_figure import draw_effects
    from bench.report.html import Page
    from bench.report.latency import draw_latency, over_seeds
    from bench.report.page_tables import (
        budgets_table,
        effects_table,
        latency_table,
        ledger_table,
        training_table,
        verdicts_table,
    )  # fmt: skip

    out, plots = results.out, results.out / "plots"
    compared = comparing.compare(results)
    files.tables.extend(comparing.write_compared(compared, out))
    rows = ledger.make_ledger(results, lines)
    own = (ledger.write_ledger(rows, out), write_effects(results, out), write_training(results, lines, out))
    files.tables.extend(path for path in own if path is not None)
    found = diagnostics.write_diagnostics(results, out)
    files.tables.extend(found.tables.values())

    shown = legible(results)
    alike = shown is results  # else what figures say of runs is made anew, with other labels
    files.plots.extend(draw_accuracy(shown, lines if alike else summarise(shown), plots))
    files.plots.extend(pareto.draw_pareto(shown, compared if alike else comparing.compare(shown), plots))
    files.plots.extend(draw_effects(shown, plots))
    files.plots.extend(draw_latency(shown, plots))
    files.plots.extend(diagnostics.draw_diagnostics(shown, plots, found.diagnosis if alike else None))
    files.plots.extend(draw_curves(shown, plots))
    said = " ".join([*_share_note(results), *compared.notes])
    return Page(
        tables=(
            budgets_table(compared.budget_summary, said),
            verdicts_table(compared.verdicts),
            effects_table(effects(results)),
            ledger_table(rows),
            latency_table(over_seeds(results)),
            training_table(training_lines(results, lines)),
        ),
        captions={**_CAPTIONS, **diagnostics.CAPTIONS},
        warnings=[*found.warnings, *filter(None, [font_note(results)])],
        budgets=compared.budget_summary,
    )


def _share_note(results: Results) -> list[str]:
    """What a budget without a unit is a share of."""
    from bench.config.comparing import parse_budget

    shares = any(parse_budget(entry).unit == "relative" for entry in results.budgets)
    label = next((run.label for run in results.runs if run.run == results.reference), results.reference)
    return [f"A budget without a unit is a share of the cost of {label}."] if shares and label else []


def _remove_stale(folder: Path, drawn: list[Path]) -> None:
    """Remove figures of ours that no longer hold; whatever else lies there stays."""
    from bench.report.accuracy import NAME as ACCURACY
    from bench.report.curves import NAME as CURVES
    from bench.report.pareto import NAME as PARETO

    for pattern in (f"{ACCURACY}*", f"{CURVES}*", *(f"{stem}.*" for stem in (PARETO, *_CAPTIONS))):
        for path in sorted(folder.glob(pattern)):
            if path not in drawn:
                path.unlink(missing_ok=True)
