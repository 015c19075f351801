"""Counting the units of a method's network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from bench.cost.count import count_module
from bench.cost.table import COLUMNS, PARAMS, CostTable
from bench.errors import CostError

if TYPE_CHECKING:
    from bench.method import Method, Unit


def count_units(method: Method, model: nn.Module) -> CostTable:
    """Count every unit of a method's network by itself (see ``count_module``), for one image.

    The model and its mode stay as they are. Raises CostError naming the unit, where it cannot be counted,
    its name is taken or its extra costs are not finite numbers.
    """
    units = list(method.units(model))
    names = [unit.name for unit in units]
    if not units:
        raise CostError(f"{type(method).__name__} names no units; they cover the network")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CostError(f"two units are called '{twice[0]}'")
    extra = _extra_columns(units)
    counted = [count_module(unit.module, unit.inputs, unit.name) for unit in units]
    params, outside = _count_params(units, model)
    columns = {
        **{column: np.array([one[column] for one in counted], dtype=np.int64) for column in COLUMNS},
        PARAMS: np.array(params, dtype=np.int64),
        **extra,
    }
    return CostTable(tuple(names), columns, outside)


def _extra_columns(units: Sequence[Unit]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for index, unit in enumerate(units):
        for name, value in unit.extra_costs.items():
            if name in (*COLUMNS, PARAMS):
                raise CostError(f"unit '{unit.name}': extra cost '{name}' is a column of the harness; rename it")
            if not math.isfinite(value):
                raise CostError(f"unit '{unit.name}': extra cost '{name}' is {value}, not a finite number")
            columns.setdefault(name, np.zeros(len(units)))[index] = value
    return columns


def _count_params(units: Sequence[Unit], model: nn.Module) -> tuple[list[int], int]:
    """Parameters of each unit, a shared one at the first that has it, and those of the model in none."""
    seen: set[int] = set()

    def fresh(module: nn.Module) -> int:
        count = 0
        for parameter in module.parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                count += parameter.numel()
        return count

    return [fresh(unit.module) for unit in units], fresh(model)
