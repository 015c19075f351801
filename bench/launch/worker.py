"""The process of one run: ``python -m bench.launch.worker RUN_FOLDER``, or a fork of a server of such processes.

The parent decides when it ends: Ctrl-C is ignored from the first moment, SIGTERM stops it, and it dies with its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.process import die_with_parent, ignore_interrupts, interrupts_wait


def start_worker(
    folder: Path, *, quiet: bool, cwd: str | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start the run of a folder that has its ``spec.json``. Raises OSError."""
    command = [sys.executable, "-m", "bench.launch.worker", str(folder), "--parent", str(os.getpid())]
    with interrupts_wait():
        return subprocess.Popen([*command, *(["--quiet"] if quiet else [])], cwd=cwd, pass_fds=pass_fds)


def start_server(channel: int, pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a process that forks runs' processes (``bench.launch.forkserver``). channel: its end of a pair of sockets.
    Raises OSError."""
    command = [sys.executable, "-m", "bench.launch.worker", "--serve", str(channel), "--parent", str(os.getpid())]
    with interrupts_wait():
        return subprocess.Popen(command, pass_fds=[*pass_fds, channel])


def main(arguments: list[str] | None = None) -> int:
    """Read ``spec.json`` in the folder and do the run; its status says how it went."""
    parser = argparse.ArgumentParser(description="Do one run of a comparison.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--serve", type=int, metavar="FD", help="do the runs that are asked for on this socket")
    parser.add_argument("--parent", type=int, help="process number of the one who waits for this run")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    ignore_interrupts()
    if options.serve is not None:
        return _serve(socket.socket(fileno=options.serve))
    return _run(options.folder, options.quiet)


def _serve(channel: socket.socket) -> int:
    """Fork a process for each request, a line ``{"folder": ..., "quiet": ...}``; answer with the process's number, then
    with its exit code. Returns when nobody asks any more, and in each of the processes when its run has ended."""
    broken: Exception | None = None
    try:
        # What takes time in the process of a run. Nothing here initialises CUDA or starts a thread.
        import bench.launch.run_one  # noqa: F401
    except Exception as error:
        broken = error
    server = os.getpid()
    for request in _lines(channel):
        child = os.fork()
        if child == 0:
            die_with_parent(server)
            return _run(Path(request["folder"]), request["quiet"], broken)
        _answer(channel, pid=child)
        _answer(channel, code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return 0


def _lines(channel: socket.socket) -> Iterator[dict[str, Any]]:
    """What is asked for, until the other end is closed."""
    with channel.makefile("rb") as lines, suppress(ConnectionError):
        for line in lines:
            yield json.loads(line)


def _answer(channel: socket.socket, **said: int) -> None:
    with suppress(ConnectionError):  # nobody listens any more; the next request will not come
        channel.sendall(json.dumps(said).encode() + b"\n")


def _run(path: Path, quiet: bool, broken: Exception | None = None) -> int:
    """broken: why what a run needs could not be imported."""
    # Nothing that takes time is imported before the process has seen to its parent and to signals.
    from bench.launch.folder import RunFolder, one_line, read_spec

    spec = read_spec(path)
    folder = RunFolder(path.parent.parent, spec)
    try:
        if broken is not None:
            raise broken
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
