"""This process and its signals, from its first line on: nothing of ours outlives its parent, and Ctrl-C is one line.

Imports nothing that takes time: whoever calls it has not imported torch yet.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """If the kernel can do it (Linux): SIGKILL for this process as soon as its parent is gone. parent: its process
    number as the parent gave it, so that a parent that died before this call is noticed too."""
    expected = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if hasattr(os, "getppid") and os.getppid() != expected:
        os._exit(1)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and in a process that is started inside until ``ignore_interrupts``."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """For a process whose parent decides when it ends: Ctrl-C reaches everyone in the terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def own_command() -> None:
    """For the process of a command, before anything else: Ctrl-C ends it with one line and exit code 130, also in the
    middle of an import and when pressed again; closed standard streams lead nowhere instead of into our files."""
    _open_standard_streams()
    if os.environ.get("TORCHELASTIC_RUN_ID"):  # a rank ends with its torchrun, however that ended
        die_with_parent()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _Interrupts())
    sys.unraisablehook = _quit_if_interrupted


def say_stopped() -> None:
    """The one line, from the first process of a run."""
    if int(os.environ.get("RANK") or 0) == 0:
        with suppress(OSError):
            os.write(2, b"stopped; the same command continues\n")


class _Interrupts:
    """Raises KeyboardInterrupt the first time. Ends the process at once the second time, and while modules are being
    imported: an exception there is swallowed or turned into others, and there is nothing to clean up yet."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.asked or _imports(frame):
            say_stopped()
            os._exit(128 + signum)
        self.asked = True
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _quit_if_interrupted(unraisable: Any) -> None:
    """An interrupt that was raised where Python ignores exceptions (a destructor, say) would be lost, with a trace."""
    signum = getattr(unraisable.exc_value, "signum", None)
    if signum is None and unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    say_stopped()
    os._exit(128 + (signum or signal.SIGINT))


def _open_standard_streams() -> None:
    """A file that is opened while standard output is closed gets its number: what is printed would end up in it."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            if getattr(sys, name) is None:
                setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def interrupted() -> bool:
    """Whether Ctrl-C was pressed, whatever its exception has become on the way."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(handler, _Interrupts) and handler.asked


def leave_command(code: int) -> int:
    """The exit code of a process whose command has ended: what is still to be printed is printed now, so that a reader
    who has left (``| head``) changes nothing and a full disk behind standard output is an error of one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        if not isinstance(error, BrokenPipeError):
            print(f"error: cannot write to standard output: {error.strerror}", file=sys.stderr)
            return code or 1
    return code


def drop_output() -> None:
    """Standard output leads nowhere from here on: whoever read it is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
