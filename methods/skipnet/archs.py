"""The released architecture names, misspelt ones included. Torch-free."""

from __future__ import annotations

from typing import get_args

from bench.config.data import DataSpec
from methods.skipnet.config import ImageNetArch, SkipNetConfig

#: The released loaders normalise CIFAR-100 with the statistics of CIFAR-10.
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_IMAGENET = DataSpec("imagenet", 1000, 224)

#: name as released -> name as it was meant; both are accepted.
MISSPELT = {
    "cifar100_feeforward_38": "cifar100_feedforward_38",
    "cifar10_feedfoward_rl_38": "cifar10_feedforward_rl_38",
    "cifar100_feedford_rl_38": "cifar100_feedforward_rl_38",
}


def released_archs() -> dict[str, tuple[SkipNetConfig, DataSpec]]:
    """Every constructor of the released code -> the options that build it, and the data of its head."""
    archs: dict[str, tuple[SkipNetConfig, DataSpec]] = {}
    for classes in (10, 100):
        name = f"cifar{classes}"
        data = DataSpec(name, classes, 32, mean=_CIFAR_MEAN, std=_CIFAR_STD)
        for depth in (38, 74, 110, 152):
            archs[f"{name}_resnet_{depth}"] = SkipNetConfig(depth=depth, gate="none"), data
            archs[f"{name}_rnn_gate_{depth}"] = SkipNetConfig(depth=depth, hrl=False), data
        for depth in (38, 74, 110):
            forward = SkipNetConfig(depth=depth, gate="ff2" if depth == 110 else "ff1")
            archs[f"{name}_rnn_gate_rl_{depth}"] = SkipNetConfig(depth=depth), data
            archs[f"{name}_feedforward_{depth}"] = forward.model_copy(update={"hrl": False}), data
            archs[f"{name}_feedforward_rl_{depth}"] = forward, data
    for arch in get_args(ImageNetArch):
        archs[arch] = SkipNetConfig(arch=arch, gate="none"), _IMAGENET
        if arch == "resnet74":  # released without gates only
            continue
        # As released: alpha 0.01 and one nat per skipped block (0.02 is 0.01 over a batch of 256).
        hybrid = SkipNetConfig(arch=arch, alpha=0.01, ce_reward="scaled", rl_weight=0.02, temperature=0.05)
        depth = arch.removeprefix("resnet")
        archs[f"imagenet_rnn_gate_{depth}"] = SkipNetConfig(arch=arch, hrl=False), _IMAGENET
        archs[f"imagenet_rnn_gate_rl_{depth}"] = hybrid, _IMAGENET
    for released, meant in MISSPELT.items():
        archs[released] = archs[meant]
    return archs
