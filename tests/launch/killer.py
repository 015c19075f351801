"""``bench`` that kills its own process (SIGKILL): KIND NUMBER ARGUMENTS...

KIND step: in the middle of the NUMBER-th training step of this process, after the backward pass.
KIND write: while the NUMBER-th checkpoint of this process is being written: half of it is on the disk.
KIND rename: after the NUMBER-th checkpoint is written whole under its temporary name, before the rename.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import bench.files
import bench.train.checkpoint
from bench.cli import main


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(kind: str, number: int) -> None:
    seen = 0

    def reached() -> bool:
        nonlocal seen
        seen += 1
        return seen == number

    if kind == "step":
        step = torch.optim.SGD.step

        def killing_step(self: Any, *args: Any, **kwargs: Any) -> Any:
            if reached():
                _die()
            return step(self, *args, **kwargs)

        torch.optim.SGD.step = killing_step  # type: ignore[method-assign]
    elif kind == "write":
        write = bench.train.checkpoint.write_bytes_atomic

        def killing_write(path: Path, content: bytes) -> None:
            if Path(path).name.startswith("checkpoint") and reached():
                with bench.files.atomic_path(path) as temporary:
                    temporary.write_bytes(content[: len(content) // 2])
                    _die()
            write(path, content)

        bench.train.checkpoint.write_bytes_atomic = killing_write
    elif kind == "rename":
        replace = os.replace

        def killing_replace(source: Any, target: Any, **kwargs: Any) -> None:
            if Path(target).name.startswith("checkpoint") and reached():
                _die()
            replace(source, target, **kwargs)

        os.replace = killing_replace  # type: ignore[assignment]


if __name__ == "__main__":
    _arm(sys.argv[1], int(sys.argv[2]))
    sys.exit(main([*sys.argv[3:], "--in-process", "--no-report"]))
