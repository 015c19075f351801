"""The names under which MSDNet and IMTA checkpoints were published, both ways.

MSDNet numbers the scales that remain at a layer and the elements of a block (stem, layers and transitions in
one list). IMTA puts the same names under ``net.`` (``net.module.`` where its network was loaded from a file)
and adds ``classifier`` and ``isc_modules``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from methods.imta_msdnet.isc import IMTANet
from methods.imta_msdnet.network import MSDNet, Trunk

__all__ = ["from_published", "is_imta", "published_names", "to_published"]


def is_imta(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names (without leading ``module.``) are those of a network with collaborating exits."""
    return any(key.startswith(("isc_modules.", "net.")) for key in state_dict)


def published_names(model: MSDNet | IMTANet) -> dict[str, str]:
    """Our key -> published key, for every entry of ``model.state_dict()``."""
    if isinstance(model, MSDNet):
        prefixes = _msdnet_prefixes(model)
    else:
        prefixes = {f"net.{ours}": f"net.{theirs}" for ours, theirs in _msdnet_prefixes(model.net).items()}
        prefixes["collaboration.classify."] = "classifier."
        prefixes["collaboration.carry."] = "isc_modules."
    names: dict[str, str] = {}
    for key in model.state_dict():
        prefix = next(p for p in prefixes if key.startswith(p))
        names[key] = prefixes[prefix] + key[len(prefix) :]
    return names


def from_published(model: MSDNet | IMTANet, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names -> ours for this network. A name that the network does not have is kept as it is, for
    the strict loader to report."""
    ours = {theirs: own for own, theirs in published_names(model).items()}
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        plain = "net." + key.removeprefix("net.module.") if key.startswith("net.module.") else key
        renamed[ours.get(plain, key)] = value
    return renamed


def to_published(model: MSDNet | IMTANet) -> dict[str, Tensor]:
    """The weights under their published names."""
    names = published_names(model)
    with torch.no_grad():
        return {names[key]: value.detach().clone() for key, value in model.state_dict().items()}


def _msdnet_prefixes(model: MSDNet) -> dict[str, str]:
    prefixes = _trunk_prefixes(model.trunk)
    for k, _ in enumerate(model.heads):
        for conv in (0, 1):
            prefixes[f"heads.{k}.body.{conv}."] = f"classifier.{k}.m.{conv}.net."
        prefixes[f"heads.{k}.linear."] = f"classifier.{k}.linear."
    return prefixes


def _trunk_prefixes(trunk: Trunk) -> dict[str, str]:
    large = any(isinstance(m, nn.MaxPool2d) for m in trunk.stem[0].children())
    prefixes = {
        f"trunk.stem.{scale}.": f"blocks.0.0.layers.{scale}." + ("" if large and scale == 0 else "net.")
        for scale in range(len(trunk.stem))
    }
    for k in range(len(trunk.blocks)):
        element = 1 if k == 0 else 0
        for place, layer in enumerate(trunk.block(k)):
            ours = f"trunk.blocks.{k}.{place}.cells"
            theirs = f"blocks.{k}.{element}.layers"
            for j in range(len(layer.cells)):
                prefixes[f"{ours}.{j}.normal."] = f"{theirs}.{j}.conv_normal.net."
                prefixes[f"{ours}.{j}.down."] = f"{theirs}.{j}.conv_down.net."
                prefixes[f"{ours}.{j}.transition."] = f"blocks.{k}.{element + 1}.m.{j}.net."
            element += 2 if trunk.geometry.block(k)[place].transition else 1
    return prefixes
