"""One process at a time in the folder of a stage: runs that share a stage may be done side by side."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.train.watch import Watch

_PAUSE = 0.2


@contextmanager
def claim(folder: Path, watch: Watch) -> Iterator[None]:
    """Wait until no other process trains in ``folder``, then be the one that does. The claim goes with the process,
    however it ends. Waiting counts neither towards ``timeout_minutes`` nor as training. Where the file system has no
    locks nothing is waited for. Raises what ``watch`` raises."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                watch.check()
                began = time.monotonic()
                time.sleep(_PAUSE)
                watch.excuse(time.monotonic() - began)
            except OSError:
                break
        yield
