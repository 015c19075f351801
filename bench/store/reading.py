"""Files of a results folder are read as if somebody else had written them: bounded, and never waited for."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import RunError

#: The largest file that is read if nothing says how large it should be (bytes).
LIMIT = 1 << 28
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
          (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))  # fmt: skip


class Damaged(RunError):
    """A file of a results folder is missing, cannot be read, or is not what was written."""


def file_size(path: Path) -> int:
    """Bytes of a regular file; Damaged if there is none. Opens nothing, so that a named pipe cannot block."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise Damaged(f"{path} is {name}, not a file")
    return found.st_size


def read_bytes(path: Path, limit: int = LIMIT) -> bytes:
    """The content of a regular file; Damaged in one line for anything else, and for more than ``limit`` bytes."""
    size = file_size(path)
    if size > limit:
        raise Damaged(f"{path} has {size:,} bytes, more than the {limit:,} that such a file may have")
    try:
        with open(path, "rb") as file:
            content = file.read(size + 1)
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > size:
        raise Damaged(f"{path} grows while it is read")
    return content


def read_text(path: Path) -> str:
    """A file of UTF-8 text; Damaged otherwise."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Damaged(f"{path} is damaged (not UTF-8)") from None


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object with finite numbers; Damaged, naming ``path``, for anything else."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise Damaged(f"{path} is damaged (nested too deeply)") from None
    except ValueError as error:
        words = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise Damaged(f"{path} is damaged ({words})") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged (not a JSON object)")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
