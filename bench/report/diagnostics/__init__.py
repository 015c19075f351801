"""Tables and figures of what lies beyond accuracy: calibration, who pays, usage, agreement, collapsed gates."""

from __future__ import annotations

from bench.evaluate.diagnostics.write import FOLDER, Diagnostics, write_diagnostics
from bench.report.diagnostics.draw import CAPTIONS, draw_diagnostics

__all__ = ["CAPTIONS", "FOLDER", "Diagnostics", "draw_diagnostics", "write_diagnostics"]
