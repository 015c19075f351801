"""One process at a time in the folder of a stage: runs that share a stage may be done side by side."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.train.watch import Watch


@contextmanager
def claim(folder: Path, watch: Watch) -> Iterator[None]:
    """Wait until no other process trains in ``folder``, then be the one that does. The claim goes with the process,
    however it ends. On a file system without locks nothing is waited for: two processes then train the same, and
    files are written atomically, so that only time is lost. Raises what ``watch`` raises."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                watch.check()
                time.sleep(0.2)
            except OSError:
                break
        yield
