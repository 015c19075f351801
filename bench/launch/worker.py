"""The process of one run: ``python -m bench.launch.worker RUN_FOLDER``, and how its parent starts it.

The parent decides when it ends: Ctrl-C is ignored from the first moment, SIGTERM stops it, and it dies with its parent.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.process import die_with_parent, ignore_interrupts, interrupts_wait


def start_worker(
    folder: Path, *, quiet: bool, cwd: str | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start the run of a folder that has its ``spec.json``. Raises OSError."""
    command = [sys.executable, "-m", "bench.launch.worker", str(folder), "--parent", str(os.getpid())]
    with interrupts_wait():
        return subprocess.Popen([*command, *(["--quiet"] if quiet else [])], cwd=cwd, pass_fds=pass_fds)


def main(arguments: list[str] | None = None) -> int:
    """Read ``spec.json`` in the folder and do the run; its status says how it went."""
    parser = argparse.ArgumentParser(description="Do one run of a comparison.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int, help="process number of the one who waits for this run")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    ignore_interrupts()
    return _run(options.folder, options.quiet)


def _run(path: Path, quiet: bool) -> int:
    # Nothing that takes time is imported before the above is in place.
    from bench.launch.folder import RunFolder, one_line, read_spec

    spec = read_spec(path)
    folder = RunFolder(path.parent.parent, spec)
    try:
        from bench.launch.run_one import execute_run
        from bench.text import guarded
        from bench.train.watch import Interrupted, Watch
    except Exception as error:  # a broken installation, or a limit on memory
        folder.set_status("failed", one_line(error))
        return 1
    with guarded(), Watch(spec.timeout_minutes).listening() as watch:
        try:
            status = execute_run(spec, folder.out, watch=watch, quiet=quiet)
        except Interrupted as stop:
            return 128 + stop.signum
    return 0 if status["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
