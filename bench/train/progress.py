"""What a person sees while a stage trains: a live line on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from bench.text import terminal
from bench.train.meter import Meter

#: Columns of a bar, and of a terminal that has room for one.
_BAR, _WIDE = 20, 120


class TrainingProgress:
    """Shows epoch, loss, accuracy, images/s and time left. ``enabled=False`` shows nothing."""

    def __init__(
        self, title: str, total_steps: int, *, enabled: bool = True, every: float = 30.0, console: Console | None = None
    ) -> None:
        self.title = title
        self.total = total_steps
        self.enabled = enabled
        self.every = every
        self._console = console or terminal(stderr=True)
        self._live: Progress | None = None
        self._started = self._shown = time.monotonic()
        self._first_step: int | None = None

    def __enter__(self) -> TrainingProgress:
        if self.enabled and self._console.is_terminal:
            bar = [BarColumn(_BAR)] if self._console.width >= _WIDE else []
            line = _Line(self._console.width - (_BAR + 1 if bar else 0))
            self._live = Progress(*bar, line, console=self._console, transient=True, refresh_per_second=4)
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


class _Line(ProgressColumn):
    """Title, step, time left and state in one line: step and time left are never cut, then the stage counts most."""

    max_refresh = 0.5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def render(self, task: Task) -> Text:
        left = "-:--" if task.time_remaining is None else _duration(task.time_remaining)
        steps = f"  {task.completed:.0f}/{task.total or 0:.0f}  {left} left"
        title = _shorten(task.description, self.width - len(steps))
        state = _shorten_end(f"  {task.fields['state']}", self.width - len(title) - len(steps))
        return Text(f"{title}{steps}{state}", no_wrap=True)


def _shorten_end(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…" if room > 3 else ""


def _shorten(title: str, room: int) -> str:
    """A title without its middle: the end names stage and seed."""
    if len(title) <= room:
        return title
    end = max(0, (room - 1) * 2 // 3)
    return f"{title[: max(0, room - 1 - end)]}…{title[len(title) - end :]}"


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
