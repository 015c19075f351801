"""What training took, for a run's status.json: memory and time of one step of the stage that was measured."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.cost.memory import estimate_memory
from bench.evaluate.speed import training_speed
from bench.files import read_json_lines
from bench.launch.folder import one_line
from bench.method import Method, Stage


def training_facts(method: Method, stage: Stage, metrics: Path) -> dict[str, float]:
    """``train_memory_mib``, ``ms_per_step`` and ``images_per_s`` of a trained stage; what cannot be known is left out.

    train_memory_mib: MiB of activations, which is what the forward pass of one training step keeps for its backward
    pass, at the recipe's batch size in one process (``bench.cost.memory``: an estimate without weights, optimiser and
    temporary buffers, the same on every machine). metrics: the stage's metrics.jsonl.
    """
    recipe = stage.resolved
    if recipe is None:
        return {}
    facts: dict[str, float] = {}
    try:
        facts["train_memory_mib"] = round(estimate_memory(method, stage, recipe)["activations"] / 2**20, 3)
    except Exception as error:  # whatever it is, the run is trained and measured
        print(f"the memory of a training step is not known: {one_line(error)}", file=sys.stderr)
    return facts | training_speed(read_json_lines(metrics), stage.name, recipe.batch_size)
