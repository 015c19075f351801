"""One process at a time: a lock on a file, which goes with its process however that ends.

Some file systems have no locks (some network drives: ENOLCK), some systems none of this kind (Windows). There a file
that is made exclusively stands in for the lock, with the process that made it; one whose process is gone is removed.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

#: The lock of a results folder, held by whoever runs its comparison.
LOCK = ".lock"
#: The reason of a run that says "running" while nobody holds that lock.
ABANDONED = "its process is gone; the same command continues it"
#: What ``flock`` says when somebody else has the lock; anything else means that there are no locks.
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}


@contextmanager
def locked(path: Path, wait: Callable[[str], None], about: str = "") -> Iterator[int | None]:
    """Hold the lock ``path`` (a file, made if missing; its folder exists) for the length of the block. Gives its file
    descriptor, or None if a file stands in for it. As long as somebody has it, ``wait(who)`` is called, which sleeps,
    or raises to give up. about: what the holder does, for others to read. Raises OSError if nothing can be written."""
    with open(path, "a+", encoding="utf-8", errors="replace") as handle:
        while (found := _flock(handle)) is False:
            wait(_holder(path))
        while found is None and not _stand_in(path, about):
            wait(f"{_holder(_beside(path))} (if it is gone, delete {_beside(path)})")
        try:
            handle.truncate(0)
            handle.write(_who(about))
            handle.flush()
            yield handle.fileno() if found else None
        finally:
            with suppress(OSError):
                handle.truncate(0)
            if found is None:
                _beside(path).unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock ``path``; of another machine's stand-in this is believed."""
    try:
        if path.exists() and not path.is_file():
            return False  # a named pipe would have to be waited for
        with open(path, encoding="utf-8") as handle:
            if _flock(handle, shared=True) is False:
                return True
    except OSError:
        return False
    return _beside(path).exists() and not _is_stale(_beside(path))


def _flock(handle: TextIO, shared: bool = False) -> bool | None:
    """True: ours. False: somebody else's. None: there are no locks here."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _TAKEN else None
    return True


# ---- the file that stands in for a lock ---------------------------------------------------------------
def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _stand_in(path: Path, about: str) -> bool:
    """Make it; False if another process that may be alive has made it."""
    held = _beside(path)
    if held.exists() and _is_stale(held):
        _take_away(held)
    try:
        with open(held, "x", encoding="utf-8") as file:
            file.write(f"{_who(about)}\n{socket.gethostname()}\n{os.getpid()}\n{_started(os.getpid())}\n")
    except FileExistsError:
        return False
    return True


def _take_away(held: Path) -> None:
    """Of several who found it stale one takes it away; one that somebody made anew meanwhile is put back."""
    aside = held.with_name(f"{held.name}-{os.getpid()}")
    with suppress(OSError):
        os.rename(held, aside)
        if not _is_stale(aside):
            os.link(aside, held)
        aside.unlink()


def _is_stale(held: Path) -> bool:
    try:
        _, host, process, started = held.read_text("utf-8").splitlines()
        pid = int(process)
    except (OSError, ValueError):
        return False  # just being made, or unreadable: whoever waits is told its name
    return host == socket.gethostname() and started != "" and _started(pid) != started


def _started(pid: int) -> str:
    """When a process of this machine started, in a form that is equal for the same process only; "" if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return "gone" if Path("/proc/self/stat").exists() else ""
    return "gone" if fields[0] == "Z" else fields[19]


def _who(about: str) -> str:
    doing = f" ({about}, since {time.strftime('%Y-%m-%d %H:%M:%S')})" if about else ""
    return f"process {os.getpid()} on {socket.gethostname()}{doing}"


def _holder(path: Path) -> str:
    try:
        return (path.read_text("utf-8", "replace").splitlines() or [""])[0].strip() or "another process"
    except OSError:
        return "another process"
