"""Reading a results folder: the comparison, its runs in file order, what became of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.data.fingerprint import read_fingerprint
from bench.errors import RunError
from bench.evaluate.columns import read_rows
from bench.evaluate.measured import Measured, read_measured
from bench.evaluate.rows import failed_row
from bench.files import read_json_lines
from bench.locks import ABANDONED, LOCK, is_held
from bench.text import visible, visible_values


@dataclass(frozen=True)
class RunResult:
    """One run of one seed.

    status: "done" only where its rows could be read. curves: training metrics, one dict per epoch, stages in
    the order in which they were trained. facts: the whole status.json. spec: the resolved run. group, factors,
    published: what the file says of the run for comparing. measured: None where the records were not kept. base:
    the run that an ablation varied to make this one (itself where it is the base combination).
    """

    run: str
    label: str
    method: str
    seed: int
    run_id: str
    folder: Path
    status: str
    reason: str
    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    factors: dict[str, str] = field(default_factory=dict)
    published: list[dict[str, Any]] = field(default_factory=list)
    measured: Measured | None = None
    base: str | None = None

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def tested_on(self) -> str:
        """Digest of the images in the test set, '' if it was measured before there were any."""
        data = read_fingerprint(self.facts.get("data"))
        return data.test.digest if data is not None else ""


@dataclass(frozen=True)
class Results:
    """A whole comparison. budgets: as the file has them (``bench.config.comparing.parse_budget``). ablation:
    ``{"sections": [{"design", "axes": {axis: levels}, "base": {axis: level}}]}``, empty where nothing is varied."""

    out: Path
    name: str
    title: str | None
    protocol: str
    dataset: str
    protocol_version: int
    confidence_level: float
    runs: list[RunResult]
    reference: str | None = None
    budgets: tuple[float | str, ...] = ()
    ablation: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All rows in file order; a run without numbers has one that says why."""
        return [row for run in self.runs for row in run.rows]

    @property
    def heading(self) -> str:
        return self.title or self.name

    def failures(self) -> list[dict[str, str]]:
        """Runs without numbers, those that ended alike together: label, seeds ("seeds 0, 1"), status, reason."""
        alike: dict[tuple[str, str, str], list[str]] = {}
        for run in self.runs:
            if not run.done:
                alike.setdefault((run.label, run.status, run.reason), []).append(str(run.seed))
        return [
            {"label": label, "status": status, "reason": reason,
             "seeds": f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"}
            for (label, status, reason), seeds in alike.items()
        ]  # fmt: skip

    def by_name(self) -> dict[str, list[RunResult]]:
        """Runs by name, in file order, each with its seeds."""
        grouped: dict[str, list[RunResult]] = {}
        for run in self.runs:
            grouped.setdefault(run.run, []).append(run)
        return grouped


def read_results(out: Path) -> Results:
    """Read the folder of a comparison. RunError where it is none; a damaged run is a failed run."""
    path = out / "comparison.json"
    try:
        comparison = visible_values(json.loads(path.read_text("utf-8")))
        entries = comparison["runs"]
        busy = is_held(out / LOCK)
        runs = [_read_run(out, comparison, entry, busy) for entry in entries]
    except OSError as error:
        raise RunError(f"{out} holds no results of a comparison (comparison.json: {error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {error}); run the comparison again") from error
    return Results(
        out,
        str(comparison.get("name") or out.name),
        comparison.get("title"),
        str(comparison.get("protocol") or ""),
        str(comparison.get("data") or ""),
        int(comparison.get("protocol_version") or 0),
        float(comparison.get("confidence_level") or 0.95),
        runs,
        comparison.get("reference"),
        tuple(comparison.get("budgets") or ()),
        dict(comparison.get("ablation") or {}),
    )


def _read_run(out: Path, comparison: dict[str, Any], entry: dict[str, Any], busy: bool) -> RunResult:
    folder = out / str(entry["folder"])
    facts, spec = _read_json(folder / "status.json"), _read_json(folder / "spec.json")
    status, reason = str(facts.get("status") or "pending"), str(facts.get("reason") or "")
    if status == "running" and not busy:
        status, reason = "interrupted", ABANDONED
    known: dict[str, Any] = {
        "protocol_version": comparison.get("protocol_version"), "comparison": comparison.get("name"),
        "run": str(entry["run"]), "run_id": str(entry.get("run_id") or ""),
        "label": str(entry.get("label") or entry["run"]), "dataset": comparison.get("data") or "",
        "protocol": comparison.get("protocol") or "", "seed": int(entry["seed"]), "method": str(entry["method"]),
        "torch": str(facts.get("torch") or ""), "python": str(facts.get("python") or ""),
        "host_class": str(facts.get("host_class") or ""),
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    measured = None
    if status == "done":
        try:
            measured = read_measured(folder)
            rows = measured.rows() if measured is not None else read_rows(folder / "rows.csv")
            # Names may have changed since (in a file, or where folders are compared); they were not measured.
            rows = [{**row, "run": known["run"], "label": known["label"]} for row in rows]
            if not rows:
                raise RunError(f"{folder / 'rows.csv'} is empty; delete it and run again")
        except RunError as error:
            status, reason = "failed", visible(str(error))
    if not rows:
        rows = [failed_row(known, status, reason)]
    return RunResult(
        known["run"], known["label"], known["method"], known["seed"], known["run_id"], folder, status, reason,
        rows, _read_curves(folder), facts, spec, entry.get("group"), dict(entry.get("factors") or {}),
        list(entry.get("published") or []), measured, entry.get("base"),
    )  # fmt: skip


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return visible_values(value) if isinstance(value, dict) else {}


def _read_curves(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    return [line for line in read_json_lines(folder / "metrics.jsonl") if isinstance(line.get("epoch"), (int, float))]
