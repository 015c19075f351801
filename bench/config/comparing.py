"""What a file says about comparing its runs: budgets, published numbers. None of it changes a run's own numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from bench.config.base import Strict

_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_WRITTEN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(ms|[kMGT])\s*")


@dataclass(frozen=True)
class Budget:
    """A limit on the mean cost of an image.

    value: a share of the reference run's cost (unit "relative"), MACs ("macs") or milliseconds at batch 1 ("ms").
    """

    value: float
    unit: Literal["relative", "macs", "ms"]

    def __str__(self) -> str:
        if self.unit == "relative":
            return f"{self.value:g}"
        if self.unit == "ms":
            return f"{self.value:g}ms"
        for name, size in reversed(_UNITS.items()):
            if self.value >= size:
                return f"{self.value / size:g}{name}"
        return f"{self.value / 1e3:g}k"


def parse_budget(entry: float | int | str) -> Budget:
    """0.5 -> half the reference; '30M', '1.2G' -> MACs; '2.5ms' -> milliseconds. ValueError for anything else."""
    if isinstance(entry, (int, float)) and not isinstance(entry, bool):
        if not 0 < entry <= 1000:
            raise ValueError(f"a budget without a unit is a share of the reference run, above 0; {entry:g} is none "
                             "(write '30M' for MACs, '2.5ms' for milliseconds)")  # fmt: skip
        return Budget(float(entry), "relative")
    found = _WRITTEN.fullmatch(entry) if isinstance(entry, str) else None
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"{entry!r} is no budget; write 0.5 (of the reference run), '30M' or '1.2G' (MACs), '2.5ms'")
    value, unit = float(found[1]), found[2]
    return Budget(value, "ms") if unit == "ms" else Budget(value * _UNITS[unit], "macs")


class Published(Strict):
    """A number somebody published, to stand beside ours in the report."""

    top1: float = Field(gt=0, le=100, description="Published top-1, percent.")
    point: str | None = Field(None, description="Operating point that it is of; default: the run's default point.")
    macs: float | None = Field(None, gt=0, description="Published cost, MACs as this harness counts them.")
    statistic: str = Field("one run", description="What the published number is: one run, mean of 3, median of 5.")
    source: str = Field(description="Where it stands: paper and table, or repository.")
    note: str = Field("", description="Why ours may differ: schedule, protocol, data.")
