"""One process at a time in the folder of a stage: runs that share a stage may be done side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.locks import locked
from bench.train.watch import Watch

_PAUSE = 0.2


@contextmanager
def claim(folder: Path, watch: Watch) -> Iterator[None]:
    """Wait until no other process trains in ``folder``, then be the one that does. The claim goes with the process,
    however it ends. Waiting counts neither towards ``timeout_minutes`` nor as training. Raises what ``watch`` raises,
    and OSError if nothing can be written."""

    def wait(_: str) -> None:
        watch.check()
        began = time.monotonic()
        time.sleep(_PAUSE)
        watch.excuse(time.monotonic() - began)

    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", wait):
        yield
