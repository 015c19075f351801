"""Everything that is drawn from a results folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.config.comparing import parse_budget
from bench.evaluate.analysis import Analysis
from bench.evaluate.results import Results, read_results
from bench.report.accuracy import draw_accuracy
from bench.report.curves import draw_curves
from bench.report.diagnostics import CAPTIONS, draw_diagnostics
from bench.report.effects_figure import draw_effects
from bench.report.fonts import font_note, legible
from bench.report.html import Page, draw_page
from bench.report.latency import draw_latency
from bench.report.page_tables import (
    budgets_table,
    effects_table,
    latency_table,
    ledger_table,
    training_table,
    verdicts_table,
)
from bench.report.pareto import draw_pareto

#: Figures between the front and the diagnostics, by stem.
_CAPTIONS = {
    "ablation-effects": "Ablation: what each level changes",
    "latency-vs-macs": "Measured time against MACs: which savings are real",
}


@dataclass(frozen=True)
class ReportFiles:
    """What was written. analysis: what it was drawn from. page: report.html. tables: every CSV file. plots: every
    figure in every format."""

    analysis: Analysis
    page: Path
    tables: list[Path]
    plots: list[Path]

    def all(self) -> list[Path]:
        return [self.page, *self.tables, *self.plots]


def draw(out: Path) -> ReportFiles:
    """Write the tables (results.csv, summary.csv and those of the comparison), plots/ and report.html from the runs'
    files; the same files give the same bytes.

    Raises RunError if the folder holds no comparison or cannot be written to.
    """
    analysis = Analysis(read_results(Path(out)))
    tables = analysis.write()
    plots = _draw_figures(analysis)
    _remove_stale(analysis.results.out / "plots", plots)
    page = draw_page(analysis.results, analysis.summary, plots, _page(analysis))
    return ReportFiles(analysis, page, tables, plots)


def _draw_figures(analysis: Analysis) -> list[Path]:
    results, folder = analysis.results, analysis.results.out / "plots"
    shown = legible(results)
    if shown is not results:  # what figures say of runs is made anew, with other labels
        analysis = Analysis(shown)
    return [
        *draw_accuracy(shown, analysis.summary, folder),
        *draw_pareto(shown, analysis.compared, folder),
        *draw_effects(shown, analysis.effects, folder),
        *draw_latency(shown, analysis.times, folder),
        *draw_diagnostics(shown, analysis.diagnosis, folder),
        *draw_curves(shown, folder),
    ]


def _page(analysis: Analysis) -> Page:
    """What the page says besides the results."""
    compared, results = analysis.compared, analysis.results
    said = " ".join([*_share_note(results), *compared.notes])
    return Page(
        tables=(
            budgets_table(compared.budget_summary, said),
            verdicts_table(compared.verdicts),
            effects_table(analysis.effects),
            ledger_table(analysis.ledger),
            latency_table(analysis.times),
            training_table(analysis.training),
        ),
        captions={**_CAPTIONS, **CAPTIONS},
        warnings=[*(warning.text for warning in analysis.diagnosis.warnings), *filter(None, [font_note(results)])],
        budgets=compared.budget_summary,
    )


def _share_note(results: Results) -> list[str]:
    """What a budget without a unit is a share of."""
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
