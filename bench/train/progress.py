"""What a person sees while a stage trains: a live line on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.text import terminal
from bench.train.meter import Meter


class TrainingProgress:
    """Shows epoch, loss, accuracy, images/s and time left. ``enabled=False`` shows nothing."""

    def __init__(self, title: str, total_steps: int, *, enabled: bool = True, every: float = 30.0) -> None:
        self.title = title
        self.total = total_steps
        self.enabled = enabled
        self.every = every
        self._live: Progress | None = None
        self._started = self._shown = time.monotonic()
        self._first_step: int | None = None

    def __enter__(self) -> TrainingProgress:
        if self.enabled and sys.stderr.isatty():
            self._live = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"), TimeRemainingColumn(),
                console=terminal(stderr=True), transient=True, refresh_per_second=4,
            )  # fmt: skip
            self._task = self._live.add_task(self.title, total=self.total, state="")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, step: int, epoch: int, epochs: int, meter: Meter, images_per_s: float) -> None:
        """After each step; looks at the meter a few times a second at most."""
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._started = step, now
        if not self.enabled or now - self._shown < (0.5 if self._live is not None else self.every):
            return
        self._shown = now
        text = _state(meter.means(), images_per_s)
        if self._live is not None:
            self._live.update(self._task, completed=step, state=f"epoch {epoch + 1}/{epochs}  {text}")
        else:
            left = (now - self._started) / max(1, step - self._first_step) * (self.total - step)
            self._print(f"{self.title}  step {step}/{self.total}  {text}  {_duration(left)} left")

    def epoch(self, epoch: int, epochs: int, means: dict[str, float], images_per_s: float) -> None:
        """After each epoch: one line that stays."""
        if self.enabled:
            self._shown = time.monotonic()
            self._print(f"{self.title}  epoch {epoch + 1}/{epochs}  {_state(means, images_per_s)}")

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)


def _state(means: dict[str, float], images_per_s: float) -> str:
    words = [f"loss {means['loss']:.3f}"] if "loss" in means else []
    if "accuracy" in means:
        words.append(f"accuracy {means['accuracy']:.1f} %")
    if "val_top1" in means:
        words.append(f"validation {means['val_top1']:.1f} %")
    words.append(f"{images_per_s:,.0f} images/s")
    return "  ".join(words)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
