"""The command line: ``bench COMMAND``. The commands are imported when Ctrl-C is taken care of, not before."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from bench.errors import BenchError, memory_is_gone
from bench.process import drop_output, interrupted, leave_command, own_command, say_stopped

#: What an operating system says when there is no more of something, as opposed to a mistake of ours.
_LIMITS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.EROFS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 good, 1 a run failed, 2 a bad configuration, 128 + signal.

    Without ``arguments`` this is the process of ``bench``, which then also sees to its signals and streams."""
    if arguments is not None:
        return _command(arguments)
    own_command()
    try:
        code = _command(None)
    except SystemExit as end:  # argparse: help, or a mistake in the arguments
        code = end.code if isinstance(end.code, int) else 1
    return leave_command(code)


def _command(arguments: Sequence[str] | None) -> int:
    from bench.text import guarded

    with guarded():
        return _guarded(arguments)


def _guarded(arguments: Sequence[str] | None) -> int:
    try:
        from bench.cli.parser import build_parser

        options = build_parser().parse_args(arguments)
        return int(options.main(options))
    except BenchError as error:
        if hasattr(error, "signum"):  # asked to stop again, while a run was being stopped
            say_stopped()
            return error.exit_code
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say_stopped()
        return 130
    except BrokenPipeError:  # | head
        drop_output()
        return 0
    except Exception as error:
        if interrupted():  # an interrupt that became something else on its way here
            say_stopped()
            return 130
        if os.environ.get("BENCH_TRACEBACK"):
            raise
        print(f"error: {_in_one_line(error)}", file=sys.stderr)
        return 1


def _in_one_line(error: Exception) -> str:
    if gone := memory_is_gone(error):
        return gone
    if isinstance(error, OSError) and error.errno in _LIMITS:
        return f"{error.filename or 'standard output or a temporary file'}: {error.strerror}"
    text = " ".join(str(error).split())
    return (f"internal: {type(error).__name__}: {text} ({_last_place(error)}); this is a mistake of ours or of a "
            "plug-in; BENCH_TRACEBACK=1 shows where")  # fmt: skip


def _last_place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "unknown"
