"""What a network costs: multiply-accumulates of each unit, two counters that must agree, memory."""

from bench.cost.count import count_module
from bench.cost.memory import estimate_memory
from bench.cost.opaque import register_module_cost
from bench.cost.opcall import OpCall
from bench.cost.rules import register_elementwise, register_free, register_headline
from bench.cost.table import CostTable, count_units

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
