"""More than accuracy, from decision records alone: calibration, who pays, usage, agreement, collapsed gates."""

from __future__ import annotations

from bench.evaluate.diagnostics.diagnose import TABLES, Diagnosis, diagnose
from bench.evaluate.diagnostics.views import Case, View

__all__ = ["TABLES", "Case", "Diagnosis", "View", "diagnose"]
