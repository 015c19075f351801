"""The figures of the diagnostics as files."""

from __future__ import annotations

from pathlib import Path

from bench.evaluate.diagnostics import Diagnosis
from bench.evaluate.results import Results
from bench.report.diagnostics import agreement, payers, reliability, usage
from bench.report.fonts import text_of
from bench.report.style import FORMATS, save_figure, styled

_FIGURES = {
    usage.NAME: usage.usage_figure,
    reliability.NAME: reliability.reliability_figure,
    payers.NAME: payers.payers_figure,
    agreement.NAME: agreement.agreement_figure,
}

#: Stem of the file -> caption, in the order of a page.
CAPTIONS: dict[str, str] = {
    usage.NAME: "Usage: which exits the images of each class take, and which blocks they run",
    reliability.NAME: "Calibration: accuracy against confidence of each exit, path and mixture",
    payers.NAME: "Who pays: cost and accuracy by class and by difficulty of the image",
    agreement.NAME: "Agreement between operating points, and what the dearer one undoes",
}


def draw_diagnostics(results: Results, found: Diagnosis, folder: Path) -> list[Path]:
    """Draw what the records allow, PNG, SVG and PDF; figures of an earlier report that no longer hold are removed."""
    paths: list[Path] = []
    for name, make in _FIGURES.items():
        with styled(text_of(results) + "".join(found.names)):
            figure = make(results, found)
            if figure is not None:
                paths += save_figure(figure, folder / name)
                continue
        for kind in FORMATS:
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    return paths
