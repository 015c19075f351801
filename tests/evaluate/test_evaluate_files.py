"""bench.files: a file is whole or absent, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import RunError
from bench.files import atomic_path, read_text, remove_leftovers, write_json_atomic, write_text_atomic


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write_half_then_raise(target: Path, error: Exception) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error


def test_written_whole_and_nothing_else_left(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "a.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


def test_error_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomic(target, "old")
    with pytest.raises(ZeroDivisionError):
        write_half_then_raise(target, ZeroDivisionError())
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_full_disk_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(RunError, match=r"cannot write .*a\.txt: No space left") as caught:
        write_half_then_raise(target, full)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_text_atomic(tmp_path / "file" / "a.txt", "x")


def test_other_os_errors_are_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "missing").read_text()


def test_json_refuses_nan_and_keeps_the_order(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json_atomic(target, {"b": 1, "a": "é"})
    assert target.read_text("utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    with pytest.raises(ValueError):
        write_json_atomic(target, {"a": float("nan")})
    assert '"b": 1' in target.read_text("utf-8")


def test_killed_writer_leaves_only_a_leftover_that_is_swept(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomic(target, "old")
    code = (
        "import os, signal, sys\nfrom bench.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert target.read_text() == "old"
    assert len(names(tmp_path)) == 2
    assert len(remove_leftovers(tmp_path)) == 1
    assert names(tmp_path) == ["a.txt"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomic(target, "x")
    plain = tmp_path / "b.txt"
    plain.write_text("x")
    assert target.stat().st_mode == plain.stat().st_mode


def test_text_that_is_not_utf8_is_written_escaped(tmp_path: Path) -> None:
    """A file name's byte that is no text arrives as an escape, and from JSON it comes back as it was."""
    write_text_atomic(tmp_path / "a.txt", "caf\udce9 ü")
    assert (tmp_path / "a.txt").read_text("utf-8") == "caf\\udce9 ü"
    write_json_atomic(tmp_path / "a.json", {"reason": "caf\udce9 ü"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"reason": "caf\udce9 ü"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_of_users_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("ä b\n", encoding)
    assert read_text(tmp_path / "a.txt") == "ä b\n"


def test_bytes_that_are_not_text_name_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xe9\n")
    with pytest.raises(ValueError, match="line 3 is not UTF-8 text"):
        read_text(tmp_path / "a.txt")
