"""Names -> objects through entry points, resolved on first use.

Importing this module imports no method: a broken optional method breaks only itself. If two installed packages claim
the same name, whoever asks for it gets an error that names both.

An entry of ``bench.methods`` names a method's options, a module that does not import torch, so that a configuration
is checked at once; they name the class that does the work. It may also name that class itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeGuard

from bench.errors import ConfigError

if TYPE_CHECKING:
    from bench.config.schema import MethodConfig
    from bench.method import Method

METHODS = "bench.methods"


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
def registered(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Name -> the different objects that packages register for it in a group of entry points."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=group):
        known = found.get(entry.name, ())
        if entry.value not in [one.value for one in known]:
            found[entry.name] = (*known, entry)
    return found


def method_names() -> list[str]:
    """All registered methods, sorted, without importing any."""
    return sorted(registered(METHODS))


def method_class(name: str) -> type[Method]:
    """The class of a method. Imports it, and with it torch."""
    from bench.method import Method

    entry = _entry(name)
    config = loaded = _import(entry)
    if _is_config(config):
        entry = EntryPoint(name, _class_of(name, config), METHODS)
        loaded = _import(entry)
        if getattr(loaded, "Config", None) is not config:
            raise ConfigError(f"method '{name}': {config.__name__} names the class {entry.value}, whose Config is not "
                              f"{config.__name__}")  # fmt: skip
    if not (isinstance(loaded, type) and issubclass(loaded, Method)):
        raise ConfigError(f"method '{name}' is registered as {loaded!r}, which is neither a bench.method.Method nor "
                          "the options of one")  # fmt: skip
    left = sorted(getattr(loaded, "__abstractmethods__", ()))
    if left:
        raise ConfigError(f"method '{name}' ({entry.value}) does not define {', '.join(left)}")
    return loaded


def method_config(name: str) -> type[MethodConfig]:
    """The options of a method; without importing torch if they are what is registered."""
    found = _import(_entry(name))
    config = found if _is_config(found) else getattr(method_class(name), "Config", None)
    if not _is_config(config):
        raise ConfigError(f"method '{name}': Config must be a class derived from bench.config.schema.MethodConfig, "
                          f"not {config!r}")  # fmt: skip
    return config


def distribution_of(name: str) -> str:
    """The installed package that a method is from, with its version: 'depthbench 0.1.0'; '' for an unknown one."""
    found = registered(METHODS).get(name)
    dist = found[0].dist if found else None
    return f"{dist.name} {dist.version}" if dist is not None else ""


def _is_config(found: object) -> TypeGuard[type[MethodConfig]]:
    from bench.config.schema import MethodConfig

    return isinstance(found, type) and issubclass(found, MethodConfig)


def _class_of(name: str, config: type[MethodConfig]) -> str:
    """What the options say their method's class is."""
    if ":" not in config.method_class:
        raise ConfigError(f"method '{name}': {config.__name__} does not name the method's class; write "
                          'method_class: ClassVar[str] = "package.module:Class"')  # fmt: skip
    return config.method_class


def _entry(name: str) -> EntryPoint:
    entries = registered(METHODS)
    if name not in entries:
        raise ConfigError(f"unknown method '{name}'{did_you_mean(name, entries)}")
    first, *others = entries[name]
    if others:
        raise ConfigError(f"method '{name}' ({first.value}): another package registers it too: {others[0].value}")
    return first


def _import(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:  # whatever somebody else's module does while it is imported
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"method '{entry.name}' ({entry.value}) cannot be imported: {words}") from error
