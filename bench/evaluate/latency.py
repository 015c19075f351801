"""The table of measured times, ``latency.csv`` in the folder of a comparison: its columns, reading and writing.

Needs no torch: reports and budgets in milliseconds read it where it is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from bench.errors import RunError
from bench.evaluate.columns import parse_number, write_table
from bench.store.reading import Damaged, read_text
from bench.store.sealed import read_sealed, write_sealed
from bench.text import from_cell

if TYPE_CHECKING:
    from bench.evaluate.results import Results

NAME = "latency.csv"
#: The same rows with a checksum: what is read back.
SEALED = "latency.json"


class LatencyRow(TypedDict, total=False):
    """One run and seed at one operating point and batch size. Numbers are None where there are none."""

    run: str
    label: str
    method: str
    seed: int
    policy: str  # fixed or anytime: a point by itself; else the policy that decided image by image
    point: str  # the operating point, empty under a policy
    setting: float | None  # the policy's free parameter
    batch: int  # images in a batch
    device: str  # cpu or cuda
    dtype: str  # of convolutions and products: float32, or the autocast type of the run's recipe
    threads: int  # CPU threads
    rounds: int  # timed batches
    images: int  # different test images in them
    ms_median: float  # of a batch, over rounds
    ms_p95: float  # of a batch, over rounds
    ms_per_image: float  # mean over the different batches of each one's median, by batch size
    macs: float  # mean of the images timed
    params: int  # of the whole network
    memory_mib: float | None  # weights, input and the most that is alive while executing
    energy_mj: float | None  # millijoules per image, whole GPU, idle power included
    agreement: float | None  # share of images whose executed prediction is the record's
    torch: str
    host_class: str  # kind of machine
    run_id: str  # of the run that was timed: rows of an earlier version of the run do not count


COLUMNS: tuple[str, ...] = tuple(LatencyRow.__annotations__)
_INTEGERS = frozenset({"seed", "batch", "threads", "rounds", "images", "params"})
_NUMBERS = frozenset({
    "setting", "ms_median", "ms_p95", "ms_per_image", "macs", "memory_mib", "energy_mj", "agreement",
})  # fmt: skip
_EMPTY = frozenset({"setting", "memory_mib", "energy_mj", "agreement"})
#: What was measured again replaces what was measured before.
SAME = ("run", "seed", "batch", "device", "threads", "host_class")
#: Times of different machines, devices or numbers of threads are never put together.
SETUP = ("device", "host_class", "threads")
_MEANS = ("macs", "ms_median", "ms_p95", "ms_per_image", "memory_mib", "energy_mj")


def read_latency(out: Path) -> list[dict[str, Any]]:
    """Rows of the times in a results folder, with their types; empty if nothing was measured. RunError if they are
    damaged."""
    path = out / SEALED
    if not path.is_symlink() and not path.exists():
        return _read_table(out / NAME)
    try:
        stored = read_sealed(path).get("rows")
        if not isinstance(stored, list) or not all(_is_row(row) for row in stored):
            raise Damaged(f"{path} is damaged (its rows cannot be read)")
    except Damaged as error:
        raise Damaged(f"{error}; delete it and measure again (`bench latency FILE`)") from None
    return stored


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and set(row) == set(COLUMNS) and all(_is_cell(name, row[name]) for name in COLUMNS)


def _is_cell(name: str, value: Any) -> bool:
    if value is None:
        return True
    kind = int if name in _INTEGERS else (int, float) if name in _NUMBERS else str
    return isinstance(value, kind) and not isinstance(value, bool)


def _read_table(path: Path) -> list[dict[str, Any]]:
    """latency.csv of a folder that was made before the times had a checksum."""
    if not path.is_symlink() and not path.exists():
        return []
    try:
        with io.StringIO(read_text(path), newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise RunError(f"{path} is no table of times (no column {missing[0]}); delete it, measure again")
            rows = [{name: _parse(name, row[name]) for name in COLUMNS} for row in reader]
            if any(row[name] is None for row in rows for name in (_INTEGERS | _NUMBERS) - _EMPTY):
                raise ValueError("a number is missing")
            return rows
    except (csv.Error, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); delete it, measure again") from error


def write_latency(out: Path, rows: Iterable[Mapping[str, Any]], known: Iterable[str]) -> Path:
    """Write rows at once, beside older ones of other runs, batch sizes, devices, threads or machines.

    known: run ids of the comparison; rows of others are dropped. Returns the table.
    """
    rows = list(rows)
    measured = {tuple(row[name] for name in SAME) for row in rows}
    current = set(known)
    old = [
        row for row in read_latency(out)
        if row["run_id"] in current and tuple(row[name] for name in SAME) not in measured
    ]  # fmt: skip
    return store_latency(out, [*old, *rows])


def store_latency(out: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write exactly these rows, with a checksum, and the table of them; without rows neither is left."""
    if rows:
        write_sealed(out / SEALED, {"rows": [{name: row[name] for name in COLUMNS} for row in rows]})
        write_table(out / NAME, COLUMNS, rows)
    else:
        for name in (SEALED, NAME):
            (out / name).unlink(missing_ok=True)
    return out / NAME


def _parse(name: str, text: str | None) -> Any:
    if text is None:
        raise ValueError("a line is cut short")
    if name in _INTEGERS:
        return int(text) if text else None
    if name in _NUMBERS:
        return parse_number(text)
    return from_cell(text)


def mean_times(results: Results) -> list[dict[str, Any]]:
    """Rows of latency.csv of the runs as they are now: means over seeds, the worst agreement; ``adaptive``: cost
    depends on the image."""
    current = {(run.run, run.seed): run for run in results.runs if run.done}
    adaptive = {(run.run, row["policy"]) for run in results.runs for row in run.rows if row["adaptive"] == "yes"}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in results.times:
        run = current.get((row["run"], row["seed"]))
        if run is not None and run.run_id == row["run_id"]:
            key = (*(row[name] for name in (*SETUP, "batch", "run", "policy", "point")), row["setting"])
            groups.setdefault(key, []).append({**row, "label": run.label})
    return [
        {**same[0], **{name: _mean([row[name] for row in same]) for name in _MEANS},
         "agreement": min((row["agreement"] for row in same if row["agreement"] is not None), default=None),
         "adaptive": (same[0]["run"], same[0]["policy"]) in adaptive}
        for same in groups.values()
    ]  # fmt: skip


def _mean(values: Sequence[float | None]) -> float | None:
    """Of what was measured."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
