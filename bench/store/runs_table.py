"""runs.csv: status, reason and times of every run. Times live here, so that results.csv has none.

wall_s adds up over all sessions of a run; the columns of training are sums over its stages (``bench.evaluate.speed``),
the memory is that of the stage that needs most.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.files import write_text_atomic
from bench.text import to_cell

NAME = "runs.csv"
COLUMNS = (
    "run", "seed", "method", "run_id", "status", "reason", "started_at", "wall_s", "train_s", "train_steps",
    "train_memory_mib", "ms_per_step", "images_per_s", "host_class", "torch", "python", "folder",
)  # fmt: skip


def write_runs_table(out: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write the table. lines: a run's status.json and what the comparison says of it. Raises RunError (disk)."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: to_cell(value) if isinstance(value, str) else value for name, value in line.items()})
    write_text_atomic(out / NAME, buffer.getvalue())
    return out / NAME
