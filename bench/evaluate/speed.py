"""How long training took and how fast it was, from what its epochs logged. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def training_speed(curves: Iterable[Mapping[str, Any]], batch_sizes: Mapping[str, int]) -> dict[str, float]:
    """Sums over every epoch of every stage: ``train_s`` and ``train_steps``; their ratios ``images_per_s`` (all images
    over all time) and ``ms_per_step``. Empty unless each stage logged how fast it was.

    curves: lines of metrics.jsonl, stage by stage. batch_sizes: of each stage, over all processes; they stand in for
    the ``images`` and ``seconds`` that lines of earlier versions lack. Time is wall time with loading, without
    validation, of the training that counts: what a killed session did after its last checkpoint is not in it.
    """
    seconds = images = 0.0
    steps: dict[str, int] = {}
    for line in curves:
        stage, step, rate = str(line.get("stage")), _number(line, "step"), _number(line, "images_per_s")
        if stage not in batch_sizes or not step or not rate:
            continue
        seen = _number(line, "images") or (step - steps.get(stage, 0)) * batch_sizes[stage]
        images += seen
        seconds += _number(line, "seconds") or seen / rate
        steps[stage] = int(step)
    if not seconds or steps.keys() != batch_sizes.keys():
        return {}
    total = sum(steps.values())
    return {"train_s": round(seconds, 1), "train_steps": total, "images_per_s": round(images / seconds, 1),
            "ms_per_step": round(1000 * seconds / total, 3)}  # fmt: skip


def _number(line: Mapping[str, Any], name: str) -> float:
    value = line.get(name)
    return float(value) if isinstance(value, (int, float)) and value > 0 else 0.0
