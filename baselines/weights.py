"""Published weights of plain ResNets: their names and ours.

ImageNet, and CIFAR with shortcut B: torchvision's names, which are ours. CIFAR with shortcut A: the layout of
akamaster/pytorch_resnet_cifar10, whose classifier is called ``linear`` and whose projections, where a
network has some, ``shortcut``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from baselines.config import ResNetConfig
from bench.config.data import DataSpec
from bench.errors import WeightsError
from bench.method import Arch, strip_prefix

__all__ = ["from_published", "list_archs", "to_published"]

IMAGENET = DataSpec("imagenet", 1000, 224)
#: ImageNet's mean and std, which is what the published CIFAR weights were trained with.
CIFAR10 = DataSpec("cifar10", 10, 32)
CIFAR100 = DataSpec("cifar100", 100, 32)

CIFAR_DEPTHS_A = (20, 32, 44, 56, 110, 1202)
CIFAR_DEPTHS_B = (8, 14, 20, 32, 38, 44, 56, 74, 110, 152)


def list_archs(imagenet: tuple[str, ...]) -> dict[str, Arch]:
    """Published name -> what to build. A bare ``resnet20`` is the CIFAR-10 network."""
    archs = {name: Arch(ResNetConfig.model_validate({"arch": name}), IMAGENET) for name in imagenet}
    for data in (CIFAR10, CIFAR100):
        for depth in CIFAR_DEPTHS_A:
            archs[f"{data.name}_resnet{depth}"] = Arch(ResNetConfig(depth=depth, shortcut="A"), data)
        for depth in CIFAR_DEPTHS_B:
            archs[f"{data.name}_resnet{depth}_b"] = Arch(ResNetConfig(depth=depth, shortcut="B"), data)
    for depth in CIFAR_DEPTHS_A:
        archs[f"resnet{depth}"] = archs[f"cifar10_resnet{depth}"]
    return archs


def from_published(published: Mapping[str, Any]) -> dict[str, Tensor]:
    """Published names -> ours; also takes the whole checkpoint ``{"state_dict": ...}`` and ``module.``."""
    inner = published.get("state_dict", published)
    if not isinstance(inner, Mapping):
        raise WeightsError(f"'state_dict' holds {type(inner).__name__}, not names and tensors")
    no_tensor = [str(key) for key, value in inner.items() if not isinstance(value, Tensor)]
    if no_tensor:
        raise WeightsError(f"'{no_tensor[0]}' is no tensor; give a state_dict, or a checkpoint that holds one")
    ours: dict[str, Tensor] = {}
    for key, value in strip_prefix(inner).items():
        name = _our_name(key)
        if name in ours:
            raise WeightsError(f"two keys stand for {name}")
        ours[name] = value
    return ours


def to_published(ours: Mapping[str, Tensor], config: ResNetConfig) -> dict[str, Tensor]:
    """Our names -> published ones, for the family that the configuration belongs to."""
    akamaster = config.depth is not None and config.shortcut == "A"
    return {
        f"linear.{key.removeprefix('fc.')}" if akamaster and key.startswith("fc.") else key: value.detach().clone()
        for key, value in ours.items()
    }


def _our_name(key: str) -> str:
    if key.startswith("linear."):
        return f"fc.{key.removeprefix('linear.')}"
    return key.replace(".shortcut.", ".downsample.")
