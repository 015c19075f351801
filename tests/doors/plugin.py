"""Packages of other people, on the path without being installed: a module and a folder that names its entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench import registry
from bench.data import catalog
from bench.evaluate.policies import catalogue
from bench.track import catalogue as trackers


def make_package(folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], **modules: str) -> Path:
    """Write modules (name -> text) and the metadata of a package. entry_points: group -> name -> "module:object"."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [line for group, entries in entry_points.items()
             for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()), "")]  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    return folder


@contextmanager
def on_path(*folders: Path) -> Iterator[None]:
    """As if the packages in these folders were installed."""
    known, names = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(folder) for folder in folders]
    forget()
    try:
        yield
    finally:
        sys.path[:] = known
        for name in set(sys.modules) - names:
            if Path(str(getattr(sys.modules[name], "__file__", None) or "/")).parent in folders:
                del sys.modules[name]
        forget()


def forget() -> None:
    """What was looked up is looked up again."""
    importlib.invalidate_caches()
    for cached in (registry.registered, catalogue._foreign, catalogue.known_policy, catalog._foreign,
                   trackers._foreign):
        cached.cache_clear()
