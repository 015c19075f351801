"""The folder of a comparison's results: who holds it, what each run's status is.

    <out>/comparison.json       the comparison and its runs, in file order
    <out>/runs/<run>-seed<k>-<id>/   spec.json, status.json, rows.csv, cost.json, records, metrics.jsonl
    <out>/stages/<key>/         a trained stage: stage.json, weights-<hash>.pt, metrics.jsonl, checkpoints
    <out>/results.csv, summary.csv, runs.csv, plots/, report.html   drawn from the runs' files
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bench.config.resolve import RunSpec
from bench.config.schema import Comparison, Run
from bench.errors import BenchError, ConfigError, RunError, memory_is_gone
from bench.files import remove_leftovers
from bench.locks import ABANDONED, LOCK, locked
from bench.store.comparison import REPAIR, read_comparison
from bench.store.comparison import write_comparison as store_comparison
from bench.store.reading import Damaged
from bench.store.runs_table import write_runs_table
from bench.store.sealed import check_sealed_text, read_sealed, write_sealed, write_sealed_text
from bench.store.status import STATUSES, read_status, write_status

if TYPE_CHECKING:
    from bench.launch.whole import Whole

#: Final ones that are run again only when asked for (`--retry`).
SETTLED = ("failed", "diverged", "timeout")


class RunFolder:
    """One run's folder: written by the process that runs it, read by everyone."""

    def __init__(self, out: Path, spec: RunSpec) -> None:
        self.out = out
        self.spec = spec
        self.path = out / "runs" / spec.folder

    def write_spec(self) -> None:
        write_sealed(self.path / "spec.json", self.spec.model_dump(mode="json"))

    @property
    def status(self) -> dict[str, Any]:
        """The stored status, ``{"status": "pending"}`` if there is none or it cannot be read."""
        try:
            return read_status(self.path)
        except Damaged:
            return {"status": "pending", "reason": None}

    def set_status(self, status: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
        """Store a status. What earlier calls stored is kept, except status, reason and the hashes of files."""
        assert status in STATUSES, status
        old = {name: value for name, value in self.status.items() if name != "files"}
        value = {
            **old, **more, "run": self.spec.run, "seed": self.spec.seed, "method": self.spec.method,
            "run_id": self.spec.run_id, "status": status, "reason": reason,
        }  # fmt: skip
        write_status(self.path, value)
        return value


def read_spec(folder: Path) -> RunSpec:
    """The stored spec of a run; Damaged if it cannot be read."""
    path = folder / "spec.json"
    try:
        return RunSpec.model_validate_json(json.dumps(read_sealed(path)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Damaged(f"{path} cannot be used ({place}: {first['msg']})") from None


def write_comparison(out: Path, whole: Whole) -> None:
    """The list of runs that reports read, and the resolved file beside it."""
    comparison, first = whole.comparison, whole.specs[0]
    _say_damaged(out)
    runs = {run.name: run for run in comparison.runs}
    write_sealed_text(out / "config.yaml", whole.config_text)
    store_comparison(out, {
        "name": first.comparison, "title": comparison.title, "protocol": first.protocol, "data": first.data.name,
        "protocol_version": first.protocol_version,
        "confidence_level": first.evaluate.confidence_level,
        "reference": comparison.reference, "budgets": list(comparison.budgets),
        **({"auc": list(comparison.auc)} if comparison.auc is not None else {}),
        **({"verdicts": asked} if (asked := comparison.verdicts.model_dump(exclude_defaults=True)) else {}),
        "ablation": describe_ablation(comparison), "config": "config.yaml",
        "runs": [{"run": s.run, "label": s.label, "method": s.method, "seed": s.seed, "run_id": s.run_id,
                  "folder": f"runs/{s.folder}", **_compared(runs[s.run]),
                  **({"asked": True} if s.folder in whole.asked else {})} for s in whole.specs],
    })  # fmt: skip


def _say_damaged(out: Path) -> None:
    """Name what is written anew in a folder that has results because it is damaged."""
    if not (out / "runs").is_dir():
        return
    try:
        if read_comparison(out).get("config"):
            check_sealed_text(out / "config.yaml")
    except Damaged as error:
        print(f"{str(error).removesuffix(f'; {REPAIR}')}; it is written anew", file=sys.stderr)


def describe_ablation(comparison: Comparison) -> dict[str, Any]:
    """Axes with their levels and base levels, by section; empty where nothing is varied. Of runs it says nothing:
    their ``factors`` and ``base`` do."""
    if not comparison.ablation:
        return {}
    return {"sections": [
        {"design": section.design, "axes": {axis: list(levels) for axis, levels in section.axes.items()},
         "base": {axis: next(iter(levels)) for axis, levels in section.axes.items()}}
        for section in comparison.ablation
    ]}  # fmt: skip


def _compared(run: Run) -> dict[str, Any]:
    """What a file says of a run that only reports need."""
    said = run.model_dump(mode="json", include={"group", "factors", "base", "published"})
    return {key: value for key, value in said.items() if value}


def list_runs(out: Path, specs: Sequence[RunSpec]) -> None:
    """Write runs.csv from what is stored of every run."""
    write_runs_table(out, [
        {**RunFolder(out, spec).status, "run": spec.run, "seed": spec.seed, "method": spec.method,
         "run_id": spec.run_id, "folder": f"runs/{spec.folder}"} for spec in specs
    ])  # fmt: skip


#: How long to wait for a holder that is just going away (seconds).
_PATIENCE = 3.0


@contextmanager
def hold(out: Path) -> Iterator[int | None]:
    """Be the only ``bench run`` in a folder; gives the lock's file descriptor. The lock goes with the
    process, however it ends. Raises ConfigError where the folder cannot be written to, RunError naming the
    holder where there is one."""
    deadline = time.monotonic() + _PATIENCE

    def wait(holder: str) -> None:
        if time.monotonic() > deadline:
            raise RunError(f"{out} is in use by {holder}; wait for it, or take another --out")
        time.sleep(0.1)

    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(locked(out / LOCK, wait, "bench run"))
        except OSError as error:
            raise ConfigError(f"cannot write to the output folder {out}: {error.strerror}") from None
        if lock is None:
            print(f"warning: there are no file locks in {out}; a file, {LOCK}.held, stands in for one", file=sys.stderr)
        remove_leftovers(out)
        _end_abandoned(out)
        yield lock


def _end_abandoned(out: Path) -> None:
    """Whoever holds the folder knows that nothing runs in it: what says so was killed."""
    for path in sorted(out.glob("runs/*/status.json")):
        with suppress(Damaged):  # which is said where the run is looked at
            status = read_status(path.parent)
            if status["status"] == "running":
                write_status(path.parent, {**status, "status": "interrupted", "reason": ABANDONED})


def host_class(device: str = "cpu") -> str:
    """The kind of machine, never its name: GPU where one is used, else processor and cores."""
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()} ({torch.cuda.device_count()})"
    return f"{_processor()} ({os.cpu_count()} cores)"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine() or "unknown processor"


def one_line(error: BaseException) -> str:
    """An error as one line: its own words where it is ours, its class and words where it is not."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, BenchError) else memory_is_gone(error) or f"{type(error).__name__}: {text}"
