"""Figures of what lies beyond accuracy: calibration, who pays, usage, agreement, collapsed gates."""

from __future__ import annotations

from bench.report.diagnostics.draw import CAPTIONS, draw_diagnostics

__all__ = ["CAPTIONS", "draw_diagnostics"]
