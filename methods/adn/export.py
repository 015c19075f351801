"""One skip configuration as a plain network that knows nothing of adaptive depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.method import load_strict
from methods.adn.config import ADNConfig
from methods.adn.families import MOBILENET_ROWS, build_plain, take_apart
from methods.adn.network import AdaptiveNetwork
from methods.adn.splits import Skip, parse_skip, skip_name
from methods.adn.weights import MAIN, TWIN


def export_configuration(
    network: AdaptiveNetwork, config: ADNConfig, data: DataSpec, skip: str | Sequence[bool]
) -> nn.Module:
    """torchvision's network (or the CIFAR ResNet) with the blocks and norms that ``skip`` runs.

    Its state_dict has torchvision's names; ``constructor`` says what to load it into. It is on the CPU, in
    evaluation mode, and shares no memory with ``network``.
    """
    flags = parse_skip(skip, network.split.flags)
    depths = network.split.depths(flags)
    with torch.random.fork_rng(devices=[]):
        plain = build_plain(config, data, depths)
    names = {part: name for part, name in network.torchvision_names.items() if not part.startswith("stages.")}
    flag_of: dict[str, bool] = {}
    for number, (stage, flag, pieces) in enumerate(zip(network.stages, flags, take_apart(plain, depths).stages)):
        kept = [i for i, skippable in enumerate(stage.skippable) if not (skippable and flag)]
        for index, piece in zip(kept, pieces, strict=True):
            names[f"stages.{number}.blocks.{index}"] = piece.name
            flag_of[f"stages.{number}.blocks.{index}"] = flag
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        part = key
        while part and part not in names:
            part = part.rpartition(".")[0]
        if part and (MAIN if flag_of.get(part) else TWIN) not in key:
            name = names[part] + key[len(part) :]
            state[name.replace(MAIN, ".").replace(TWIN, ".")] = value.detach().cpu().clone()
    load_strict(plain, state, what=f"configuration {skip_name(flags)}")
    return plain.eval()


def constructor(config: ADNConfig, data: DataSpec, skip: Skip) -> str:
    """A Python expression, with full module names, for an empty network of that configuration's shape."""
    depths = list(config.split().depths(skip))
    arch, classes = config.arch, f"num_classes={data.num_classes}"
    batch_norm = config.norm.kind == "batch" and config.norm.eps == 1e-5
    if arch in ("resnet50", "resnet101") and batch_norm:
        return f"torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, {depths}, {classes})"
    if arch == "mobilenet_v2" and batch_norm:
        rows = [[t, c, n, s] for (t, c, s), n in zip(MOBILENET_ROWS, (1, *depths, 1))]
        return f"torchvision.models.MobileNetV2({classes}, inverted_residual_setting={rows})"
    if arch is not None and arch.startswith("swin"):
        module = "torchvision.models.swin_transformer"
        size = 8 if arch == "swin_v2_t" else 7
        second = f", block={module}.SwinTransformerBlockV2, downsample_layer={module}.PatchMergingV2"
        return (
            f"torchvision.models.SwinTransformer(patch_size=[4, 4], embed_dim=96, depths={depths}, "
            f"num_heads=[3, 6, 12, 24], window_size=[{size}, {size}], {classes}"
            f"{second if arch == 'swin_v2_t' else ''})"
        )
    if arch is not None and arch.startswith("vit"):
        patch = int(arch.rsplit("_", 1)[1])
        return (
            f"torchvision.models.VisionTransformer(image_size={data.image_size}, patch_size={patch}, "
            f"num_layers={sum(depths)}, num_heads=12, hidden_dim=768, mlp_dim=3072, {classes})"
        )
    if arch is None and len(set(depths)) == 1 and batch_norm:
        return (
            f"baselines.resnet.CifarResNet({6 * depths[0] + 2}, {classes}, shortcut={config.shortcut!r}, "
            f"width={config.width}, channels={data.channels})"
        )
    return (
        f"methods.adn.families.build_plain(methods.adn.config.ADNConfig.model_validate("
        f"{config.model_dump(mode='json', exclude_defaults=True)}), bench.config.data.{data}, {tuple(depths)})"
    )
