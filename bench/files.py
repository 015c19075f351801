"""Files that are either whole or not there: written beside their place, synchronised, then renamed.

A killed process leaves at most a hidden ``.tmp-*`` file; whoever holds the folder's lock may sweep those
away with ``remove_leftovers``.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import RunError

PREFIX = ".tmp-"
#: What earlier versions left.
_EARLIER = (".split-*.tmp",)

#: What an operating system says when a place cannot be written to, as opposed to a mistake of ours.
UNWRITABLE = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ENAMETOOLONG,
    errno.ENOSPC, errno.ENOTDIR, errno.ENOTEMPTY, errno.EPERM, errno.EROFS,
}  # fmt: skip


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read its bytes. OSError for a folder, a pipe, a socket or a device, without waiting for any."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: str | Path) -> str:
    """A text file that a user wrote: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises OSError for what is not a file, and ValueError, which names the line, for bytes that are not text.
    """
    with open_regular(path) as file:
        return decode_text(file.read())


def decode_text(content: bytes) -> str:
    """The text of a file's bytes, as ``read_text`` reads it."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text: save the file as UTF-8") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path to write to; when the block ends without an error it has become ``path``.

    The temporary file lies in the same folder (made if missing) and keeps the suffix. File and folder are
    synchronised to the disk. On an error the file is removed and an older ``path`` stays as it was.
    Raises RunError, naming ``path``, where the disk is full or the place may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()  # an empty folder is in the place of the file; OSError for one that holds something
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise RunError(f"cannot write {path}: {error.strerror}") from error
        raise
    finally:
        with suppress(OSError):  # gone after the rename; never hides the error that brought us here
            temporary.unlink()


def require_writable(path: str | Path) -> None:
    """Before long work: RunError if a file cannot be written to ``path``. Leaves nothing behind."""
    path = Path(path)
    if not path.name or os.path.isdir(path):
        raise RunError(f"cannot write {path}: it is a folder; name a file")
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    probe = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    with suppress(OSError):
        probe.unlink()


def write_bytes_atomic(path: str | Path, content: bytes) -> None:
    """Write a whole file at once, or leave the old one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write a whole text file at once (UTF-8, line ends as given), or leave the old one.

    Halves of surrogate pairs, as in the name of a file that is not UTF-8, are written as escapes; JSON reads them back.
    """
    write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"))


def append_text(path: str | Path, text: str) -> None:
    """Add to the end of a text file; readers get by with a last line that is not whole. Raises RunError."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write JSON that another program can read: indented, keys as given, NaN refused (ValueError)."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none if there is no such file."""
    path = Path(path)
    try:
        return parse_json_lines(path.read_bytes()) if path.is_file() else []
    except OSError:
        return []


def parse_json_lines(content: bytes) -> list[dict[str, Any]]:
    """The objects of JSON lines. A line that cannot be read (a killed process left half of it, say) is skipped, and so
    are values that are not finite."""
    found = []
    for line in content.split(b"\n"):
        with suppress(ValueError, RecursionError):
            found.append(json.loads(line.decode("utf-8")))
    return [{name: entry for name, entry in value.items() if not isinstance(entry, float) or math.isfinite(entry)}
            for value in found if isinstance(value, dict)]  # fmt: skip


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove what killed processes left below a folder, and return it. Only for the holder of its lock."""
    names = sorted(found for pattern in (f"{PREFIX}*", *_EARLIER) for found in Path(folder).rglob(pattern))
    leftovers = [found for found in names if found.is_file()]
    for leftover in leftovers:
        with suppress(OSError):
            leftover.unlink()
    return leftovers


def _sync(path: Path) -> None:
    """Push a file, or the entries of a folder, to the disk. Folders cannot be opened on every system."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)
