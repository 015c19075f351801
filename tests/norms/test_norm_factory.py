"""The norm option and the networks that it makes: kinds, parameters, what they cost, how they decay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from baselines.config import ResNetConfig
from baselines.method import ResNetBaseline
from baselines.norms.config import PARAMETERS, NormConfig
from baselines.norms.factory import norm_layer
from baselines.norms.online import OnlineNorm2d
from baselines.resnet import CifarResNet, imagenet_resnet
from bench.config.data import DataSpec
from bench.config.load import load_config
from bench.config.resolve import resolve
from bench.config.schema import Recipe
from bench.cost import count_module, count_units, estimate_memory
from bench.errors import ConfigError
from bench.train.optim import is_norm, parameter_groups

KINDS = get_args(NormConfig.model_fields["kind"].annotation)
DATA = DataSpec("cifar10", 10, 32)


def option(kind: str) -> NormConfig:
    return NormConfig.model_validate({"kind": kind, **({"gn_num_groups": 8} if kind == "group" else {})})


def resnet20(kind: str) -> CifarResNet:
    return CifarResNet(20, 10, "B", norm_layer(option(kind)))


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# ---- the option ------------------------------------------------------------------------------------
def test_every_kind_is_described() -> None:
    assert set(KINDS) == set(PARAMETERS) == {"batch", "group", "layer", "instance", "online", "none"}


@pytest.mark.parametrize(("values", "message"), [
    ({"kind": "online", "momentum": 0.1}, r"momentum is a parameter of norm batch, not of online \(online takes eps"),
    ({"kind": "batch", "gn_num_groups": 8}, "gn_num_groups is a parameter of norm group, not of batch"),
    ({"kind": "layer", "ecm": "ls"}, "ecm is a parameter of norm online, not of layer"),
    ({"kind": "none", "eps": 1e-3}, r"eps is a parameter of .*, not of none \(none takes no parameters\)"),
    ({"kind": "online", "clamp_val": 3.0}, "clamp_val does something under ecm: ac only, not under ecm: ls"),
    ({"kind": "online", "ecm": "none", "ls_eps": 1e-4}, "ls_eps does something under ecm: ls only"),
    ({"kind": "online", "afwd": 1.0}, "less than 1"),
    ({"kind": "group", "gn_num_groups": 0}, "greater than or equal to 1"),
    ({"kind": "weight"}, "'batch', 'group', 'layer', 'instance', 'online' or 'none'"),
    ({"kind": "online", "alpha": 0.9}, "Extra inputs are not permitted"),
])  # fmt: skip
def test_parameters_of_another_kind_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NormConfig.model_validate(values)


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_is_written_with_what_matters_and_read_back(kind: str) -> None:
    config = option(kind)
    written = config.model_dump(mode="json")
    assert set(written) == {"kind", *config.parameters()} <= {"kind", *PARAMETERS[kind]}
    assert NormConfig.model_validate(written).parameters() == config.parameters()
    whole = ResNetConfig(depth=20, norm=config).model_dump(mode="json")
    assert ResNetConfig.model_validate(whole).norm.parameters() == config.parameters()


def test_a_bare_name_stands_for_the_defaults() -> None:
    assert ResNetConfig.model_validate({"depth": 20, "norm": "online"}).norm == NormConfig(kind="online")


def test_a_wrong_option_in_a_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "norms.yaml"
    file.write_text(
        "name: x\ndata: {name: synthetic}\nruns:\n"
        "  - name: a\n    method: resnet\n    options: {depth: 20, norm: {kind: batch, ecm: ls}}\n"
    )
    with pytest.raises(ConfigError, match="ecm is a parameter of norm online, not of batch") as caught:
        resolve(load_config(file))
    assert len(str(caught.value).splitlines()) == 1


def test_reading_options_does_not_import_torch(repo_root: Path) -> None:
    code = "import sys, baselines.norms.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repo_root).returncode == 0


# ---- the networks ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_there_at_construction_and_one_per_channel(kind: str) -> None:
    network = resnet20(kind)
    before = dict(network.named_parameters())
    assert parameters(network) == (270_906 if kind == "none" else 272_474)
    assert sum(b.numel() for b in network.buffers()) == {"batch": 1_589, "online": 3_136}.get(kind, 0)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    network(torch.randn(2, 3, 48, 40))
    after = dict(network.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is p and p.grad is not None for name, p in before.items())
    affine = [m for m in network.modules() if is_norm(m)]
    assert len(affine) == (0 if kind == "none" else 21)
    assert all(m.weight.dim() == m.bias.dim() == 1 for m in affine)
    assert sum(m.weight.numel() for m in affine) == (0 if kind == "none" else 784)


@pytest.mark.parametrize(("depth", "small", "large"), [
    (8, 78_042, 83_892), (14, 175_258, 181_108), (20, 272_474, 278_324), (32, 466_906, 472_756),
    (44, 661_338, 667_188), (56, 855_770, 861_620), (110, 1_730_714, 1_736_564),
])  # fmt: skip
def test_parameters_of_the_cifar_networks(depth: int, small: int, large: int) -> None:
    make = norm_layer(NormConfig(kind="online"))
    with torch.device("meta"):
        assert parameters(CifarResNet(depth, 10, "B", make)) == small
        assert parameters(CifarResNet(depth, 100, "B", make)) == large


@pytest.mark.parametrize(("arch", "count"), [
    ("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet101", 44_549_160),
    ("resnet152", 60_192_808), ("resnext50_32x4d", 25_028_904), ("resnext101_32x8d", 88_791_336),
])  # fmt: skip
def test_parameters_of_the_imagenet_networks(arch: str, count: int) -> None:
    with torch.device("meta"):
        for kind in ("online", "group", "layer"):
            assert parameters(imagenet_resnet(arch, norm_layer=norm_layer(NormConfig(kind=kind)))) == count


def test_parameters_reach_the_layers() -> None:
    online = norm_layer(NormConfig(kind="online", afwd=0.75, abkw=0.5, ecm="ac", clamp_val=2.0, eps=0.25))(4)
    assert isinstance(online, OnlineNorm2d)
    assert online.settings == (0.75, 0.5, 0.25, "ac", 2.0, 1e-5)
    group = norm_layer(NormConfig(kind="group", gn_num_groups=2, eps=0.25))(8)
    assert (group.num_groups, group.num_channels, group.eps) == (2, 8, 0.25)
    batch = norm_layer(NormConfig(kind="batch", momentum=0.5))(8)
    assert (batch.momentum, batch.eps) == (0.5, 1e-5)
    instance = norm_layer(NormConfig(kind="instance"))(8)
    assert instance.affine
    assert instance.running_mean is None


def test_layer_norm_takes_statistics_over_channels_and_positions() -> None:
    layer = norm_layer(NormConfig(kind="layer"))(6)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
    x = torch.randn(3, 6, 4, 5) * 2 + 1
    expected = nn.functional.layer_norm(x, (6, 4, 5)) * layer.weight[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)


def test_groups_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="gn_num_groups 32 does not divide the 16 channels of a layer"):
        CifarResNet(20, 10, "B", norm_layer(NormConfig(kind="group")))


# ---- what they cost --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_does_not_move_the_headline(kind: str) -> None:
    method = ResNetBaseline(ResNetConfig(depth=20, shortcut="B", norm=option(kind)), DATA)
    network = method.build(method.stages()[-1])
    table = count_units(method, network)
    total = {column: int(values.sum()) for column, values in table.columns.items()}
    elements = 12 * 16 * 1024 - 5 * 16 * 1024 + 7 * 32 * 256 + 7 * 64 * 64  # of all 21 norms: 7 per width
    per_element = {"none": 0, "batch": 2, "online": 5}.get(kind, 5)
    without = _elementwise_without_norm()
    assert total["macs"] == 40_813_184
    assert total["macs_elementwise"] == without["macs_elementwise"] + per_element * elements
    assert total["macs_fvcore"] == without["macs_fvcore"] + per_element * elements


def _elementwise_without_norm() -> dict[str, int]:
    method = ResNetBaseline(ResNetConfig(depth=20, shortcut="B", norm=NormConfig(kind="none")), DATA)
    table = count_units(method, method.build(method.stages()[-1]))
    return {column: int(values.sum()) for column, values in table.columns.items()}


@pytest.mark.parametrize(("ecm", "affine", "weight"), [
    ("ls", True, 5), ("ls", False, 4), ("ac", True, 3), ("none", True, 2), ("none", False, 1),
])  # fmt: skip
def test_elementwise_cost_of_online_norm(ecm: str, affine: bool, weight: int) -> None:
    layer = OnlineNorm2d(6, ecm=ecm, affine=affine).train()
    counted = count_module(layer, (torch.zeros(2, 6, 5, 7),))
    elements = 2 * 6 * 5 * 7
    assert counted == {"macs": 0, "macs_elementwise": weight * elements, "macs_fvcore": weight * elements}
    assert layer.training
    assert torch.equal(layer.norm.m, torch.zeros(6))


def test_memory_of_a_training_step_is_that_of_batch_norm() -> None:
    recipe = Recipe(batch_size=128)
    found = {}
    for kind in ("batch", "online"):
        method = ResNetBaseline(ResNetConfig(depth=20, shortcut="B", norm=NormConfig(kind=kind)), DATA)
        found[kind] = estimate_memory(method, method.stages()[-1], recipe)["activations"]
    streams = 4 * 4 * 784 * 128 + 21 * 4 * 128
    assert found["batch"] < found["online"] <= found["batch"] + streams


# ---- how they decay --------------------------------------------------------------------------------
def decayed(network: nn.Module, recipe: Recipe) -> dict[str, float]:
    names = {id(p): name for name, p in network.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in parameter_groups(network, recipe) for p in group["params"]}


@pytest.mark.parametrize("kind", ["batch", "online", "group"])
def test_weight_decay_as_released_and_as_intended(kind: str, repo_root: Path) -> None:
    """Released: the biases of the 53 norms of a ResNet-50 go free. Intended: their scales too."""
    with torch.device("meta"):
        network = imagenet_resnet("resnet50", norm_layer=norm_layer(NormConfig(kind=kind)))
    free = {}
    for file in ("imagenet_resnet50_norms.yaml", "norms/imagenet_decay_intended.yaml"):
        recipe = load_config(repo_root / "configs" / file).comparison.recipe
        decay = decayed(network, recipe)
        assert set(decay.values()) == {0.0, 1e-4}
        free[file] = {name for name, value in decay.items() if value == 0.0}
    released, intended = free.values()
    biases = {name for name in dict(network.named_parameters()) if name.endswith(".bias") and name != "fc.bias"}
    assert released == biases
    assert len(released) == 53
    assert intended == biases | {name.removesuffix("bias") + "weight" for name in biases}
