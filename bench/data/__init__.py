"""Data sets, splits and loaders.

``catalog`` knows the data sets without importing torch; ``open_data`` opens one. What is named here is imported on
first use, so that the command line can look at the catalogue at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.data.bundle import DataBundle, EvalLoader, TrainLoader, open_data
    from bench.data.catalog import DATASETS, DatasetInfo, find_root, missing_files

__all__ = ["DATASETS", "DataBundle", "DatasetInfo", "EvalLoader", "TrainLoader", "find_root", "missing_files",
           "open_data"]  # fmt: skip

_HOMES = {
    "bundle": ("DataBundle", "EvalLoader", "TrainLoader", "open_data"),
    "catalog": ("DATASETS", "DatasetInfo", "find_root", "missing_files"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"bench.data.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
