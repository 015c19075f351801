"""One process at a time, with locks and on a file system that has none."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import RunError
from bench.launch import folder
from bench.launch.claim import claim
from bench.launch.folder import hold
from bench.locks import is_held, locked
from bench.train.watch import TimeIsUp, Watch


class Busy(Exception):
    pass


def _busy(holder: str) -> None:
    raise Busy(holder)


def _no_locks(handle: object, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.fixture(params=["locks", "ENOLCK", "Windows"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system with locks, one whose file system has none, one without fcntl."""
    if request.param == "ENOLCK":
        monkeypatch.setattr("fcntl.flock", _no_locks)
    if request.param == "Windows":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    return str(request.param)


def test_one_at_a_time_whatever_the_system(tmp_path: Path, system: str) -> None:
    path = tmp_path / ".lock"
    assert not is_held(path)
    with locked(path, _busy, "bench run") as descriptor:
        assert (descriptor is not None) == (system == "locks")
        assert is_held(path)
        with pytest.raises(Busy, match=f"process {os.getpid()} on .* \\(bench run, since "), locked(path, _busy):
            pytest.fail("it is held")
    assert not is_held(path)
    assert os.listdir(tmp_path) == [".lock"]
    with locked(path, _busy):
        pass


def test_a_second_bench_run_is_refused_and_the_first_was_warned(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folder, "_PATIENCE", 0.0)
    with hold(tmp_path), pytest.raises(RunError, match=f"in use by process {os.getpid()} on"), hold(tmp_path):
        pytest.fail("it is held")
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == (0 if system == "locks" else 1)
    assert all("no file locks" in line for line in warned)


def test_a_stage_is_claimed_by_one_whatever_the_system(tmp_path: Path, system: str) -> None:
    with claim(tmp_path, Watch()), pytest.raises(TimeIsUp), claim(tmp_path, Watch(timeout_minutes=-1.0)):
        pytest.fail("it is held")


_HOLD = """
import errno, fcntl, os, signal, sys
from pathlib import Path
from bench.locks import locked
def none(*_): raise OSError(errno.ENOLCK, "none")
fcntl.flock = none
with locked(Path(sys.argv[1]), print, "bench run"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_what_a_killed_process_left_in_place_of_a_lock_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    subprocess.run([sys.executable, "-c", _HOLD, str(path)], check=False)
    monkeypatch.setattr("fcntl.flock", _no_locks)
    held = tmp_path / ".lock.held"
    assert held.exists()
    assert not is_held(path)
    with locked(path, _busy):
        assert is_held(path)
    assert not held.exists()


@pytest.mark.parametrize(("host", "pid", "started"), [
    ("elsewhere", "1", "1"),  # of another machine nothing can be known
    (socket.gethostname(), "1", ""),  # made on a system that does not say when a process started
])  # fmt: skip
def test_a_process_that_may_be_alive_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, pid: str, started: str
) -> None:
    monkeypatch.setattr("fcntl.flock", _no_locks)
    (tmp_path / ".lock").touch()
    held = tmp_path / ".lock.held"
    held.write_text(f"process {pid} on {host}\n{host}\n{pid}\n{started}\n")
    assert is_held(tmp_path / ".lock")
    with pytest.raises(Busy, match=f"process 1 on {host} .*delete .*held"), locked(tmp_path / ".lock", _busy):
        pytest.fail("it is held")


def test_another_process_with_the_number_of_a_dead_one_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", _no_locks)
    host = socket.gethostname()
    (tmp_path / ".lock.held").write_text(f"process {os.getpid()}\n{host}\n{os.getpid()}\n12345\n")
    with locked(tmp_path / ".lock", _busy):
        pass


def test_the_package_imports_without_fcntl() -> None:
    """As on Windows: no module needs it to be imported."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import bench.launch.session, bench.launch.claim, bench.launch.folder, bench.data.opening, bench.cli.parser\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
