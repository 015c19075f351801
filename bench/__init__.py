"""depthbench: dynamic-depth image classifiers compared on equal terms.

``load_config``, ``run``, ``report`` and ``import_official`` are what a notebook needs; each is loaded on first
use, so that ``import bench`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bench import report
    from bench.api import import_official, load_config, run

__all__ = ["__version__", "import_official", "load_config", "report", "run"]


def __getattr__(name: str) -> Any:
    if name == "report":
        import importlib

        return importlib.import_module("bench.report")  # a package that can be called: bench.report(folder)
    if name in ("import_official", "load_config", "run"):
        from bench import api

        return getattr(api, name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
