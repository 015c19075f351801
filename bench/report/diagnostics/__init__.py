"""Tables and figures of what lies beyond accuracy: calibration, who pays, usage, agreement, collapsed gates."""

from __future__ import annotations

from bench.report.diagnostics.draw import CAPTIONS, draw_diagnostics
from bench.report.diagnostics.write import FOLDER, Diagnostics, write_diagnostics

__all__ = ["CAPTIONS", "FOLDER", "Diagnostics", "draw_diagnostics", "write_diagnostics"]
