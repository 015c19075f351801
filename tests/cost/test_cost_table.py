"""The table of units and what is computed from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cost_method import SmallMethod
from torch import nn

from bench.cost import CostTable, count_units
from bench.errors import CostError
from bench.method import Unit

FIRST, GATE, AGAIN = 16 * 40, 40 * 20, 40 * 40


@pytest.fixture(scope="module")
def table() -> CostTable:
    method = SmallMethod()
    return count_units(method, method.build(method.stages()[0]))


def test_columns(table: CostTable) -> None:
    assert table.units == ("first", "gate", "once", "twice")
    assert table.columns["macs"].tolist() == [FIRST, GATE, AGAIN, 2 * AGAIN]
    assert table.columns["macs_elementwise"].tolist() == [0, 40, 0, 40]
    assert table.columns["macs_fvcore"].tolist() == [FIRST, GATE, AGAIN, 2 * AGAIN]
    assert {name: column.dtype.kind for name, column in table.columns.items()} == {
        "macs": "i", "macs_elementwise": "i", "macs_fvcore": "i", "params": "i", "blocks": "f", "percent": "f",
    }  # fmt: skip


def test_parameters_count_once_and_those_of_no_unit_are_told(table: CostTable) -> None:
    assert table.columns["params"].tolist() == [FIRST + 40, GATE + 20, AGAIN + 40, 0]
    assert table.params_outside == 40 * 10 + 10, "the head is no unit here"
    assert table.total_params() == sum(p.numel() for p in nn.ModuleList(_parts()).parameters())


def _parts() -> list[nn.Module]:
    return [nn.Linear(16, 40), nn.Linear(40, 20), nn.Linear(40, 40), nn.Linear(40, 10)]


def test_extra_costs_are_zero_where_a_unit_has_none(table: CostTable) -> None:
    assert table.columns["blocks"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert table.columns["percent"].tolist() == [0.0, 0.0, 12.5, 0.0]


@pytest.mark.parametrize("kind", [torch.tensor, np.array], ids=["torch", "numpy"])
def test_cost_of_counts(table: CostTable, kind: type) -> None:
    counts = kind([[[1, 1, 1, 0], [1, 1, 0, 3]]])
    cost = table.cost(counts)
    assert all(isinstance(value, type(counts)) and value.shape == (1, 2) for value in cost.values())
    assert cost["macs"].tolist() == [[FIRST + GATE + AGAIN, FIRST + GATE + 6 * AGAIN]]
    assert cost["blocks"].tolist() == [[1.0, 3.0]]
    assert cost["percent"].tolist() == [[12.5, 0.0]]
    assert cost["params"].tolist() == [[FIRST + 40 + GATE + 20 + AGAIN + 40, FIRST + 40 + GATE + 20]]


def test_cost_of_one_row_and_of_truth_values(table: CostTable) -> None:
    assert table.cost(torch.tensor([True, False, False, True]))["macs"].item() == FIRST + 2 * AGAIN
    assert table.cost(np.ones((0, 4), dtype=np.int32))["macs"].shape == (0,)


def test_costs_are_exact_integers_where_floats_would_round() -> None:
    odd = 2**53 + 1
    ones = np.ones(1, dtype=np.int64)
    table = CostTable(
        ("unit",), {"macs": ones * odd, "macs_elementwise": ones, "macs_fvcore": ones, "params": ones}
    )
    assert table.cost(torch.tensor([[3], [5]], dtype=torch.int8))["macs"].tolist() == [3 * odd, 5 * odd]
    assert CostTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.ones(3, 4) / 2, "integers, not float32"),
        (torch.ones(3, 5, dtype=torch.int64), r"\(3, 5\) do not fit a table of 4 units"),
        (torch.tensor(3), "do not fit"),
        (torch.tensor([0, 0, 0, -1]), "less than 0"),
    ],
)
def test_counts_that_make_no_sense(table: CostTable, counts: torch.Tensor, message: str) -> None:
    with pytest.raises(CostError, match=message):
        table.cost(counts)


def test_json_round_trip_and_frame(table: CostTable) -> None:
    again = CostTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again == table
    assert {n: c.dtype for n, c in again.columns.items()} == {n: c.dtype for n, c in table.columns.items()}
    frame = table.to_frame()
    assert frame.index.tolist() == list(table.units)
    assert frame.loc["twice", "macs"] == 2 * AGAIN
    assert list(frame.columns) == list(table.columns)


@pytest.mark.parametrize("damage", ["units", "columns", "macs", "short", "text"])
def test_a_damaged_file_is_told(table: CostTable, damage: str) -> None:
    stored = table.to_dict()
    if damage in ("units", "columns"):
        del stored[damage]
    elif damage == "macs":
        del stored["columns"]["macs"]
    elif damage == "short":
        stored["columns"]["percent"].pop()
    else:
        stored["columns"]["macs"][0] = "many"
    with pytest.raises(CostError, match="damaged"):
        CostTable.from_dict(stored)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([], "names no units"),
        ([Unit("a", nn.ReLU(), (torch.zeros(1, 3),))] * 2, "two units are called 'a'"),
        ([Unit("a", nn.ReLU(), (torch.zeros(1, 3),), {"macs": 3.0})], "'macs' is a column of the harness"),
        ([Unit("a", nn.ReLU(), (torch.zeros(1, 3),), {"ops": float("nan")})], "'ops' is nan"),
        ([Unit("a", nn.Linear(4, 4), (torch.zeros(1, 3),))], "unit 'a': cannot be counted"),
    ],
)
def test_units_that_make_no_sense(units: list[Unit], message: str) -> None:
    method = SmallMethod(units)
    with pytest.raises(CostError, match=message):
        count_units(method, method.build(method.stages()[0]))
