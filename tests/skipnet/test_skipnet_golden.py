"""The official networks' own numbers, for the dense and for the really skipping form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from skipnet_golden import GOLDEN, golden_images, golden_weights
from torch import Tensor

from methods.skipnet.method import SkipNet


@pytest.fixture(scope="module", params=list(GOLDEN))
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A golden network, imported, with what it makes of the golden images in both forms."""
    values = GOLDEN[request.param]
    weights = {f"module.{key}": value for key, value in golden_weights(values["state_dict_shapes"]).items()}
    method, network = SkipNet.import_weights(request.param, weights)
    network.eval()
    images = golden_images(values["input_shape"])
    point = method.points(network)[0]
    names = [unit.name for unit in method.units(network)]
    executed = method.execute(network, images, point)
    recorded = method.record(network, images)
    counts = recorded.counts[0].expand(len(images), -1)  # one row if no gate decides
    gated = [names.index(f"block{k + 1}") for k in range(len(network.gates))]
    return {
        **values,
        "forms": {
            "dense": (recorded.logits[0], counts[:, gated]),
            "executed": (executed.logits, executed.counts[:, gated]),
        },
        "margin": recorded.signals["gate_margin"][0].min() if network.gates else None,
    }


@pytest.mark.parametrize("form", ["dense", "executed"])
def test_logits_and_gates_are_the_official_ones(golden: dict[str, Any], form: str) -> None:
    logits, ran = golden["forms"][form]
    expected = torch.tensor(golden["logits_first3"])
    assert _relative_error(logits[:, :3], expected) <= 1e-5
    assert abs(float(logits.double().norm()) / golden["logits_l2"] - 1) <= 1e-5
    if "gates" in golden:
        assert ["".join(map(str, row.tolist())) for row in ran] == golden["gates"]
        assert abs(float(golden["margin"]) - golden["min_abs_p_minus_half"]) <= 1e-5


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())
