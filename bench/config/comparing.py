"""What a file says about comparing its runs: budgets, published numbers. None of it changes a run's own numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

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


AUC = "auc"
#: Shares of the reference between which the area under the curve is taken if the file does not say.
AUC_RANGE: tuple[float | str, float | str] = (0.25, 1.0)
#: Words of `verdicts.against` that are not the name of a run or a group.
REFERENCE, ALL = "reference", "all"


class Verdicts(Strict):
    """Which comparisons are tested, and in which order: said before the results are seen."""

    against: str | None = Field(None, description="What every other contender is tested against: reference (the "
                                "reference run or its group), the name of a run or of a group, or all (every pair). "
                                "Default: the reference if the file names one, else all.")  # fmt: skip
    first: float | str = Field(AUC, description="What is asked first of each contender: auc, or one of `budgets`.")
    order: Literal["dearest_first", "cheapest_first"] = Field(
        "dearest_first", description="In which order the other budgets are asked.")

    @field_validator("first")
    @classmethod
    def _first(cls, value: float | str) -> float | str:
        if value != AUC:
            parse_budget(value)
        return value

    def arrange(self, budgets: Sequence[Budget], costs: Sequence[float]) -> list[str]:
        """Names of what is asked, in order: `first`, the budgets by cost (those in milliseconds last), the area.

        costs: of the budgets, MACs or milliseconds.
        """
        sign = -1 if self.order == "dearest_first" else 1
        ranked = sorted(zip(budgets, costs), key=lambda pair: (pair[0].unit == "ms", sign * pair[1]))
        first = AUC if self.first == AUC else str(parse_budget(self.first))
        return list(dict.fromkeys([first, *(str(budget) for budget, _ in ranked), AUC]))


def check_auc_range(value: Sequence[float | str]) -> None:
    """The two ends of `auc`. ValueError if they are not shares or MACs, or do not grow."""
    low, high = (parse_budget(entry) for entry in value)
    if "ms" in (low.unit, high.unit):
        raise ValueError("the range of the area is in shares of the reference run or in MACs, not in milliseconds")
    if low.unit == high.unit and low.value >= high.value:
        raise ValueError(f"the range of the area must grow; got {low} and {high}")


class Published(Strict):
    """A number somebody published, to stand beside ours in the report."""

    top1: float = Field(gt=0, le=100, description="Published top-1, percent.")
    point: str | None = Field(None, description="Operating point that it is of; default: the run's default point.")
    macs: float | None = Field(None, gt=0, description="Published cost, MACs as this harness counts them.")
    statistic: str = Field("one run", description="What the published number is: one run, mean of 3, median of 5.")
    source: str = Field(description="Where it stands: paper and table, or repository.")
    note: str = Field("", description="Why ours may differ: schedule, protocol, data.")
