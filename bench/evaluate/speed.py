"""How fast a stage was trained, from what its epochs logged. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any


def training_speed(curves: Iterable[Mapping[str, Any]], stage: str, batch_size: int) -> dict[str, float]:
    """``images_per_s`` (median over the stage's epochs, loading included, all processes together) and
    ``ms_per_step``, the time in which that is one batch. Empty where no epoch says how fast it was.

    curves: lines of metrics.jsonl. The median leaves out the slow first epoch (compilation, caches) and pauses of
    the machine; it is wall time on whatever else the machine did.
    """
    logged = [line.get("images_per_s") for line in curves if line.get("stage") == stage]
    rates = [float(rate) for rate in logged if isinstance(rate, (int, float)) and rate > 0]
    if not rates or batch_size < 1:
        return {}
    rate = statistics.median(rates)
    return {"images_per_s": round(rate, 1), "ms_per_step": round(1000 * batch_size / rate, 3)}
