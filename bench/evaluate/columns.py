"""The long results table: what its columns mean, how it is written and read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from bench.errors import RunError
from bench.files import write_text_atomic
from bench.store.reading import read_text
from bench.text import from_cell, to_cell

#: Columns of a method's published way of counting carry this prefix, then the method's own name of it.
LEGACY = "legacy_"


class Row(TypedDict, total=False):
    """One operating point of one policy of one run and seed. Numbers are None where there are none."""

    protocol_version: int  # rows of different versions must not be compared
    comparison: str  # name of the comparison file
    run: str  # name of the run in it
    run_id: str  # hash of everything that can change the run's numbers
    label: str  # how plots call the run
    dataset: str
    split_hash: str  # which images were training, validation and test
    protocol: str  # holdout: choices on a validation part; published: whole training set, no choices
    seed: int
    method: str
    backbone: str
    stage: str  # the training stage whose network was measured
    policy: str  # how the operating point of each image was picked; see docs/protocols.md
    point: str  # the operating point, where all images run the same one
    default: str  # yes: the method's default operating point
    setting: float | None  # the policy's free parameter (threshold, ratio, share); see the policy
    thresholds: str  # what was fitted on the validation part, exit by exit: "0.93 0.8"
    chosen_on: str  # the split that fitted the policy's thresholds: validation, or nothing was chosen
    risk_target: float | None  # of a policy with a promise: the largest risk that it allows, a share of the images
    risk_delta: float | None  # how probable a broken promise may be; empty if the promise is about the mean
    risk_realised: float | None  # the risk on test
    split: str  # the split that the numbers are of: test
    n: int  # images
    top1: float | None  # percent
    top1_lo: float | None  # percent, lower end of the interval
    top1_hi: float | None  # percent, upper end
    interval: str  # what the interval is about
    top5: float | None  # percent
    nll: float | None  # mean negative log-likelihood, nats
    ece: float | None  # expected calibration error, percent, 15 bins
    macs: float | None  # mean over images of MACs: convolution, linear, matmul, attention, LSTM
    macs_p95: float | None  # the smallest cost that 95 % of the images do not exceed
    macs_max: float | None  # the most expensive image
    adaptive: str  # yes: the cost depends on the image
    macs_elementwise: float | None  # mean of norms, activations, pooling: never part of macs
    macs_fvcore: float | None  # mean as fvcore counts, norms and pooling included
    params: int | None  # parameters of the whole network
    status: str  # done, failed, diverged, timeout, interrupted, skipped, pending
    reason: str  # why, where not done
    torch: str
    python: str
    device: str  # cpu or cuda
    host_class: str  # kind of machine
    amp: str  # precision of the evaluation: off, bf16, fp16


COLUMNS: tuple[str, ...] = tuple(Row.__annotations__)
#: Columns that tables written before they existed may lack.
ADDED = frozenset({"thresholds", "risk_target", "risk_delta", "risk_realised"})
#: Columns that a table has only if one of its rows has a value there.
ON_DEMAND = frozenset({"risk_target", "risk_delta", "risk_realised"})
INTEGERS = frozenset({"protocol_version", "seed", "n", "params"})
NUMBERS = frozenset({
    "setting", "top1", "top1_lo", "top1_hi", "top5", "nll", "ece", "macs", "macs_p95", "macs_max",
    "macs_elementwise", "macs_fvcore", "risk_target", "risk_delta", "risk_realised",
})  # fmt: skip

#: What a row of a run that is done always has.
NEEDED = ("n", "top1", "top5", "nll", "macs", "macs_p95", "macs_max", "params")


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV: fixed order of columns, legacy columns last by name; equal rows give equal bytes."""
    rows = list(rows)
    legacy = sorted({name for row in rows for name in row if name.startswith(LEGACY)})
    unknown = {name for row in rows for name in row} - set(COLUMNS) - set(legacy)
    if unknown:
        raise ValueError(f"unknown columns: {', '.join(sorted(unknown))}")
    used = [name for name in COLUMNS if name not in ON_DEMAND or any(row.get(name) is not None for row in rows)]
    write_table(path, [*used, *legacy], rows)


def write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write any table as CSV: empty for None and nan, numbers as the shortest text that reads back equal, an apostrophe
    before texts that a spreadsheet would take for formulas (``bench.text.from_cell`` undoes it)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([format_value(row.get(name)) for name in columns])
    write_text_atomic(path, buffer.getvalue())


def keep_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path | None:
    """Write a table that has rows; without any, remove the file of an earlier report. Returns what was written."""
    if not rows:
        path.unlink(missing_ok=True)
        return None
    write_table(path, columns, rows)
    return path


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Read rows with their types: None for an empty number. RunError where it is no such table."""
    try:
        with io.StringIO(read_text(Path(path)), newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            missing = [name for name in COLUMNS if name not in names and name not in ADDED]
            if missing:
                raise RunError(f"{path} is no results table: no column {', '.join(missing[:3])}")
            unknown = [name for name in names if name not in COLUMNS and not name.startswith(LEGACY)]
            if unknown:
                raise RunError(f"{path} has an unknown column '{unknown[0][:40]}'; delete it and run again")
            blank = {name: _parse(name, "") for name in ADDED - set(names)}
            rows = [{**{name: _parse(name, row[name]) for name in names}, **blank} for row in reader]
    except (csv.Error, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); delete it and run again") from error
    if any(row["status"] == "done" and row[name] is None for row in rows for name in NEEDED):
        raise RunError(f"{path} is damaged (a row has no number); delete it and run again")
    return rows


def format_value(value: Any) -> str:
    """One cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(float(value))
    return to_cell(str(value))


def _parse(name: str, text: str | None) -> Any:
    if text is None:
        raise ValueError("a line is cut short")
    if name in INTEGERS:
        return int(text) if text else None
    if name in NUMBERS or name.startswith(LEGACY):
        return parse_number(text)
    return from_cell(text)


def parse_number(text: str) -> float | None:
    """A cell's number, None for an empty one; ValueError for one that is not finite."""
    value = float(text) if text else None
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
