"""Everything that is drawn from a results folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.evaluate.columns import write_rows, write_table
from bench.report.results import read_results
from bench.report.tables import COLUMNS, legacy_columns, summarise


@dataclass(frozen=True)
class ReportFiles:
    """What was written. page: report.html. plots: every figure in every format."""

    results: Path
    summary: Path
    page: Path
    plots: list[Path] = field(default_factory=list)

    def all(self) -> list[Path]:
        return [self.results, self.summary, self.page, *self.plots]


def draw(out: Path) -> ReportFiles:
    """Write results.csv, summary.csv, plots/ and report.html from the runs' files; the same files give the same bytes.

    Raises RunError where the folder holds no comparison or cannot be written to.
    """
    from bench.report.accuracy import draw_accuracy
    from bench.report.curves import draw_curves
    from bench.report.html import NAME, draw_page

    out = Path(out)
    results = read_results(out)
    lines = summarise(results)
    files = ReportFiles(out / "results.csv", out / "summary.csv", out / NAME)
    write_rows(files.results, results.rows)
    write_table(files.summary, [*COLUMNS, *legacy_columns(lines)], lines)
    files.plots.extend(draw_accuracy(results, lines, out / "plots"))
    files.plots.extend(draw_curves(results, out / "plots"))
    _remove_stale(out / "plots", files.plots)
    draw_page(results, lines, files.plots)
    return files


def _remove_stale(folder: Path, drawn: list[Path]) -> None:
    """Remove figures of ours that no longer hold; whatever else lies there stays."""
    from bench.report.accuracy import NAME as ACCURACY
    from bench.report.curves import NAME as CURVES

    for pattern in (f"{ACCURACY}*", f"{CURVES}*"):
        for path in sorted(folder.glob(pattern)):
            if path not in drawn:
                path.unlink(missing_ok=True)
