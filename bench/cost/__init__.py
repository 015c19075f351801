"""What a network costs: multiply-accumulates of each unit, two counters that must agree, memory.

Names are resolved on first use: a stored table is read back without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.cost.table import CostTable

if TYPE_CHECKING:
    from bench.cost.count import count_module
    from bench.cost.memory import estimate_memory
    from bench.cost.opaque import register_module_cost
    from bench.cost.opcall import OpCall
    from bench.cost.rules import register_elementwise, register_free, register_headline
    from bench.cost.units import count_units

__all__ = [
    "CostTable",
    "OpCall",
    "count_module",
    "count_units",
    "estimate_memory",
    "register_elementwise",
    "register_free",
    "register_headline",
    "register_module_cost",
]

_PLACES = {
    "OpCall": "opcall", "count_module": "count", "count_units": "units", "estimate_memory": "memory",
    "register_elementwise": "rules", "register_free": "rules", "register_headline": "rules",
    "register_module_cost": "opaque",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"bench.cost.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
