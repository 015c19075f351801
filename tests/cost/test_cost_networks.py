"""Whole networks against published and measured numbers, and against fvcore and a count by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from fvcore_alone import fvcore_alone
from torch import Tensor, nn

from baselines.resnet import CifarResNet, imagenet_resnet
from bench.cost import count_module


def image(side: int) -> Tensor:
    return torch.empty(1, 3, side, side, device="meta")


def count_by_hand(network: nn.Module, side: int) -> int:
    """Convolutions and linear layers from the shapes that pass them; right where nothing else multiplies."""
    total = 0

    def add(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output[0].numel() * module.in_features

    hooks = [module.register_forward_hook(add) for module in network.modules()]
    with torch.no_grad():
        network.eval().to("meta")(image(side))
    for hook in hooks:
        hook.remove()
    return total


CIFAR = {
    ("A", 20): (40_551_040, 40_931_968),
    ("A", 110): (252_887_680, 254_988_928),
    ("B", 38): (83_280_512, None),
    ("B", 74): (168_215_168, None),
    ("B", 110): (253_149_824, None),
}


@pytest.mark.parametrize(("shortcut", "depth"), CIFAR)
def test_cifar_resnets(shortcut: str, depth: int) -> None:
    macs, fvcore = CIFAR[shortcut, depth]
    network = CifarResNet(depth, shortcut=shortcut)
    counted = count_module(network, [image(32)])
    assert counted["macs"] == macs == count_by_hand(network, 32)
    if fvcore is not None:
        assert counted["macs_fvcore"] == fvcore


def test_resnet50() -> None:
    counted = count_module(imagenet_resnet("resnet50"), [image(224)])
    assert counted["macs"] == 4_089_184_256
    batch_norm, pool = 22_227_968, 100_352
    assert counted["macs_fvcore"] == 4_089_184_256 + batch_norm + pool
    assert counted["macs_fvcore"] / 1e6 == pytest.approx(4111.5, abs=0.05)


NORMS = {
    "batch": (nn.BatchNorm2d, 2),
    "group": (partial(nn.GroupNorm, 8), 5),
    "layer": (partial(nn.GroupNorm, 1), 5),
    "instance": (partial(nn.InstanceNorm2d, affine=True), 5),
    "none": (lambda channels: nn.Identity(), 0),
}


@pytest.mark.parametrize("norm", NORMS)
def test_the_norm_does_not_change_the_headline(norm: str) -> None:
    """fvcore alone says 40.93 M for batch and 41.49 M for the others: the counter's convention, not the norm's."""
    layer, per_element = NORMS[norm]
    counted = count_module(CifarResNet(20, norm_layer=layer), [image(32)])
    normalised = 16 * 1024 * 7 + 32 * 256 * 6 + 64 * 64 * 6
    assert counted["macs"] == 40_551_040
    assert counted["macs_fvcore"] == 40_551_040 + per_element * normalised + 64 * 64


ATTENTION = {
    # name: macs, macs_fvcore in G as published or measured by others
    "vit_b_16": (17.564, 17.583),
    "swin_t": (4.4906, 4.5092),
    "swin_v2_t": (4.938, 4.956),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_networks_with_attention(name: str) -> None:
    macs, fvcore = ATTENTION[name]
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    counted = count_module(network, [image(224)])
    assert counted["macs"] / 1e9 == pytest.approx(macs, abs=6e-4)
    assert counted["macs_fvcore"] / 1e9 == pytest.approx(fvcore, abs=6e-4)


def test_mobilenet_v2() -> None:
    counted = count_module(torchvision.models.mobilenet_v2(), [image(224)])
    assert counted["macs"] == 300_774_272
    assert counted["macs_fvcore"] / 1e6 == pytest.approx(314.19, abs=0.01)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "efficientnet_b0"])
def test_fvcores_column_is_fvcores_number(name: str) -> None:
    """Where fvcore misses nothing, the column is what fvcore says by itself."""
    network = torchvision.models.get_model(name, weights=None).eval()
    counted = count_module(network, [image(64)])
    assert counted["macs_fvcore"] == fvcore_alone(network, torch.zeros(1, 3, 64, 64))
    assert counted["macs"] == count_by_hand(network, 64)
