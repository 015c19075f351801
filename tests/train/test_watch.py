"""Limits and claims: who waits for somebody else does not pay for it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from bench.launch.claim import claim
from bench.train.watch import TimeIsUp, Watch


def test_excused_time_moves_the_limit() -> None:
    watch = Watch(timeout_minutes=1e-9)
    time.sleep(0.001)
    assert watch.stops
    watch.excuse(60)
    assert not watch.stops
    assert watch.excused == 60


def test_a_stage_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    held, leave, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with claim(tmp_path / "stage", Watch()):
            held.set()
            assert leave.wait(30)
            order.append("first")

    def second() -> None:
        with claim(tmp_path / "stage", watch):
            order.append("second")

    watch = Watch(timeout_minutes=1)
    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert held.wait(30)
    threads[1].start()
    deadline = time.monotonic() + 30
    while not watch.excused and time.monotonic() < deadline:
        time.sleep(0.01)
    leave.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second"]
    assert watch.excused > 0


def test_waiting_for_a_stage_ends_when_the_run_is_stopped(tmp_path: Path) -> None:
    watch = Watch(timeout_minutes=1e-9)
    time.sleep(0.001)
    with claim(tmp_path, Watch()), pytest.raises(TimeIsUp), claim(tmp_path, watch):
        pytest.fail("it is held")
