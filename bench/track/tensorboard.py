"""TensorBoard: event files below ``trackers/tensorboard``, a folder for each run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from bench.track.base import TrackedRun, Tracker, flat, headline

_COLUMNS = ("policy", "point", "setting", "top1", "top1_lo", "top1_hi", "macs", "chosen_on")


class TensorBoard(Tracker):
    name = "tensorboard"
    help = "TensorBoard: event files in the results folder; show them with `tensorboard --logdir RESULTS/trackers`"
    package, install = "tensorboard", "depthbench[tensorboard]"

    def open(self, run: TrackedRun) -> None:
        # torch's writer needs the package tensorboard
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / run.name
        if not run.continued:
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier training that was begun anew
        self._writer = SummaryWriter(str(folder))
        if not run.continued:
            self._writer.add_text("configuration", _table(("key", "value"), flat(run.config).items()), 0)
        self._writer.flush()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(f"{stage}/{key}", value, step)
        self._writer.flush()  # a step that counts as told must survive the process

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for key, value in headline(rows).items():
            self._writer.add_scalar(f"test/{key}", value, 0)
        self._writer.add_text("results", _table(_COLUMNS, ([row.get(name) for name in _COLUMNS] for row in rows)), 0)

    def close(self, status: str) -> None:
        self._writer.close()


def _table(columns: Sequence[str], lines: Any) -> str:
    """Markdown, which TensorBoard draws."""
    cells = [columns, ["---"] * len(columns), *([_cell(value) for value in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return text.replace("|", "\\|")
