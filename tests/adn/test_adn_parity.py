"""Every skip configuration of every backbone against plain torchvision networks: difference 0."""

from __future__ import annotations

import copy
from itertools import product

import adn_oracle as oracle
import pytest
import torch
from torch import nn
from torchvision import models

from baselines.resnet import CifarResNet
from bench.config.data import DataSpec
from methods.adn.blocks import skip_aware_norms
from methods.adn.config import ADNConfig
from methods.adn.families import build_network
from methods.adn.method import ADN

ARCHS = sorted(oracle.TABLE)
SIDE = 64
DATA = DataSpec("imagenet", 1000, SIDE)


#: The larger ones of each kind: all configurations only in the slow test.
LARGE = ("resnet50vd", "resnet101", "resnet101vd", "vit_b_16", "vit_b_32", "swin_v2_t")


def _flags(arch: str) -> list[oracle.Flags]:
    return list(product((False, True), repeat=len(oracle.TABLE[arch][0])))


def _compare(adaptive, arch: str, configurations: list[oracle.Flags]) -> None:
    method, network = adaptive
    released = method.export_weights(network)
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        walked = dict(network.walk(images))
        assert list(walked) == _flags(arch)
        for flags in configurations:
            expected = oracle.composed(arch, released, flags, SIDE)(images)
            assert torch.equal(network(images, flags), expected), flags
            assert torch.equal(walked[flags], expected), flags
    logits = torch.cat(list(walked.values()))
    assert len(torch.unique(logits, dim=0)) == len(walked), "two configurations are the same network"


@pytest.mark.parametrize(("adaptive", "arch"), [(a, a) for a in ARCHS], indirect=["adaptive"])
def test_configurations_equal_hand_composed_torchvision_networks(adaptive, arch):
    """All of them; of the larger backbones the ends and two between (the rest is a slow test)."""
    flags = _flags(arch)
    _compare(adaptive, arch, [flags[0], flags[5], flags[9], flags[-1]] if arch in LARGE else flags)


@pytest.mark.slow
@pytest.mark.parametrize(("adaptive", "arch"), [(a, a) for a in LARGE], indirect=["adaptive"])
def test_all_configurations_of_the_larger_backbones(adaptive, arch):
    _compare(adaptive, arch, _flags(arch))


@pytest.mark.parametrize(("adaptive", "arch"), [(a, a) for a in ARCHS], indirect=["adaptive"])
def test_exactly_the_norms_of_the_table_fire(adaptive, arch):
    method, network = adaptive
    released = _released_modules(method, network)
    norms = {m: released[n] for n, m in network.named_modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))}
    table = oracle.norm_table(arch)
    assert len(norms) == len(set(norms.values())) == sum(1 if flag is None else 2 for flag in table.values())
    ran: list[str] = []
    handles = [m.register_forward_hook(lambda m, *_: ran.append(norms[m])) for m in norms]
    try:
        with torch.no_grad():
            for flags in _flags(arch):
                ran.clear()
                network(torch.zeros(1, 3, SIDE, SIDE), flags)
                assert set(ran) == oracle.fired(arch, flags), flags
                assert len(ran) == len(set(ran)), "a norm ran twice"
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    ("adaptive", "count"),
    [("resnet50", 27), ("mobilenet_v2", 34), ("swin_t", 15), ("vit_b_32", 16)],
    indirect=["adaptive"],
)
def test_swapping_any_pair_of_norms_shows(adaptive, count):
    _, network = adaptive
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    pairs = dict(skip_aware_norms(network))
    assert len(pairs) == count
    with torch.no_grad():
        before = network(images, "super"), network(images, "base")
        for name, norm in pairs.items():
            norm.main, norm.skip = norm.skip, norm.main
            after = network(images, "super"), network(images, "base")
            norm.main, norm.skip = norm.skip, norm.main
            assert not torch.equal(before[0], after[0]), name
            assert not torch.equal(before[1], after[1]), name


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=[pytest.mark.slow] if arch in ("resnet101", "vit_b_16", "swin_v2_t") else [])
        for arch in ARCHS
        if not arch.endswith("vd")
    ],
)
def test_same_seed_same_weights_as_torchvision(arch):
    size = {"image_size": SIDE} if arch.startswith("vit") else {}
    torch.manual_seed(3)
    ours = build_network(ADNConfig(arch=arch), DATA)
    after = torch.rand(4)
    torch.manual_seed(3)
    theirs = models.get_model(arch, weights=None, **size)
    assert torch.equal(after, torch.rand(4)), "another number of random draws"
    released = ADN(ADNConfig(arch=arch), DATA).export_weights(ours)
    skip = (False,) * len(oracle.TABLE[arch][0])
    renamed = dict(oracle._translate(arch, released, skip))
    assert renamed.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(renamed[name], tensor), name
    for name, norm in skip_aware_norms(ours):
        for main, twin in zip(norm.main.state_dict().values(), norm.skip.state_dict().values()):
            assert torch.equal(main, twin), name
            assert main.data_ptr() != twin.data_ptr()


@pytest.mark.parametrize(("depth", "shortcut", "base"), [(14, "A", 8), (20, "A", 14), (32, "B", 20)])
def test_cifar_super_and_base_net_are_resnets(depth, shortcut, base):
    data = DataSpec("cifar10", 10, 32)
    method = ADN(ADNConfig(depth=depth, shortcut=shortcut), data)
    torch.manual_seed(0)
    network = method.build(method.stages()[-1])
    torch.manual_seed(0)
    plain = CifarResNet(depth, 10, shortcut)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), plain(images)), "not the same initial weights"
        oracle.randomise(network)
        network.eval()
        points = method.points(network)
        assert [p.name for p in points] == ["".join(w) for w in product("FT", repeat=3)]
        released = method.export_weights(network)
        for point in (points[0], points[-1]):
            skip = point.settings["skip"]
            shallow = CifarResNet(base if skip[0] else depth, 10, shortcut).eval()
            few = [shallow.layer1, shallow.layer2, shallow.layer3]
            state = {}
            for key in shallow.state_dict():
                words = key.split(".")
                if skip[0] and words[0].startswith("layer") and words[2] in ("bn1", "bn2"):
                    words[2] += "_skip"
                state[key] = released[".".join(words)]
            shallow.load_state_dict(state)
            assert len(few[0]) == (depth if not skip[0] else base) // 6
            assert torch.equal(network(images, skip), shallow(images))


def test_without_skip_aware_norms_all_configurations_share_theirs():
    data = DataSpec("cifar10", 10, 32)
    torch.manual_seed(0)
    method = ADN(ADNConfig(depth=20, skip_aware=False), data)
    network = method.build_last().eval()
    oracle.randomise(network)
    assert not list(skip_aware_norms(network))
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in CifarResNet(20).parameters())
    ran: dict[str, int] = {}
    for unit in method.units(network):
        unit.module.register_forward_hook(lambda *_, name=unit.name: ran.__setitem__(name, ran.get(name, 0) + 1))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        walked = dict(network.walk(images))
        # The shortened stage is the beginning of the whole one, so its blocks run once for both.
        assert ran["stem"] == 1
        assert [ran[f"layer3.{b}"] for b in range(3)] == [4, 4, 4]
        for skip, logits in walked.items():
            plain = copy.deepcopy(network)
            for stage, flag in zip(plain.stages, skip):
                if flag:
                    stage.blocks, stage.skippable = stage.blocks[:2], stage.skippable[:2]
            assert torch.equal(plain(images, "super"), logits)


def test_mandatory_blocks_can_be_chosen():
    data = DataSpec("imagenet", 10, SIDE)
    method = ADN(ADNConfig(arch="resnet50", mandatory=(1, 3, 5, 3)), data)
    network = method.build_last()
    assert [sum(stage.skippable) for stage in network.stages] == [2, 1, 1, 0]
    counts = method.walker(network).counts()
    assert counts.shape == (16, 18)
    assert counts[-1].sum() == 2 + 1 + 3 + 5 + 3


def _released_modules(method: ADN, network: nn.Module) -> dict[str, str]:
    """Our path of every module that holds tensors -> its released path."""
    keys = zip(network.state_dict(), method.export_weights(network))
    return {ours.rpartition(".")[0]: theirs.rpartition(".")[0] for ours, theirs in keys}
