"""Run ids, stage keys, units, cost tables, records, executions and losses are those of before (``pinned.py``)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pinned import FILE, NETWORKS, RUNS, costs, identities, run

#: Large networks are counted in seconds each; the others stand for their kind.
QUICK = ("resnet20", "adn resnet20", "skipnet20 rnn", "skipnet20 ff1", "msdnet lg4")
PINNED: dict[str, Any] = json.loads(FILE.read_text())


@pytest.mark.parametrize("file", PINNED["identities"])
def test_shipped_configurations_keep_their_runs_and_stages(file: str) -> None:
    assert identities(file) == PINNED["identities"][file]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_units_and_their_costs(name: str) -> None:
    assert costs(name) == PINNED["costs"][name]


@pytest.mark.parametrize("name", RUNS)
def test_records_executions_and_losses(name: str) -> None:
    """Floats are sums over many products, whose order differs between machines and between ways of batching."""
    found, wanted = run(name), PINNED["runs"][name]
    assert found["exact"] == wanted["exact"]
    assert found["executed"] == wanted["executed"]
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4, abs=1e-5)
    assert found["floats"].keys() == wanted["floats"].keys()
    for signal, values in wanted["floats"].items():
        for got, expected in zip(found["floats"][signal], values, strict=True):
            numbers = [float(v) for v in got.split()]
            assert numbers == pytest.approx([float(v) for v in expected.split()], rel=1e-3, abs=1e-4), signal
