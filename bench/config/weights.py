"""Files of weights as a configuration or a command names them: FILE, or FILE#KEY for one of several networks in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bench.errors import ConfigError

_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def split_key(text: str | Path) -> tuple[Path, str | None]:
    """FILE and KEY of ``FILE#KEY``; a file that has the whole text as its name is meant first."""
    whole, (name, _, key) = Path(text), str(text).rpartition("#")
    return (Path(name), key) if name and key and not os.path.lexists(whole) else (whole, None)


def find_weights(text: str, *folders: Path, where: str) -> tuple[Path, str | None]:
    """The absolute path of a file of weights, as given or relative to one of ``folders``, and its KEY or None.

    Raises ConfigError if there is no regular file: nothing else can be read twice, and some cannot be read to an end.
    """
    problem = f"no such file: {text}"
    for folder in (Path(), *folders):
        path, key = split_key(folder / os.path.expanduser(text))
        kind = irregular(path)
        if kind is None and os.path.isfile(path):
            return Path(os.path.realpath(path)), key
        problem = f"is {kind}, not a file: {text}" if kind else problem
    raise ConfigError(problem, where=where)


def irregular(path: Path) -> str | None:
    """What there is at a path if it is not a regular file; None for one, or if nothing is there. Opens nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)
