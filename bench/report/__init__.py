"""CSV, plots and pages: a pure function of a results folder. Needs neither torch nor the data."""

from __future__ import annotations

from bench.report.draw import ReportFiles, draw

__all__ = ["ReportFiles", "draw"]
