"""Parameters and MACs of every published network, to the integer, and the released measure of computation."""

from __future__ import annotations

import pytest
import torch
from skipnet_nets import DATA, lively_network, random_batch

from bench.config.data import DataSpec
from bench.cost.count import count_module
from bench.cost.units import count_units
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet
from methods.skipnet.weights import to_released

IMAGENET = DataSpec("imagenet", 1000, 224)

# depth: params ungated, with the released recurrent gates, with the released feed-forward gates and their kind,
# MACs ungated, recurrent gates in per cent of them, feed-forward gates in per cent
CIFAR = {
    38: (564_122, 571_913, 1_148_798, "ff1", 83_280_512, 0.024, 15.05),
    74: (1_147_418, 1_162_109, 2_316_770, "ff1", 168_215_168, 0.024, 15.34),
    110: (1_730_714, 1_752_305, 2_609_798, "ff2", 253_149_824, 0.025, 12.35),
    152: (2_411_226, 2_440_867, None, None, 352_240_256, 0.025, None),
}
# arch: params ungated, with the released recurrent gates, MACs ungated, gates in per cent, always-on share
LARGE = {
    "resnet18": (11_689_512, 11_709_683, 1_814_073_344, 0.001, 20.4),
    "resnet34": (21_797_672, 21_836_483, 3_663_761_408, 0.001, 10.1),
    "resnet50": (25_557_032, 25_709_123, 4_089_184_256, 0.003, 16.1),
    "resnet101": (44_549_160, 44_875_501, 7_801_405_440, 0.004, 8.5),
    "resnet152": (60_192_808, 60_672_919, 11_513_626_624, 0.004, 5.7),
}
AS_BUILT = {38: 571_263, 74: 1_161_459, 110: 1_751_655}


def build(config: SkipNetConfig, data: DataSpec = DATA) -> tuple[SkipNet, GatedResNet]:
    method = SkipNet(config, data)
    return method, method.build(method.stages()[0]).eval()


def parameters(network: GatedResNet) -> int:
    return sum(p.numel() for p in network.parameters())


def released_parameters(network: GatedResNet) -> int:
    """Counted from the released names, the last gate's included and aliases once."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    weights = to_released(network)
    return sum(v.numel() for k, v in weights.items() if "_ds" not in k and not k.endswith(statistics))


COUNTED: dict[str, int] = {}


def macs_of(method: SkipNet, network: GatedResNet) -> dict[str, int]:
    """MACs of each unit; units of the same layers on the same shapes are counted once."""
    found = {}
    for unit in method.units(network):
        alike = f"{unit.module} {[tuple(x.shape) for x in unit.inputs]}"
        if alike not in COUNTED:
            COUNTED[alike] = count_module(unit.module, unit.inputs, unit.name)["macs"]
        found[unit.name] = COUNTED[alike]
    return found


def macs_by_kind(macs: dict[str, int]) -> dict[str, int]:
    """MACs of everything that runs when all gates are open, by kind of unit; the control once per gate."""
    found: dict[str, int] = {}
    gates = sum(name.startswith("gate") for name in macs)
    for name, value in macs.items():
        kind = name.rstrip("0123456789")
        found[kind] = found.get(kind, 0) + value * (gates if name == "control" else 1)
    found["gates"] = found.pop("gate", 0) + found.pop("control", 0)
    return found


@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_tables(depth: int) -> None:
    base, recurrent, forward, kind, macs, recurrent_share, forward_share = CIFAR[depth]
    _, plain = build(SkipNetConfig(depth=depth, gate="none"))
    assert parameters(plain) == base
    method, network = build(SkipNetConfig(depth=depth))
    assert released_parameters(network) == recurrent
    assert parameters(network) == AS_BUILT.get(depth, recurrent - 650)
    spent = macs_by_kind(macs_of(method, network))
    gates = spent.pop("gates")
    assert sum(spent.values()) == macs
    assert gates == sum(10 * place.out_channels + 810 for place in network.places[:-1])
    assert round(100 * gates / macs, 3) == recurrent_share
    if forward is None:
        return
    method, network = build(SkipNetConfig(depth=depth, gate=kind))
    assert released_parameters(network) == forward
    spent = macs_by_kind(macs_of(method, network))
    assert round(100 * spent["gates"] / macs, 2) == forward_share


def test_cifar_units() -> None:
    method, network = build(SkipNetConfig(depth=38))
    counted = count_units(method, network)
    assert counted.total_params() == parameters(network)
    assert counted.params_outside == 0
    table = dict(zip(counted.units, counted.columns["macs"].tolist()))
    assert table == macs_of(method, network)
    assert [table[f"block{i}"] for i in range(18)] == [4_718_592] * 6 + ([3_538_944] + [4_718_592] * 5) * 2
    assert table["stem"] == 442_368
    assert table["head"] == 640
    assert table["projection6"] == table["projection12"] == 131_072
    assert [table[f"gate{k}"] + table["control"] for k in (0, 6, 12)] == [970, 1130, 1450]
    for kind, expected in (("ff1", [737_312, 737_344, 737_408]), ("ff2", [589_856, 589_888, 589_952])):
        table = macs_of(*build(SkipNetConfig(depth=38, gate=kind)))
        assert [table[f"gate{k}"] for k in (0, 6, 12)] == expected


@pytest.mark.parametrize("arch", LARGE)
def test_imagenet_tables(arch: str) -> None:
    base, recurrent, macs, share, always = LARGE[arch]
    with torch.device("meta"):
        method, network = build(SkipNetConfig(arch=arch), IMAGENET)
        _, plain = build(SkipNetConfig(arch=arch, gate="none"), IMAGENET)
    assert parameters(plain) == base
    assert parameters(network) == recurrent - 10 * network.places[-1].out_channels - 10
    network.to_empty(device="cpu")
    assert released_parameters(network) == recurrent
    one = macs_of(method, network)
    spent = macs_by_kind(one)
    gates = spent.pop("gates")
    assert sum(spent.values()) == macs
    assert round(100 * gates / macs, 3) == share
    always_on = one["stem"] + one["head"] + spent["projection"] + one["block0"]
    assert abs(100 * always_on / macs - always) < 0.07
    assert one["stem"] == 118_013_952
    assert one["head"] == (2_048_000 if arch not in ("resnet18", "resnet34") else 512_000)
    if arch == "resnet50":
        assert one["block0"] == 179_830_784
        assert one["projection0"] == 51_380_224
        assert one["block1"] == 218_365_952
        assert one["block3"] == one["block7"] == 269_746_176
        assert one["projection3"] == one["projection7"] == 102_760_448
    if arch == "resnet18":
        assert [one[name] for name in ("block1", "block2", "projection2")] == [231_211_008, 173_408_256, 6_422_528]


def test_computation_percentage_is_the_released_measure() -> None:
    method = SkipNet(SkipNetConfig(depth=38, thresholds=(0.3, 0.7)), DATA)
    network = lively_network(method).eval()
    decisions = method.record(network, random_batch(12).images)
    spent = count_units(method, network).cost(decisions.counts)
    for index, point in enumerate(method.points(network)):
        masks = network.route(random_batch(12).images, lambda k, z, t=point: z.sigmoid() > t.settings["threshold"])
        skipped = (masks.actions.double() <= 0.5).double().mean(1)
        released = 100 * float((1 - skipped).sum() + 1) / (len(network.gates) + 1)
        assert abs(float(spent["computation_percentage"][index].mean()) - released) < 1e-10
        executed = masks.actions.sum(0) + 1
        assert torch.equal(spent["executed_blocks"][index], executed.double())


def test_cost_of_an_image_is_what_ran() -> None:
    method = SkipNet(SkipNetConfig(depth=38), DATA)
    network = lively_network(method).eval()
    images = random_batch(6).images
    spent = count_units(method, network).cost(method.record(network, images).counts)["macs"][0]
    ran = network.route(images, lambda k, z: z > 0).actions
    regular, first = 4_718_592, 3_538_944
    sizes = torch.tensor([first if k + 1 in (6, 12) else regular for k in range(17)])
    gates = sum(10 * place.out_channels + 810 for place in network.places[:-1])
    always = 442_368 + 640 + 2 * 131_072 + regular + gates
    assert torch.equal(spent, (ran.long() * sizes[:, None]).sum(0) + always)
