"""torchvision's blocks with a second set of norms, chosen by the skip flag of their stage.

``make_adaptive`` gives a block of torchvision the ``skip`` argument and keeps its weights; the arithmetic is
that of the block it came from, norm by norm. Which norms get a twin follows the released networks: those
inside mandatory blocks (and Swin's patch merging, MobileNetV2's first and last convolutions); a ResNet's
stem and shortcut norms stay shared by all sub-networks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)
from torchvision.models.vision_transformer import EncoderBlock
from torchvision.ops.misc import Conv2dNormActivation


class Adaptive:
    """Mark of modules whose forward takes the skip flag of their stage: ``module(x, skip)``."""


class SkipAwareNorm(nn.Module, Adaptive):
    """Two norms of the same kind: ``main`` where the stage runs whole, ``skip`` where it is shortened.

    They start equal; making the second draws no random number.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.main = norm
        self.skip = copy.deepcopy(norm)

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        return self.skip(x) if skip else self.main(x)


def run(module: nn.Module, x: Tensor, skip: bool) -> Tensor:
    """Run a module, and a plain Sequential part by part, handing the flag to those that take it."""
    if isinstance(module, Adaptive):
        return module(x, skip)
    if isinstance(module, nn.Sequential):
        for part in module:
            x = run(part, x, skip)
        return x
    return module(x)


class AdaptiveBasicBlock(BasicBlock, Adaptive):
    norms = ("bn1", "bn2")

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        out = self.relu(run(self.bn1, self.conv1(x), skip))
        out = run(self.bn2, self.conv2(out), skip)
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class AdaptiveBottleneck(Bottleneck, Adaptive):
    norms = ("bn1", "bn2", "bn3")

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        out = self.relu(run(self.bn1, self.conv1(x), skip))
        out = self.relu(run(self.bn2, self.conv2(out), skip))
        out = run(self.bn3, self.conv3(out), skip)
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class AdaptiveConvNorm(Conv2dNormActivation, Adaptive):
    """MobileNetV2's convolution, norm and activation."""

    norms = ("1",)

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        for part in self:
            x = run(part, x, skip)
        return x


class AdaptiveInvertedResidual(InvertedResidual, Adaptive):
    @property
    def norms(self) -> tuple[str, ...]:
        """Second of each convolution unit, and the last module."""
        last = len(self.conv) - 1
        return (*(f"conv.{i}.1" for i in range(last - 1)), f"conv.{last}")

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        out = run(self.conv, x, skip)
        return x + out if self.use_res_connect else out


class _AdaptiveSwin(Adaptive):
    """Stochastic depth of mandatory blocks: none in skipped stages, none at all under ``never_drops``."""

    norms = ("norm1", "norm2")
    never_drops = False
    stochastic_depth: nn.Module

    def drop(self, residual: Tensor, skip: bool) -> Tensor:
        return residual if skip or self.never_drops else self.stochastic_depth(residual)


class AdaptiveSwinBlock(_AdaptiveSwin, SwinTransformerBlock):
    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        x = x + self.drop(self.attn(run(self.norm1, x, skip)), skip)
        return x + self.drop(self.mlp(run(self.norm2, x, skip)), skip)


class AdaptiveSwinBlockV2(_AdaptiveSwin, SwinTransformerBlockV2):
    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        x = x + self.drop(run(self.norm1, self.attn(x), skip), skip)
        return x + self.drop(run(self.norm2, self.mlp(x), skip), skip)


class AdaptivePatchMerging(PatchMerging, Adaptive):
    norms = ("norm",)

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        return self.reduction(run(self.norm, gather_patches(x), skip))


class AdaptivePatchMergingV2(PatchMergingV2, Adaptive):
    norms = ("norm",)

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        return run(self.norm, self.reduction(gather_patches(x)), skip)


def gather_patches(x: Tensor) -> Tensor:
    """[..., H, W, C] -> [..., ceil(H/2), ceil(W/2), 4C]: 2x2 neighbours side by side, column by column."""
    height, width = x.shape[-3], x.shape[-2]
    if height % 2 or width % 2:
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    return torch.cat([x[..., row::2, column::2, :] for column in (0, 1) for row in (0, 1)], dim=-1)


class AdaptiveEncoderBlock(EncoderBlock, Adaptive):
    norms = ("ln_1", "ln_2")

    def forward(self, input: Tensor, skip: bool = False) -> Tensor:
        x = run(self.ln_1, input, skip)
        x, _ = self.self_attention(x, x, x, need_weights=False)
        x = self.dropout(x) + input
        return x + self.mlp(run(self.ln_2, x, skip))


_ADAPTIVE: dict[type[nn.Module], type[nn.Module]] = {
    BasicBlock: AdaptiveBasicBlock,
    Bottleneck: AdaptiveBottleneck,
    Conv2dNormActivation: AdaptiveConvNorm,
    InvertedResidual: AdaptiveInvertedResidual,
    SwinTransformerBlock: AdaptiveSwinBlock,
    SwinTransformerBlockV2: AdaptiveSwinBlockV2,
    PatchMerging: AdaptivePatchMerging,
    PatchMergingV2: AdaptivePatchMergingV2,
    EncoderBlock: AdaptiveEncoderBlock,
}


def make_adaptive(block: nn.Module, skip_aware: bool = True) -> None:
    """Let a block of torchvision take the skip flag, in place; ``skip_aware`` gives its norms their twins.

    The block keeps its modules and weights and becomes an instance of a subclass that only adds ``forward``,
    so nothing is drawn or copied. Raises KeyError for a block of another kind.
    """
    block.__class__ = _ADAPTIVE[type(block)]
    if skip_aware:
        for name in list(block.norms):  # type: ignore[arg-type]
            owner, _, last = name.rpartition(".")
            setattr(block.get_submodule(owner), last, SkipAwareNorm(block.get_submodule(name)))


def skip_aware_norms(module: nn.Module) -> Iterator[tuple[str, SkipAwareNorm]]:
    """Name and module of every norm that has a twin."""
    for name, part in module.named_modules():
        if isinstance(part, SkipAwareNorm):
            yield name, part
