"""The cost of every unit of a network, and of whatever a record says was run. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from bench.errors import CostError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

#: Columns that every table has besides the parameters.
COLUMNS = ("macs", "macs_elementwise", "macs_fvcore")
PARAMS = "params"


@dataclass(frozen=True, eq=False)
class CostTable:
    """What one run of each unit costs.

    units: names, U of them. columns: name -> one value for each unit. ``macs``, ``macs_elementwise``,
    ``macs_fvcore`` and ``params`` are int64; the others are published ways of counting, float64, 0 for a unit
    that has none. ``params`` gives a parameter that several units share to the first of them.
    params_outside: parameters of the network that belong to no unit.
    """

    units: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    params_outside: int = 0

    @overload
    def cost(self, counts: Tensor) -> dict[str, Tensor]: ...
    @overload
    def cost(self, counts: np.ndarray) -> dict[str, np.ndarray]: ...
    def cost(self, counts: Tensor | np.ndarray) -> dict[str, Tensor] | dict[str, np.ndarray]:
        """What was spent, from how often each unit ran: counts @ cost of a unit, exact in int64.

        counts: integers or truth values [..., U]. Returns each column with shape [...], as the same kind of
        array (on the CPU). ``params`` are those of the units that ran at all, however often they did.
        """
        # Tables are read back without torch; whoever has a tensor has imported it.
        array = counts.detach().cpu().numpy() if hasattr(counts, "detach") else np.asarray(counts)
        if array.dtype.kind not in "iub":
            raise CostError(f"counts of units are integers, not {array.dtype}; average the costs instead")
        if array.ndim < 1 or array.shape[-1] != len(self.units):
            raise CostError(f"counts of shape {array.shape} do not fit a table of {len(self.units)} units")
        array = array.astype(np.int64, copy=False)
        if array.size and array.min() < 0:
            raise CostError("a unit cannot have run less than 0 times")
        spent = {
            name: ((array > 0).astype(np.int64) if name == PARAMS else array) @ column
            for name, column in self.columns.items()
        }
        if hasattr(counts, "detach"):
            import torch

            return {name: torch.from_numpy(np.asarray(value)) for name, value in spent.items()}
        return spent

    def total_params(self) -> int:
        """Parameters of the whole network, also those outside of every unit."""
        return int(self.columns[PARAMS].sum()) + self.params_outside

    def to_frame(self) -> pd.DataFrame:
        """One row for each unit, in order; the index holds the names."""
        import pandas as pd

        return pd.DataFrame(dict(self.columns), index=pd.Index(self.units, name="unit"))

    def to_dict(self) -> dict[str, Any]:
        """Lists, strings and numbers only, for a JSON file."""
        return {
            "units": list(self.units),
            "columns": {name: column.tolist() for name, column in self.columns.items()},
            "params_outside": self.params_outside,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> CostTable:
        """The inverse of ``to_dict``; CostError where something is missing or does not fit."""
        try:
            units = tuple(str(name) for name in stored["units"])
            columns = {str(name): _column(str(name), values) for name, values in stored["columns"].items()}
            outside = int(_column(PARAMS, [stored["params_outside"]])[0])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CostError(f"a stored cost table is damaged: {type(error).__name__}: {error}") from error
        missing = [name for name in (*COLUMNS, PARAMS) if name not in columns]
        if missing or any(column.shape != (len(units),) for column in columns.values()):
            raise CostError(
                "a stored cost table is damaged: "
                + (f"no column {', '.join(missing)}" if missing else "columns and units differ in length")
            )
        return cls(units, columns, outside)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CostTable) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.units, tuple(self.columns)))


def _column(name: str, values: Any) -> np.ndarray:
    """A stored column; ValueError if a cost is negative, not finite, or not a number of its kind."""
    whole = name in (*COLUMNS, PARAMS)
    kinds = (int,) if whole else (int, float)
    wrong = [value for value in values if isinstance(value, bool) or not isinstance(value, kinds)]
    column = np.asarray([] if wrong else values, dtype=np.int64 if whole else np.float64)
    wrong += [value for value in column.tolist() if not 0 <= value < np.inf]
    if wrong:
        raise ValueError(f"{name} of a unit is {str(wrong[0])[:40]}")
    return column
