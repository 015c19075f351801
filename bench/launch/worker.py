"""The process of one run: ``python -m bench.launch.worker RUN_FOLDER``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.config.resolve import RunSpec
from bench.launch.run_one import execute_run
from bench.text import guarded
from bench.train.watch import Interrupted, Watch


def _die_with_parent() -> None:
    """Where the kernel can do it (Linux): a run does not outlive the ``bench run`` that started it."""
    import ctypes
    import os
    import signal

    parent = os.getppid()
    try:
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # 1: PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str] | None = None) -> int:
    """Read ``spec.json`` in the folder and do the run; its status says how it went."""
    parser = argparse.ArgumentParser(description="Do one run of a comparison.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    _die_with_parent()
    spec = RunSpec.model_validate_json((options.folder / "spec.json").read_text("utf-8"))
    with guarded(), Watch(spec.timeout_minutes).listening() as watch:
        try:
            status = execute_run(spec, options.folder.parent.parent, watch=watch, quiet=options.quiet)
        except Interrupted as stop:
            return 128 + stop.signum
    return 0 if status["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
