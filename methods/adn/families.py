"""Backbone name -> the network, made from torchvision's own (or the CIFAR ResNet of the baselines).

The plain network of full depth is built first, by the code that everybody uses, so the same seed gives the
same weights; then it is taken apart, and its mandatory blocks learn to take the skip flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2, ResNet, SwinTransformer, VisionTransformer
from torchvision.models.resnet import Bottleneck
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from baselines.norms.factory import norm_layer
from baselines.resnet import CifarResNet
from bench.config.data import DataSpec
from bench.errors import ConfigError
from bench.walking import as_unit
from methods.adn.blocks import AdaptiveSwinBlock, AdaptiveSwinBlockV2, make_adaptive
from methods.adn.config import ADNConfig
from methods.adn.network import NCHW, NHWC, TOKENS, AdaptiveNetwork, AdaptiveStage

#: MobileNetV2's expansion, channels and stride of each row of blocks (Sandler et al. 2018, table 2); the
#: first and the last row have one block, which belongs to the stage beside it.
MOBILENET_ROWS = (
    (1, 16, 1), (6, 24, 2), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1),
)  # fmt: skip
STOCHASTIC_DEPTH = 0.1


class Piece(NamedTuple):
    """A module of a stage under its torchvision name; ``block`` if it counts as one of the stage's blocks."""

    name: str
    module: nn.Module
    block: bool = True


class Parts(NamedTuple):
    """A plain network taken apart. names: path of a part in ``stem`` or ``head`` -> torchvision's path."""

    stem: nn.Module
    stages: list[list[Piece]]
    head: nn.Module
    pooled: tuple[int, ...]
    names: Mapping[str, str]


def build_network(config: ADNConfig, data: DataSpec) -> AdaptiveNetwork:
    """The network of a configuration, on the CPU, drawn from torch's global generator.

    Raises ConfigError where the data do not fit the backbone.
    """
    split = config.split()
    parts = take_apart(build_plain(config, data, split.blocks), split.blocks)
    names = dict(parts.names)
    stages = []
    for number, (pieces, few) in enumerate(zip(parts.stages, split.mandatory)):
        skippable = []
        seen = 0
        for index, piece in enumerate(pieces):
            seen += piece.block
            skippable.append(piece.block and seen > few)
            names[f"stages.{number}.blocks.{index}"] = piece.name
            as_unit(piece.module, piece.name)
            if not skippable[-1]:
                make_adaptive(piece.module, config.skip_aware)
                if isinstance(piece.module, (AdaptiveSwinBlock, AdaptiveSwinBlockV2)):
                    piece.module.never_drops = not config.stochastic_depth_mandatory
        stages.append(AdaptiveStage([piece.module for piece in pieces], skippable, config.skip_aware))
    return AdaptiveNetwork(
        parts.stem, stages, parts.head, split=split, pooled=parts.pooled, torchvision_names=names
    )


def build_plain(config: ADNConfig, data: DataSpec, depths: Sequence[int]) -> nn.Module:
    """The plain network of the same backbone with ``depths`` blocks in its stages (nothing adaptive)."""
    classes, arch = data.num_classes, config.arch
    if arch is None:
        return _cifar_resnet(config, data, depths)
    if data.channels != 3:
        raise ConfigError(f"{arch} takes images of 3 channels, {data.name} has {data.channels}")
    norm = norm_layer(config.norm)
    if arch.startswith("resnet"):
        network = ResNet(Bottleneck, list(depths), num_classes=classes, norm_layer=norm)
        return _pool_shortcuts(network) if arch.endswith("vd") else network
    if arch == "mobilenet_v2":
        rows = [
            [expand, channels, n, stride]
            for (expand, channels, stride), n in zip(MOBILENET_ROWS, (1, *depths, 1))
        ]
        return MobileNetV2(num_classes=classes, inverted_residual_setting=rows, norm_layer=norm)
    if arch.startswith("swin"):
        return _swin(arch, depths, classes, config.stochastic_depth)
    return _vision_transformer(arch, depths, data)


def _cifar_resnet(config: ADNConfig, data: DataSpec, depths: Sequence[int]) -> CifarResNet:
    network = CifarResNet(
        6 * max(depths) + 2,
        data.num_classes,
        config.shortcut,
        norm_layer(config.norm),
        config.width,
        data.channels,
    )
    for stage, depth in zip((network.layer1, network.layer2, network.layer3), depths):
        del stage[depth:]
    return network


def _pool_shortcuts(network: ResNet) -> ResNet:
    """Variant vd: strided shortcuts average 2x2 pixels and then project all, not every other pixel."""
    for layer in (network.layer2, network.layer3, network.layer4):
        conv, norm = layer[0].downsample
        conv.stride = (1, 1)
        layer[0].downsample = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), conv, norm)
    return network


def _swin(arch: str, depths: Sequence[int], classes: int, drop: float | None) -> SwinTransformer:
    second = arch.startswith("swin_v2")
    more = {"downsample_layer": PatchMergingV2} if second else {}
    return SwinTransformer(
        patch_size=[4, 4],
        embed_dim=96,
        depths=list(depths),
        num_heads=[3, 6, 12, 24],
        window_size=[8, 8] if second else [7, 7],
        stochastic_depth_prob=STOCHASTIC_DEPTH if drop is None else drop,
        num_classes=classes,
        block=SwinTransformerBlockV2 if second else SwinTransformerBlock,
        **more,  # type: ignore[arg-type]
    )


def _vision_transformer(arch: str, depths: Sequence[int], data: DataSpec) -> VisionTransformer:
    patch = int(arch.rsplit("_", 1)[1])
    if data.image_size % patch:
        raise ConfigError(
            f"{arch} cuts images into patches of {patch} pixels; the side of the images must be a multiple "
            f"of that, not {data.image_size}"
        )
    return VisionTransformer(data.image_size, patch, sum(depths), 12, 768, 3072, num_classes=data.num_classes)


def take_apart(network: nn.Module, depths: Sequence[int]) -> Parts:
    """Stem, stages of ``depths`` blocks, head of a plain network; the modules are shared, not copied."""
    if isinstance(network, (ResNet, CifarResNet)):
        return _take_apart_resnet(network)
    if isinstance(network, MobileNetV2):
        return _take_apart_mobilenet(network, depths)
    if isinstance(network, SwinTransformer):
        return _take_apart_swin(network)
    if isinstance(network, VisionTransformer):
        return _take_apart_vit(network, depths)
    raise TypeError(f"no adaptive form of {type(network).__name__}")


def _take_apart_resnet(network: ResNet | CifarResNet) -> Parts:
    stem = nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool"):
        if hasattr(network, name):
            stem.add_module(name, getattr(network, name))
    layers = [name for name, _ in network.named_children() if name.startswith("layer")]
    stages = [
        [Piece(f"{layer}.{index}", block) for index, block in enumerate(getattr(network, layer))]
        for layer in layers
    ]
    head = _sequential(avgpool=network.avgpool, flatten=nn.Flatten(1), fc=network.fc)
    names = {"stem.conv1": "conv1", "stem.bn1": "bn1", "head.fc": "fc"}
    return Parts(stem, stages, head, NCHW, names)


def _take_apart_mobilenet(network: MobileNetV2, depths: Sequence[int]) -> Parts:
    pieces = [Piece(f"features.{i}", module) for i, module in enumerate(network.features)]
    stages = _group(pieces[2:-2], depths)
    # First convolution and single block follow the first flag, single block and last convolution the last.
    stages[0] = [piece._replace(block=False) for piece in pieces[:2]] + stages[0]
    stages[-1] += [piece._replace(block=False) for piece in pieces[-2:]]
    head = _sequential(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), classifier=network.classifier)
    return Parts(nn.Identity(), stages, head, NCHW, {"head.classifier": "classifier"})


def _take_apart_swin(network: SwinTransformer) -> Parts:
    stages: list[list[Piece]] = [[]]
    for i, module in list(enumerate(network.features))[1:]:
        if isinstance(module, nn.Sequential):
            stages[-1] += [Piece(f"features.{i}.{j}", block) for j, block in enumerate(module)]
        else:
            stages.append([Piece(f"features.{i}", module, block=False)])
    head = _sequential(
        norm=network.norm,
        permute=network.permute,
        avgpool=network.avgpool,
        flatten=network.flatten,
        head=network.head,
    )
    names = {"stem": "features.0", "head.norm": "norm", "head.head": "head"}
    return Parts(network.features[0], stages, head, NHWC, names)


def _take_apart_vit(network: VisionTransformer, depths: Sequence[int]) -> Parts:
    blocks = [
        Piece(f"encoder.layers.{name}", block) for name, block in network.encoder.layers.named_children()
    ]
    names = {
        "stem.conv_proj": "conv_proj",
        "stem.class_token": "class_token",
        "stem.pos_embedding": "encoder.pos_embedding",
        "head.ln": "encoder.ln",
        "head.heads": "heads",
    }
    return Parts(PatchStem(network), _group(blocks, depths), ClassTokenHead(network), TOKENS, names)


def _group(pieces: Sequence[Piece], depths: Sequence[int]) -> list[list[Piece]]:
    """A row of blocks cut into stages of ``depths`` blocks."""
    rest = iter(pieces)
    return [list(islice(rest, depth)) for depth in depths]


def _sequential(**modules: nn.Module) -> nn.Sequential:
    sequential = nn.Sequential()
    for name, module in modules.items():
        sequential.add_module(name, module)
    return sequential


class PatchStem(nn.Module):
    """ViT's stem: patches, class token and position, [B, 3, H, W] -> [B, 1 + patches, 768]."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.conv_proj = network.conv_proj
        self.class_token = network.class_token
        self.pos_embedding = network.encoder.pos_embedding
        self.dropout = network.encoder.dropout
        self.image_size = network.image_size

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ConfigError(
                f"this ViT was built for images of {self.image_size} x {self.image_size} pixels, "
                f"not {images.shape[-2]} x {images.shape[-1]}"
            )
        patches = self.conv_proj(images).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.pos_embedding)


class ClassTokenHead(nn.Module):
    """ViT's end: layer norm of all tokens, then the linear head on the class token."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.ln = network.encoder.ln
        self.heads = network.heads

    def forward(self, tokens: Tensor) -> Tensor:
        return self.heads(self.ln(tokens)[:, 0])
