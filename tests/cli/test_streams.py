"""Closed and full standard streams, readers who leave, memory that is gone: one line or nothing, and the exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import _in_one_line
from bench.launch.folder import one_line

NAMED = [sys.executable, "-m", "bench", "list", "methods"]


def _shell(words: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m bench list methods {words}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(words: str) -> None:
    done = _shell(words)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_that_is_printed_lands_in_a_file_of_ours(tmp_path: Path) -> None:
    """Without a standard output the first file that is opened would get its number."""
    code = "import os; from bench.process import own_command; own_command(); open('x', 'w'); os.write(1, b'printed')"
    done = subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" >&- 2>&-'], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output() -> None:
    done = _shell("> /dev/full")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(os.strerror(errno.ENOSPC))


def _unread(command: list[str]) -> tuple[int, bytes]:
    """Exit code and standard error of a command whose standard output nobody reads."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    return process.wait(), process.stderr.read()


def test_a_reader_who_leaves_is_no_error() -> None:
    assert _unread(NAMED) == (0, b"")


def test_a_table_for_a_reader_who_has_left_is_no_error() -> None:
    """rich ends the process by itself, with exit code 1, unless told not to."""
    code = (
        "import os\nfrom bench.text import terminal\n"
        "try: terminal().print('x' * 100_000)\n"
        "except BrokenPipeError: os._exit(7)\n"
    )
    assert _unread([sys.executable, "-c", code]) == (7, b"")


@pytest.mark.parametrize("error", [
    MemoryError(), ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    ImportError("IMPORTANT: PLEASE\nREAD\n\nOriginal error was: libgfortran.so: failed to map segment"),
])  # fmt: skip
def test_memory_that_is_gone_is_said_in_one_line(error: Exception) -> None:
    for text in (_in_one_line(error), one_line(error)):
        assert text.startswith("out of memory: ")
        assert "\n" not in text
        assert "IMPORTANT" not in text
