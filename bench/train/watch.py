"""When to stop: signals and time limits, noticed between two steps so that what was done is kept."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bench.errors import RunError

#: A signal within this time of the first is the same wish, sent twice (to a group and to its members; seconds).
ECHO = 1.0
#: A step that takes longer than this is broken off rather than waited for (seconds).
PATIENCE = 1.5


class Interrupted(RunError):
    """A signal asked the run to stop."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.exit_code = 128 + signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


class TimeIsUp(RunError):
    """The run took longer than ``timeout_minutes``."""


class Watch:
    """Asked between steps: raises ``Interrupted`` or ``TimeIsUp`` through ``check``."""

    def __init__(self, timeout_minutes: float | None = None) -> None:
        self.signum: int | None = None
        self.timeout_minutes = timeout_minutes
        self.excused = 0.0
        self._asked_at = 0.0
        self._deadline = None if timeout_minutes is None else time.monotonic() + 60 * timeout_minutes

    @property
    def stops(self) -> bool:
        return self.signum is not None or (self._deadline is not None and time.monotonic() > self._deadline)

    def check(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)
        if self.stops:
            raise TimeIsUp(f"took longer than timeout_minutes: {self.timeout_minutes:g}")

    def excuse(self, seconds: float) -> None:
        """Time spent waiting for somebody else: it counts neither towards the limit nor as training."""
        self.excused += seconds
        if self._deadline is not None:
            self._deadline += seconds

    @staticmethod
    def be_patient() -> None:
        """Whoever does the work was told to stop and is waited for: do not break off after ``PATIENCE``."""
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signum is not None:
            if now - self._asked_at < ECHO:
                return
            raise Interrupted(signum)  # asked again: stop where we are
        self.signum, self._asked_at = signum, now
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        raise Interrupted(self.signum or signum)

    @contextmanager
    def listening(self) -> Iterator[Watch]:
        """Take SIGINT and SIGTERM for the length of the block (main thread only, else nothing is taken)."""
        wanted = {signal.SIGINT: self._on_signal, signal.SIGTERM: self._on_signal}
        if hasattr(signal, "SIGALRM"):
            wanted[signal.SIGALRM] = self._on_alarm
        previous = {}
        try:
            for number, handler in wanted.items():
                previous[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread: a notebook's worker, say
            pass
        try:
            yield self
        finally:
            if previous:
                self.be_patient()
            for number, old in previous.items():
                signal.signal(number, old)
