"""Released names in and out: every form that such a file can have, and every key accounted for."""

from __future__ import annotations

import pytest
import torch
from skipnet_golden import GOLDEN, golden_weights
from skipnet_nets import DATA, lively_network, random_batch
from torch import Tensor

import bench
from bench.config.data import DataSpec
from bench.errors import WeightsError
from methods.skipnet.archs import MISSPELT
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet

ARCH = "cifar10_rnn_gate_38"


@pytest.fixture
def released() -> dict[str, Tensor]:
    return golden_weights(GOLDEN[ARCH]["state_dict_shapes"])


def logits(network: GatedResNet) -> Tensor:
    with torch.no_grad():
        return network.eval()(random_batch(3).images)


def test_every_form_of_a_released_file_gives_the_same_network(released: dict[str, Tensor]) -> None:
    expected = logits(SkipNet.import_weights(ARCH, released)[1])
    imagenet_projection = {**released, "control.proj.weight": released["control.proj.weight"].reshape(1, 10, 1, 1)}
    counted = {f"{key[:-12]}num_batches_tracked": torch.tensor(7) for key in released if key.endswith("running_mean")}
    forms = {
        "module.": {f"module.{key}": value for key, value in released.items()},
        "no aliases": {key: value for key, value in released.items() if "_ds" not in key},
        "aliases only": {key: value for key, value in released.items() if ".downsample" not in key},
        "no gate behind the last block": {k: v for k, v in released.items() if "group3_gate5" not in k},
        "projection as a convolution": imagenet_projection,
        "counted batches": {**released, **counted},
        "whole checkpoint": {"iter": 1, "arch": ARCH, "state_dict": released, "best_prec1": 92.0},
    }
    for name, form in forms.items():
        assert torch.equal(logits(SkipNet.import_weights(ARCH, form)[1]), expected), name


@pytest.mark.parametrize(("change", "message"), [
    ({"conv1.weight": None}, "missing conv1.weight"),
    ({"group2_ds0.0.weight": None, "group2_layer0.downsample.0.weight": None}, "missing group2_layer0"),
    ({"group1_gate0.1.bias": None}, "missing group1_gate0.1.bias"),
    ({"extra.weight": torch.zeros(1)}, "left over extra.weight"),
    ({"group4_gate0.1.bias": torch.zeros(10)}, "left over group4_gate0.1.bias"),
    ({"fc.weight": torch.zeros(100, 64)}, "fc.weight has shape (100, 64) instead of (10, 64)"),
    ({"fc.weight": torch.zeros(10, 64, 1, 1)}, "fc.weight has shape (10, 64, 1, 1) instead of (10, 64)"),
    ({"group2_ds0.1.bias": torch.ones(32)}, "its alias group2_ds0.1.bias differ"),
    ({"group3_gate5.1.weight": torch.zeros(3)}, "group3_gate5.1.weight has shape (3,)"),
    ({"epoch": 3}, "'epoch' is no tensor"),
])  # fmt: skip
def test_every_key_is_accounted_for(released: dict[str, Tensor], change: dict, message: str) -> None:
    changed = {key: value for key, value in {**released, **change}.items() if value is not None}
    with pytest.raises(WeightsError) as caught:
        SkipNet.import_weights(ARCH, changed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ARCH in str(caught.value)


def test_many_problems_are_counted() -> None:
    with pytest.raises(WeightsError, match=r"and \d+ more"):
        SkipNet.import_weights(ARCH, {"conv1.weight": torch.zeros(16, 3, 3, 3)})


@pytest.mark.parametrize("arch", list(GOLDEN))
def test_export_has_exactly_the_released_names_and_shapes(arch: str) -> None:
    shapes = GOLDEN[arch]["state_dict_shapes"]
    weights = golden_weights(shapes)
    method, network = SkipNet.import_weights(arch, weights)
    exported = {k: v for k, v in method.export_weights(network).items() if not k.endswith("num_batches_tracked")}
    assert {key: list(value.shape) for key, value in exported.items()} == shapes
    last = "group4_gate2" if "imagenet" in arch else "group3_gate5"
    for key, value in exported.items():
        if not key.startswith(last):
            assert torch.equal(value, weights[key]), key


@pytest.mark.parametrize("options", [
    {"depth": 8, "width": 5}, {"depth": 8, "gate": "ff1"}, {"depth": 14, "gate": "ff2"}, {"depth": 14, "gate": "none"},
    {"arch": "resnet18"}, {"arch": "resnet18", "gate": "ff2"},
])  # fmt: skip
def test_round_trip_of_any_network(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.method import Arch

    data = DataSpec("cifar10", 10, 32)
    config = SkipNetConfig(**options)
    monkeypatch.setattr(SkipNet, "archs", classmethod(lambda cls: {"any": Arch(config, data)}))
    method = SkipNet(config, data)
    network = lively_network(method) if config.gate != "none" else method.build(method.stages()[0])
    again = SkipNet.import_weights("any", method.export_weights(network))[1]
    own, theirs = network.state_dict(), again.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)


def test_export_gives_copies() -> None:
    method = SkipNet(SkipNetConfig(depth=8), DATA)
    network = method.build(method.stages()[0])
    before = network.stem.conv1.weight.detach().clone()
    for value in method.export_weights(network).values():
        if value.is_floating_point():
            value.zero_()
    assert torch.equal(network.stem.conv1.weight, before)


def test_all_released_constructors_are_there() -> None:
    archs = SkipNet.archs()
    expected = set(MISSPELT)
    kinds = dict.fromkeys(("resnet", "rnn_gate"), (38, 74, 110, 152))
    kinds.update(dict.fromkeys(("rnn_gate_rl", "feedforward", "feedforward_rl"), (38, 74, 110)))
    for classes in (10, 100):
        expected |= {f"cifar{classes}_{kind}_{depth}" for kind, depths in kinds.items() for depth in depths}
    expected |= {f"resnet{depth}" for depth in (18, 34, 50, 74, 101, 152)}
    expected |= {f"imagenet_rnn_gate{rl}_{depth}" for depth in (18, 34, 50, 101, 152) for rl in ("", "_rl")}
    assert set(archs) == expected
    for released_name, meant in MISSPELT.items():
        assert archs[released_name] == archs[meant]
    assert archs["cifar100_feedforward_110"].config.gate == "ff2"
    assert archs["cifar10_feedforward_74"].config.gate == "ff1"
    assert archs["cifar100_resnet_38"].data.num_classes == 100
    assert archs["imagenet_rnn_gate_rl_101"].data.image_size == 224


@pytest.mark.slow
@pytest.mark.parametrize("name", SkipNet.archs())
def test_every_released_arch_builds_and_takes_its_own_export(name: str) -> None:
    arch = SkipNet.archs()[name]
    method = SkipNet(arch.config, arch.data)
    network = method.build(method.stages()[0])
    again = SkipNet.import_weights(name, method.export_weights(network))[1]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_the_ungated_imagenet_74_has_14_blocks_in_group_3() -> None:
    arch = SkipNet.archs()["resnet74"]
    with torch.device("meta"):
        network = SkipNet(arch.config, arch.data).build(SkipNet(arch.config, arch.data).stages()[0])
    assert [sum(place.group == group for place in network.places) for group in (1, 2, 3, 4)] == [3, 4, 14, 3]


def test_supervised_weights_load_into_the_reinforced_twin(released: dict[str, Tensor]) -> None:
    for arch in ("cifar10_rnn_gate_rl_38", ARCH):
        method, network = SkipNet.import_weights(arch, released)
        assert method.stages()[-1].name == ("hrl" if "rl" in arch else "sp")
        assert torch.equal(logits(network), logits(SkipNet.import_weights(ARCH, released)[1]))


def test_import_through_the_registry(released: dict[str, Tensor]) -> None:
    method, network = bench.import_official("skipnet", ARCH, released)
    assert not network.training
    decisions = method.record(network, random_batch(3).images)
    # without autograd the gates' products are grouped otherwise
    torch.testing.assert_close(decisions.logits[0], logits(network), rtol=1e-5, atol=1e-6)
    assert decisions.counts.shape == (1, 3, len(method.units(network)))


def test_unknown_architecture() -> None:
    with pytest.raises(WeightsError, match="did you mean 'cifar10_rnn_gate_38'"):
        SkipNet.import_weights("cifar10_rnn_gate38", {})
