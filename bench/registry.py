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
    left = sorted(getattr(loaded, "__abstractmethods__", ()))
    if left:
        raise ConfigError(f"method '{name}' ({_entries(METHODS)[name].value}) does not define {', '.join(left)}")
    return loaded


def method_config(name: str) -> type[MethodConfig]:
    """The options of a method; without importing torch where the method registers them by themselves."""
    from bench.config.schema import MethodConfig

    separate = name in _entries(METHODS) and name in _entries(METHOD_CONFIGS)
    config = _load(METHOD_CONFIGS, name) if separate else getattr(method_class(name), "Config", None)
    if not (isinstance(config, type) and issubclass(config, MethodConfig)):
        raise ConfigError(f"method '{name}': Config must be a class derived from bench.config.schema.MethodConfig, "
                          f"not {config!r}")  # fmt: skip
    return config


def distribution_of(name: str) -> str:
    """The installed package that a method is from, with its version: 'depthbench 0.1.0'; '' for an unknown one."""
    found = _entries(METHODS).get(name)
    dist = found.dist if found is not None else None
    return f"{dist.name} {dist.version}" if dist is not None else ""


def _load(group: str, name: str) -> object:
    entries = _entries(group)
    if name not in entries:
        raise ConfigError(f"unknown method '{name}'{did_you_mean(name, entries)}")
    try:
        return entries[name].load()
    except Exception as error:  # whatever somebody else's module does while it is imported
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"method '{name}' ({entries[name].value}) cannot be imported: {words}") from error
