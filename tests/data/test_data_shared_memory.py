"""Shared memory that is full or read-only: one line that says what to do, and nothing of it without processes."""

from __future__ import annotations

import errno
import multiprocessing.synchronize
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.reading import Jobs, Reader, read_batches
from bench.errors import DataError


class Grey:
    """Eight grey pictures."""

    labels = np.arange(8)

    def image(self, sample: int) -> torch.Tensor:
        return torch.full((3, 4, 4), sample / 8)

    def where(self, sample: int) -> str:
        return f"picture {sample}"


def _read(workers: int) -> list[Any]:
    jobs = Jobs(np.arange(8), None, [slice(0, 4), slice(4, 8)], 4)
    return list(read_batches(Grey(), lambda picture: picture, jobs, workers=workers, device=torch.device("cpu")))  # type: ignore[arg-type]


def _read_only(*_: Any) -> Any:
    raise RuntimeError("unable to open shared memory object </torch_1_2_0> in read-write mode: Read-only file "
                       "system (30)")  # fmt: skip


def _full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_tensors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.Tensor, "share_memory_", _read_only)


def _no_semaphores(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(multiprocessing.synchronize.SemLock, "__init__", _full)


@pytest.mark.parametrize("broken", [_no_tensors, _no_semaphores])
def test_processes_that_cannot_start_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    with pytest.raises(DataError, match=r"/dev/shm.*recipe.workers: 0") as error:
        _read(workers=1)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_worker_without_room_hands_over_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the thread in which torch shares tensors otherwise, the error would leave the reader waiting for ever."""
    monkeypatch.setattr("bench.data.reading.get_worker_info", lambda: type("Info", (), {"id": 0}))
    monkeypatch.setattr(torch.Tensor, "share_memory_", _read_only)
    reader = Reader(Grey(), lambda picture: picture, torch.zeros(1, 2, dtype=torch.int64))  # type: ignore[arg-type]
    handed = reader[(np.arange(4), None)]
    assert isinstance(handed, str)
    assert "recipe.workers: 0" in handed


def test_without_processes_there_is_no_need_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_tensors(monkeypatch)
    assert [len(batch[2]) for batch in _read(workers=0)] == [4, 4]
