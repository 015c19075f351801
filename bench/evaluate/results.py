"""Reading a results folder: the comparison, its runs in file order, what became of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.config.comparing import Verdicts
from bench.data.fingerprint import read_fingerprint
from bench.data.splits import check_split
from bench.errors import BenchError, RunError
from bench.evaluate.columns import read_rows
from bench.evaluate.latency import read_latency
from bench.evaluate.measured import Measured, read_measured
from bench.evaluate.rows import failed_row
from bench.files import parse_json_lines
from bench.locks import ABANDONED, LOCK, is_held
from bench.store.comparison import REPAIR, read_comparison
from bench.store.manifest import RunFiles
from bench.store.sealed import check_sealed_text, read_sealed
from bench.store.status import read_status, run_files
from bench.text import visible, visible_values


@dataclass(frozen=True)
class RunResult:
    """One run of one seed.

    status: "done" only where its rows could be read. curves: training metrics, one dict per epoch, stages in
    the order in which they were trained. facts: the whole status.json. spec: the resolved run. group, factors,
    published: what the file says of the run for comparing. measured: None where the records were not kept. base:
    the run that an ablation varied to make this one (itself where it is the base combination).
    damaged: shown as failed because its files are not as they were written.
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
    damaged: bool = False

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
    ``{"sections": [{"design", "axes": {axis: levels}, "base": {axis: level}}]}``, empty where nothing is varied.
    times: rows of the table of measured times. problems: files besides the runs' that are damaged, a line for each.
    auc: range of the area as the file has it, None if it does not say. asked: what is tested, in which order."""

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
    times: list[dict[str, Any]] = field(default_factory=list)
    problems: tuple[str, ...] = ()
    auc: tuple[float | str, ...] | None = None
    asked: Verdicts = field(default_factory=Verdicts)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All rows in file order; a run without numbers has one that says why."""
        return [row for run in self.runs for row in run.rows]

    @property
    def heading(self) -> str:
        return self.title or self.name

    @property
    def whole(self) -> bool:
        """Whether no run is shown as failed and no other file is damaged."""
        return not self.problems and all(run.status != "failed" for run in self.runs)

    def notes(self) -> list[str]:
        """What was left out, a line for each."""
        found: dict[tuple[str, str], dict[str, None]] = {}
        for run in self.runs:
            if run.measured is None:
                continue
            for policy in run.measured.unknown_policies:
                found.setdefault((policy, "is not known to this version"), {})[run.label] = None
            for policy in run.measured.without_logits:
                found.setdefault((policy, "needs the logits of all classes, which were not kept"), {})[run.label] = None
        return [
            f"Policy '{policy}' {why}; its rows are left out ({', '.join(labels)})."
            for (policy, why), labels in found.items()
        ]

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
    """Read the folder of a comparison, each file checked against its hash. RunError if it holds none; a damaged run is
    a failed run, and what is damaged besides runs is in ``problems``."""
    comparison = visible_values(read_comparison(out))
    busy = is_held(out / LOCK)
    runs = [_read_run(out, comparison, entry, busy) for entry in comparison["runs"]]
    times, problems = _read_times(out)
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
        times,
        (*problems, *_check_others(out, comparison, runs)),
        tuple(comparison["auc"]) if comparison.get("auc") else None,
        Verdicts(**(comparison.get("verdicts") or {})),
    )


def _read_times(out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        return read_latency(out), []
    except RunError as error:
        return [], [str(error)]


def _check_others(out: Path, comparison: dict[str, Any], runs: list[RunResult]) -> list[str]:
    """What is damaged of the files that no table is made from."""
    merged = dict.fromkeys(run.folder.parents[1] for run in runs if not comparison.get("config"))
    problems = [problem for folder in merged if folder != out for problem in _read_times(folder)[1]]
    checks: dict[Path, Callable[[Path], None]] = {}
    if comparison.get("config"):
        checks[out / str(comparison["config"])] = check_sealed_text
    for run in runs:
        if run.facts.get("files") and run.facts.get("split_file"):
            checks[run.folder.parents[1] / "splits" / str(run.facts["split_file"])] = check_split
    for path, check in checks.items():
        try:
            check(path)
        except BenchError as error:
            problems.append(f"{error}; {REPAIR}")
    return problems


#: What a damaged file may provoke that has no hash to be checked against.
_PROVOKED = (BenchError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError,
             RecursionError)  # fmt: skip
_AGAIN = "`bench run FILE` measures it again"


def _read_run(out: Path, comparison: dict[str, Any], entry: dict[str, Any], busy: bool) -> RunResult:
    folder = out / str(entry["folder"])
    name, label = str(entry["run"]), str(entry.get("label") or entry["run"])
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    spec: dict[str, Any] = {}
    measured, damaged = None, False
    try:
        facts = visible_values(read_status(folder))
        status, reason = str(facts["status"]), str(facts.get("reason") or "")
        if status == "running" and not busy:
            status, reason = "interrupted", ABANDONED
        files = run_files(folder, facts)
        spec = _read_spec(folder, files.listed is not None)
        if status == "done":
            measured = read_measured(folder, files)
            rows = measured.rows() if measured is not None else read_rows(folder / "rows.csv")
            # Names may have changed since (in a file, or where folders are compared); they were not measured.
            rows = [{**row, "run": name, "label": label} for row in rows]
            if not rows:
                raise RunError(f"{folder / 'rows.csv'} is empty")
        curves = _read_curves(folder, files)
        files.check()
    except _PROVOKED as error:
        measured, rows, damaged = None, [], True
        words = " ".join(str(error).split())
        words = words if isinstance(error, BenchError) else f"{folder} cannot be read ({type(error).__name__}: {words})"
        status, reason = "failed", visible(f"{words}; {_AGAIN}")
    known: dict[str, Any] = {
        "protocol_version": comparison.get("protocol_version"), "comparison": comparison.get("name"), "run": name,
        "run_id": str(entry.get("run_id") or ""), "label": label, "dataset": comparison.get("data") or "",
        "protocol": comparison.get("protocol") or "", "seed": int(entry["seed"]), "method": str(entry["method"]),
        "torch": str(facts.get("torch") or ""), "python": str(facts.get("python") or ""),
        "host_class": str(facts.get("host_class") or ""),
    }  # fmt: skip
    if not rows:
        rows = [failed_row(known, status, reason)]
    return RunResult(
        name, label, known["method"], known["seed"], known["run_id"], folder, status, reason,
        rows, curves, facts, spec, entry.get("group"), dict(entry.get("factors") or {}),
        list(entry.get("published") or []), measured, entry.get("base"), damaged,
    )  # fmt: skip


def _read_spec(folder: Path, needed: bool) -> dict[str, Any]:
    """The stored spec, of which reports show everything and use the recipes; empty if an old run has none."""
    path = folder / "spec.json"
    if not needed and not path.is_symlink() and not path.exists():
        return {}
    spec: dict[str, Any] = visible_values(read_sealed(path))
    stages = spec.get("stages") or []
    if not isinstance(stages, list) or not all(
        isinstance(stage, dict) and isinstance(stage.get("recipe") or {}, dict) for stage in stages
    ):
        raise RunError(f"{path} is damaged (its stages cannot be read)")
    return spec


def _read_curves(folder: Path, files: RunFiles) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    name = "metrics.jsonl"
    lines = parse_json_lines(files.read(name)) if files.has(name) else []
    return [line for line in lines if isinstance(line.get("epoch"), (int, float))]
