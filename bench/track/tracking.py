"""The trackers of one run: each is told everything once, and one that fails is switched off with a line."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.config.resolve import RunSpec
from bench.doors import in_one_line
from bench.errors import BenchError
from bench.files import write_json_atomic
from bench.track.base import TrackedRun, Tracker, describe
from bench.track.catalogue import require_packages, tracker_class
from bench.train.watch import Interrupted

__all__ = ["Tracking", "track_run"]

#: In the folder of a run: what its trackers were told.
STATE = "trackers.json"
#: Below the results folder: files of trackers, a folder for each.
FOLDER = "trackers"


class Tracking:
    """What a run tells its trackers. Without any it does nothing.

    What was told is stored in the run's folder before it is told: a process that is killed in between leaves a step
    out, but none is ever told again.
    """

    def __init__(self, title: str = "", state: Path | None = None) -> None:
        self._title = title
        self._path = state
        self._state = _read(state)
        self._open: dict[str, Tracker] = {}

    def open(self, name: str, spec: RunSpec, folder: Path) -> None:
        """Open the tracker of this name for a run. folder: for files of its own."""
        run = TrackedRun(
            comparison=spec.comparison, name=spec.folder, run=spec.run, label=spec.label, method=spec.method,
            seed=spec.seed, key=self._state["key"], continued=name in self._state["told"], config=describe(spec),
            folder=folder,
        )  # fmt: skip

        def begin() -> None:
            require_packages([name])
            self._open[name] = tracker_class(name)()
            self._store(name, {})
            self._open[name].open(run)

        self._try(name, "open", begin)

    def log(self, line: Mapping[str, Any]) -> None:
        """A line of the training curve: stage, step and the numbers of an epoch."""
        # earlier versions wrote lines without them
        stage, step = str(line.get("stage", "train")), int(line.get("step", 0))
        metrics = {key: value for key, value in line.items() if key not in ("stage", "step") and _is_number(value)}

        def tell(name: str) -> None:
            self._store(name, {stage: step})
            self._open[name].log(stage, step, metrics)

        for name in [*self._open]:
            if step > self._state["told"][name].get(stage, 0):
                self._try(name, "log", partial(tell, name))

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of the measured run."""
        digest = hashlib.sha256(json.dumps(rows, default=str, sort_keys=True).encode()).hexdigest()[:20]

        def tell(name: str) -> None:
            self._store(name, {}, digest)
            self._open[name].finish([dict(row) for row in rows])

        for name in [*self._open]:
            if self._state["rows"].get(name) != digest:
                self._try(name, "finish", partial(tell, name))

    def close(self, status: str) -> None:
        """The run has ended so."""
        for name, tracker in [*self._open.items()]:
            self._try(name, "close", partial(tracker.close, status))
        self._open.clear()

    def _store(self, name: str, steps: Mapping[str, int], rows: str | None = None) -> None:
        """Remember that a tracker was told this."""
        self._state["told"][name] = {**self._state["told"].get(name, {}), **steps}
        if rows is not None:
            self._state["rows"][name] = rows
        if self._path is not None:
            write_json_atomic(self._path, self._state)

    def _try(self, name: str, hook: str, call: Callable[[], None]) -> None:
        """Whatever a tracker does, the run goes on."""
        try:
            call()
        except BaseException as error:
            if isinstance(error, (Interrupted, KeyboardInterrupt)):
                raise
            self._open.pop(name, None)
            why = str(error) if isinstance(error, BenchError) else f"{hook} raised {in_one_line(error)}"
            said = f"warning: {self._title}: tracker '{name}' is switched off: {why}"
            print(said, file=sys.stderr, flush=True)


def track_run(spec: RunSpec, out: Path, path: Path) -> Tracking:
    """The trackers that a run asks for, opened. out: the results folder; path: that of the run."""
    if not spec.trackers:
        return Tracking()
    tracking = Tracking(f"{spec.run} seed {spec.seed}", path / STATE)
    for name in spec.trackers:
        tracking.open(name, spec, out / FOLDER / name)
    return tracking


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read(path: Path | None) -> dict[str, Any]:
    """What trackers were told earlier; a new key if there is nothing, or nothing that can be read."""
    fresh: dict[str, Any] = {"key": secrets.token_hex(6), "told": {}, "rows": {}}
    try:
        value = json.loads(path.read_text()) if path is not None else fresh
    except (OSError, ValueError):
        return fresh
    return value if _fits(value) else fresh


def _fits(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("key"), str) or not isinstance(value.get("rows"), dict):
        return False
    told = value.get("told")
    steps = list(told.values()) if isinstance(told, dict) else [None]
    return all(isinstance(one, dict) and all(isinstance(step, int) for step in one.values()) for one in steps)
