"""MACs and parameters of every configuration against the published and the recomputed tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.config.data import DataSpec
from bench.cost.table import CostTable
from bench.cost.units import count_units
from methods.adn.blocks import skip_aware_norms
from methods.adn.config import ADNConfig
from methods.adn.families import build_network, build_plain
from methods.adn.method import ADN, IMAGENET
from methods.adn.network import AdaptiveNetwork

#: README of the released code, in G (fvcore's convention, one image of 224 pixels); ViT FFFT is a misprint
#: there (16.20), one block being 1.4555 G.
PUBLISHED = {
    "resnet50": {"FFFF": 4.11, "TFFF": 3.90, "TTFF": 3.46, "TTTF": 2.80, "TTTT": 2.58},
    "mobilenet_v2": {"FFFFF": 0.32, "TTTTT": 0.22},
    "vit_b_16": {"FFFF": 17.58, "FFFT": 16.13, "TTFF": 14.67, "TTFT": 13.21, "TTTT": 11.76},
    "swin_t": {"FFFF": 4.49, "TFFF": 4.11, "TTFF": 3.75, "TTTT": 2.34},
    "resnet101": {"FFFF": 7.834, "TTTT": 4.547},
    "swin_v2_t": {"FFFF": 4.956, "TTTT": 2.574},
    "resnet50vd": {"FFFF": 4.1115, "TTTT": 2.5760},
}
#: All configurations in order, in G, fvcore's convention.
EVERY = {
    "resnet50": "4.112 3.893 3.455 3.236 3.672 3.454 3.016 2.797 3.891 3.672 3.234 3.015 3.452 3.233 2.795 2.576",
    "swin_t": "4.509 4.158 3.444 3.094 4.146 3.795 3.081 2.730 4.130 3.779 3.065 2.714 3.767 3.416 2.702 2.351",
}
#: Stored with both sets of norms, the second set, run by the super-net, run by the base-net.
PARAMETERS = {
    "resnet50": (25_583_144, 26_112, 25_557_032, 17_112_360),
    "resnet101": (44_602_920, 53_760, 44_549_160, 27_167_016),
    "mobilenet_v2": (3_527_544, 22_672, 3_504_872, 2_934_376),
    "vit_b_16": (86_592_232, 24_576, 86_567_656, 58_216_168),
    "vit_b_32": (88_248_808, 24_576, 88_224_232, 59_872_744),
    "swin_t": (28_302_562, 14_208, 28_288_354, 15_308_725),
    "swin_v2_t": (28_363_090, 11_520, 28_351_570, 15_338_989),
}
#: What each flag saves.
SAVED_PARAMETERS = {
    "resnet50": (70_400, 560_128, 3_351_552, 4_462_592),
    "mobilenet_v2": (8_832, 14_848, 108_544, 118_272, 320_000),
    "vit_b_16": (7_087_872,) * 4,
    "swin_t": (112_347, 445_878, 5_329_476, 7_091_928),
}
SAVED_MEGA = {
    "resnet50": (220.77, 439.14, 656.91, 218.67),
    "mobilenet_v2": (27.70, 11.64, 21.28, 23.18, 15.68),
    "vit_b_16": (1455.47,) * 4,
    "swin_t": (379.33, 363.07, 1064.86, 350.88),
}
SLOW = ("resnet101", "swin_v2_t", "resnet50vd")


@pytest.fixture(scope="module")
def counted(request) -> tuple[str, ADN, AdaptiveNetwork, CostTable]:
    method = ADN(ADNConfig(arch=request.param), IMAGENET)
    network = method.build(method.stages()[-1])
    return request.param, method, network, count_units(method, network)


def _cost(method: ADN, network: AdaptiveNetwork, table: CostTable, column: str) -> dict[str, int]:
    values = table.cost(method.walker(network).counts())[column].tolist()
    return {"".join("T" if f else "F" for f in skip): int(value) for skip, value in zip(network.skips(), values)}


@pytest.mark.parametrize(
    "counted",
    [pytest.param(arch, marks=[pytest.mark.slow] if arch in SLOW else []) for arch in PUBLISHED],
    indirect=True,
)
def test_macs(counted):
    arch, method, network, table = counted
    macs = _cost(method, network, table, "macs_fvcore")
    for name, published in PUBLISHED[arch].items():
        assert abs(macs[name] / 1e9 - published) <= 0.02, name
    if arch in EVERY:
        expected = [float(giga) for giga in EVERY[arch].split()]
        assert [value / 1e9 for value in macs.values()] == pytest.approx(expected, abs=6e-4)
    flags = network.split.flags
    for skip, value in zip(network.skips(), macs.values()):
        saved = [macs["F" * flags] - macs["F" * i + "T" + "F" * (flags - i - 1)] for i in range(flags) if skip[i]]
        assert value == macs["F" * flags] - sum(saved)
    for i, saved_mega in enumerate(SAVED_MEGA.get(arch, ())):
        saved_macs = macs["F" * flags] - macs["F" * i + "T" + "F" * (flags - i - 1)]
        assert saved_macs / 1e6 == pytest.approx(saved_mega, abs=0.03)
    assert table.params_outside == 0
    assert [point.name for point in method.points(network)] == list(macs)


@pytest.mark.parametrize("arch", PARAMETERS)
def test_parameters(arch):
    """Of the whole network, and of the plain networks that its two ends are."""
    config = ADNConfig(arch=arch)
    split = config.split()
    with torch.device("meta"):
        network = build_network(config, IMAGENET)
        ends = [build_plain(config, IMAGENET, depths) for depths in (split.blocks, split.mandatory)]
    stored, second, whole, short = PARAMETERS[arch]
    assert sum(p.numel() for p in network.parameters()) == stored
    assert sum(p.numel() for _, norm in skip_aware_norms(network) for p in norm.skip.parameters()) == second
    assert [sum(p.numel() for p in end.parameters()) for end in ends] == [whole, short]
    assert stored == whole + second


@pytest.mark.parametrize("counted", ["resnet50", "mobilenet_v2", "swin_t", "vit_b_16"], indirect=True)
def test_parameters_that_each_flag_saves(counted):
    """In the cost table, where a mandatory block brings both of its sets of norms."""
    arch, method, network, table = counted
    stored, second, _, short = PARAMETERS[arch]
    params = _cost(method, network, table, "params")
    flags = network.split.flags
    assert table.total_params() == params["F" * flags] == stored
    assert params["T" * flags] == short + second
    for i, saved in enumerate(SAVED_PARAMETERS[arch]):
        assert stored - params["F" * i + "T" + "F" * (flags - i - 1)] == saved


@pytest.mark.parametrize("counted", ["resnet50"], indirect=True)
def test_sharing_prefixes_saves_more_than_half_of_the_work(counted):
    """What really runs when all 16 points are recorded, by hooks, against 16 separate forwards."""
    _, method, network, table = counted
    macs = dict(zip(table.units, table.columns["macs_fvcore"].tolist()))
    spent = 0

    def spend(name: str) -> None:
        nonlocal spent
        spent += macs[name]

    units, counts = method.units(network), method.walker(network).counts()
    handles = [unit.module.register_forward_hook(lambda *_, name=unit.name: spend(name)) for unit in units]
    try:
        method.record(network.eval(), torch.zeros(1, 3, 64, 64))
        shared, spent = spent, 0
        with torch.no_grad():
            for skip in network.skips():
                network(torch.zeros(1, 3, 64, 64), skip)
    finally:
        for handle in handles:
            handle.remove()
    assert spent == int(table.cost(counts)["macs_fvcore"].sum())
    assert shared / spent == pytest.approx(0.465, abs=5e-4)


def test_counts_of_a_cifar_resnet():
    method = ADN(ADNConfig(depth=20), DataSpec("cifar10", 10, 32))
    network = method.build(method.stages()[-1])
    table = count_units(method, network)
    macs = _cost(method, network, table, "macs")
    # ResNet-20 and ResNet-14 (shortcut A).
    assert macs["FFF"] == 40_551_040
    assert macs["TTT"] == 26_395_264
    assert list(macs) == sorted(macs)


def test_making_units_changes_nothing():
    method = ADN(ADNConfig(depth=20), DataSpec("cifar10", 10, 32))
    network = method.build(method.stages()[-1]).train()
    network.stages[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    units = method.units(network)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [unit.name for unit in units][:3] == ["stem", "layer1.0", "layer1.1"]
    covered = {id(p) for unit in units for p in unit.module.parameters()}
    assert covered == {id(p) for p in network.parameters()}
    assert all(isinstance(unit.module, nn.Module) and unit.inputs[0].shape[0] == 1 for unit in units)
