"""Trackers by name. Those of other packages are found through entry points, checked and imported on first use."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

from bench.doors import TRACKERS as GROUP
from bench.doors import Door
from bench.errors import ConfigError
from bench.track.base import Tracker
from bench.track.mlflow import MLflow
from bench.track.tensorboard import TensorBoard
from bench.track.wandb import WeightsAndBiases

__all__ = ["TRACKERS", "check_trackers", "require_packages", "tracker_class", "tracker_names"]

TRACKERS: dict[str, type[Tracker]] = {tracker.name: tracker for tracker in (TensorBoard, WeightsAndBiases, MLflow)}

_DOOR = Door(GROUP, "tracker", "trackers", TRACKERS)


def tracker_names() -> list[str]:
    """Names that `trackers` may hold; those of other packages are not imported."""
    return sorted({*TRACKERS, *_DOOR.names()})


def tracker_class(name: str) -> type[Tracker]:
    """The class of a tracker; ConfigError with the nearest name if there is none, or if a plug-in is broken."""
    return TRACKERS.get(name) or _foreign(name)


@cache
def _foreign(name: str) -> type[Tracker]:
    found = _DOOR.load(name)
    try:
        return _checked(found, name)
    except ValueError as error:
        raise _DOOR.wrong(name, str(error)) from None


def _checked(found: object, name: str) -> type[Tracker]:
    if not (isinstance(found, type) and issubclass(found, Tracker)):
        raise ValueError("is not a class derived from bench.track.Tracker")
    if left := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"does not define {', '.join(left)}")
    if getattr(found, "name", None) != name:
        raise ValueError(f"its name is {getattr(found, 'name', None)!r}, not that of its entry point")
    if not isinstance(getattr(found, "help", None), str) or len(found.help.splitlines()) != 1:
        raise ValueError("help must be one line for users")
    for key in ("package", "install"):
        if not isinstance(getattr(found, key), str):
            raise ValueError(f"{key} must be the name of a package, not {getattr(found, key)!r}")
    return found


def check_trackers(names: Iterable[str]) -> None:
    """ConfigError for the first name that is not that of a tracker, or that of a broken one."""
    for name in names:
        tracker_class(name)


def require_packages(names: Iterable[str]) -> None:
    """ConfigError for the first tracker whose own package is not installed. Imports none of them."""
    for name in names:
        tracker = tracker_class(name)
        package = tracker.package
        if package and not _is_installed(package):
            install = tracker.install or package
            raise ConfigError(f"tracker '{name}' needs {package}, which is not installed: pip install '{install}'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # the package around it is not there, or hides it
        return False
