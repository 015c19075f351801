"""Names -> objects through entry points, resolved on first use.

Importing this module imports no method: a broken optional method breaks only itself. Two installed
packages that claim the same name are an error that names both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from bench.errors import ConfigError

if TYPE_CHECKING:
    from bench.config.schema import MethodConfig
    from bench.method import Method

METHODS = "bench.methods"
METHOD_CONFIGS = "bench.method_configs"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for a near miss, else the list of what is known (short lists only)."""
    known = sorted(str(k) for k in known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    if known and sum(map(len, known)) < 400:
        return f" (known: {', '.join(known)})"
    return ""


@cache
def _entries(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigError(f"two packages register '{entry.name}': {other.value} and {entry.value}")
    return found


def method_names() -> list[str]:
    """All registered methods, sorted, without importing any."""
    return sorted(_entries(METHODS))


def method_class(name: str) -> type[Method]:
    """The class of a method. Imports it, and with it torch."""
    from bench.method import Method

    loaded = _load(METHODS, name)
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        raise ConfigError(f"method '{name}' is registered as {loaded!r}, which is no bench.method.Method")
    return loaded


def method_config(name: str) -> type[MethodConfig]:
    """The options of a method; without importing torch where the method registers them by themselves."""
    if name in _entries(METHODS) and name in _entries(METHOD_CONFIGS):
        return _load(METHOD_CONFIGS, name)  # type: ignore[return-value]
    return method_class(name).Config


def _load(group: str, name: str) -> object:
    entries = _entries(group)
    if name not in entries:
        raise ConfigError(f"unknown method '{name}'{did_you_mean(name, entries)}")
    try:
        return entries[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method '{name}' ({entries[name].value}) cannot be imported: {error}") from error
