"""What training took, for a run's status.json: memory of one step, time and speed of all stages together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cost.memory import estimate_memory
from bench.evaluate.speed import training_speed
from bench.files import read_json_lines
from bench.launch.folder import one_line
from bench.method import Method, RunStage


def training_facts(method: Method, stages: Sequence[RunStage], metrics: Path) -> dict[str, float]:
    """``train_memory_mib`` and what ``training_speed`` gives of trained stages; what cannot be known is left out.

    train_memory_mib: MiB of activations, which is what the forward pass of one training step keeps for its backward
    pass, at the recipe's batch size in one process, in the stage that needs most (``bench.cost.memory``: an estimate
    without weights, optimiser and temporary buffers, the same on every machine). metrics: the run's metrics.jsonl.
    """
    facts: dict[str, float] = {}
    try:
        needed = [estimate_memory(method, s, s.recipe)["activations"] for s in stages]
        facts["train_memory_mib"] = round(max(needed) / 2**20, 3)
    except Exception as error:  # whatever it is, the run is trained and measured
        print(f"the memory of a training step is not known: {one_line(error)}", file=sys.stderr)
    batch_sizes = {stage.name: stage.recipe.batch_size for stage in stages}
    return facts | training_speed(read_json_lines(metrics), batch_sizes)
