"""What each run gives and what its training took, one line per run: the table that norms are compared by."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench.evaluate.results import Results, RunResult
from bench.evaluate.speed import training_speed

NAME = "training.csv"

#: Columns of training.csv. From the summary, of the default operating point: percent, MACs per image. interval: what
#: top1_lo and top1_hi are about. train_memory_mib: MiB of activations that one training step keeps for its backward
#: pass, in the stage that needs most (an estimate, the same on every machine). ms_per_step, images_per_s: wall time
#: over steps and images over wall time, of all stages together, median over seeds; they depend on the machine.
COLUMNS = (
    "run", "label", "method", "n_seeds", "top1_mean", "top1_median", "top1_lo", "top1_hi", "interval", "macs_mean",
    "macs_elementwise_mean", "params", "train_memory_mib", "ms_per_step", "images_per_s",
)  # fmt: skip
#: What is known from training itself.
FACTS = ("train_memory_mib", "ms_per_step", "images_per_s")


def training_lines(results: Results, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per run in file order. lines: of ``summarise(results)``. A run without numbers has its name alone."""
    found = []
    for name, runs in results.by_name().items():
        mine = [line for line in lines if line["run"] == name]
        default = next((line for line in mine if line.get("default") == "yes"), mine[0] if mine else {})
        known = [_facts(run) for run in runs if run.done]
        found.append({
            **{column: default.get(column) for column in COLUMNS},
            "run": name, "label": runs[0].label, "method": runs[0].method,
            **{fact: _median([facts[fact] for facts in known if fact in facts]) for fact in FACTS},
        })  # fmt: skip
    return found


def _facts(run: RunResult) -> dict[str, float]:
    """Speed from the epochs' own lines, else as stored. What an earlier version stored is of the last stage only."""
    stages = [stage for stage in run.spec.get("stages") or [] if isinstance(stage, dict)]
    whole = len(stages) < 2 or "train_steps" in run.facts
    stored = FACTS if whole else ()
    facts = {name: float(run.facts[name]) for name in stored if isinstance(run.facts.get(name), (int, float))}
    batches = [(stage.get("recipe") or {}).get("batch_size") for stage in stages]
    sizes = {str(stage.get("name")): size for stage, size in zip(stages, batches) if isinstance(size, int)}
    if len(sizes) == len(stages):
        facts |= training_speed(run.curves, sizes)
    return facts


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None
