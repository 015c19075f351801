"""Released online-norm weights in, batch-norm weights converted."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.norms.config import NormConfig
from baselines.norms.factory import norm_layer
from baselines.norms.weights import batch_to_online, import_online_norm
from baselines.resnet import CifarResNet
from bench.errors import WeightsError
from bench.method import load_strict


def network(**norm: Any) -> CifarResNet:
    torch.manual_seed(0)
    made = CifarResNet(20, 10, "B", norm_layer(NormConfig.model_validate(norm)))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return made


def trained_online() -> CifarResNet:
    made = network(kind="online", abkw=0.9)
    for _ in range(2):
        made(torch.randn(4, 3, 16, 16)).square().sum().backward()
    return made


def test_the_released_layout_is_ours_and_goes_round() -> None:
    source = trained_online()
    state = source.state_dict()
    assert len(state) == 149
    layers = {key.split(".norm.")[0] for key in state if ".norm." in key}
    expected = {f"layer{s}.{b}.bn{n}" for s in (1, 2, 3) for b in (0, 1, 2) for n in (1, 2)}
    assert layers == expected | {"bn1", "layer2.0.downsample.1", "layer3.0.downsample.1"}
    for published in (state, {f"module.{k}": v for k, v in state.items()}):
        target = network(kind="online")
        load_strict(target, import_online_norm(published), what="resnet20")
        assert all(torch.equal(value, target.state_dict()[key]) for key, value in state.items())
        images = torch.randn(2, 3, 16, 16)
        assert torch.equal(source.eval()(images), target.eval()(images))


def as_batched(state: dict[str, Tensor], abkw: float, samples: int = 3, name: str = "norm") -> dict[str, Tensor]:
    """The layout of the batched variant: the last N states, u as an average, helpers beside it."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, dot, buffer = key.partition(".norm.")
        if not dot:
            out[key] = value
            continue
        rows = torch.cat([torch.randn(samples - 1, len(value)), value[None]])
        new = {"u": "u", "v": "v_p"}.get(buffer, buffer)
        out[f"{layer}.{name}.{new}"] = rows * (1 - abkw) if buffer == "u" else rows
        if buffer != "v":
            out[f"{layer}.{name}.{buffer}_p"] = torch.randn(samples, len(value))
        else:
            out[f"{layer}.{name}.alpha_p"] = torch.rand(samples, len(value))
            out[f"{layer}.{name}.beta_p"] = torch.rand(samples, len(value))
    return out


@pytest.mark.parametrize("name", ["norm", "ctrl_norm"])
def test_the_batched_layout(name: str) -> None:
    state = trained_online().state_dict()
    batched = as_batched(state, 0.9, name=name)
    assert sum(f".{name}." in key for key in batched) == 9 * 21
    imported = import_online_norm(batched, abkw=0.9)
    assert imported.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(imported[key], value)
    with pytest.raises(WeightsError, match="pass abkw"):
        import_online_norm(batched)
    with pytest.raises(WeightsError, match="abkw must lie in"):
        import_online_norm(batched, abkw=1.0)


def test_the_batched_control_continues_as_ours() -> None:
    """u of the batched variant is the average U_n = a U_{n-1} + (1 - a) h_n, ours the sum u_n = a u_{n-1} + h_n."""
    abkw, h = 0.75, torch.randn(5, 2)
    ours, average = torch.zeros(2), torch.zeros(2)
    for row in h:
        ours, average = abkw * ours + row, abkw * average + (1 - abkw) * row
    others = ("m", "var", "v_p", "m_p", "var_p", "u_p", "alpha_p", "beta_p")
    batched = {f"x.norm.{name}": torch.zeros(1, 2) for name in others}
    imported = import_online_norm({**batched, "x.norm.u": average[None]}, abkw)
    torch.testing.assert_close(imported["x.norm.u"], ours)


def test_what_does_not_fit_is_named() -> None:
    state = trained_online().state_dict()
    with pytest.raises(WeightsError, match=re.escape("layer1.0.bn1.norm: missing u")):
        import_online_norm({k: v for k, v in state.items() if k != "layer1.0.bn1.norm.u"})
    with pytest.raises(WeightsError, match=re.escape("bn1.norm: left over u_p")):
        import_online_norm({**state, "bn1.norm.u_p": torch.zeros(16)})
    with pytest.raises(WeightsError, match=re.escape("bn1.norm.m has shape (2, 16), not [C]")):
        import_online_norm({**state, "bn1.norm.m": torch.zeros(2, 16)})
    with pytest.raises(WeightsError, match=re.escape("two keys stand for bn1.norm.m")):
        import_online_norm({**state, "bn1.ctrl_norm.m": torch.zeros(16)})
    with pytest.raises(WeightsError, match="no online normalisation"):
        import_online_norm(network(kind="batch").state_dict())
    with pytest.raises(WeightsError, match="no batch norm"):
        batch_to_online(state)
    with pytest.raises(WeightsError, match=re.escape("bn1.running_var is missing")):
        batch_to_online({"bn1.running_mean": torch.zeros(3)})
    with pytest.raises(WeightsError, match=re.escape("1 left over (bn1.norm.w)")):
        load_strict(network(kind="online"), import_online_norm({**state, "bn1.norm.w": torch.zeros(16)}), what="x")


def test_a_batch_norm_network_becomes_an_online_one() -> None:
    source = network(kind="batch")
    for _ in range(3):
        source(torch.randn(8, 3, 16, 16) + 1)
    converted = batch_to_online({f"module.{k}": v for k, v in source.state_dict().items()})
    images = torch.randn(3, 3, 16, 16)
    for norm in ({"ecm": "none"}, {"ecm": "ac", "clamp_val": 1e6}):
        target = network(kind="online", **norm)
        load_strict(target, converted, what="resnet20")
        torch.testing.assert_close(target.eval()(images), source.eval()(images))
    assert torch.equal(converted["bn1.norm.u"], torch.zeros(16))
    target = network(kind="online")
    load_strict(target, converted, what="resnet20")
    target(images).sum().backward()
