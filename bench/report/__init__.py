"""CSV, plots and pages: a pure function of a results folder. Needs neither torch nor the data."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from bench.report.draw import ReportFiles, draw

__all__ = ["ReportFiles", "draw"]


class _Callable(ModuleType):
    """Lets a notebook say ``bench.report(folder)``, as the command line says ``bench report FOLDER``."""

    def __call__(self, out: str | Path) -> ReportFiles:
        return draw(Path(out))


sys.modules[__name__].__class__ = _Callable
