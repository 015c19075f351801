"""ResNets for CIFAR (depth 6n+2) and ImageNet, on torchvision's blocks and weight names.

CIFAR: He et al. 2016, section 4.2: a 3x3 stem of 16 channels, three stages of n basic blocks with 16, 32
and 64 channels, global pooling, one linear layer. Shortcut A subsamples and pads with zero channels, a
quarter of the new width on each side; shortcut B is a 1x1 convolution with norm.
ImageNet: torchvision's own class, so its published weights load unchanged.
"""

from __future__ import annotations

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet

from baselines.norms.factory import NormLayer

IMAGENET_ARCHS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
)  # fmt: skip


class PadShortcut(nn.Module):
    """Shortcut A: every ``stride``-th pixel, and zero channels up to the new width; no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class CifarResNet(nn.Module):
    """ResNet of depth 6n+2 for small images. Names as in torchvision: conv1, bn1, layer1-3, fc.

    depth: 6n+2 with n >= 1, else ValueError. shortcut: "A" or "B". width: channels of the first stage.
    Convolutions start from the normal distribution of He et al. over the fan-out.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        shortcut: str = "A",
        norm_layer: NormLayer = nn.BatchNorm2d,
        width: int = 16,
        channels: int = 3,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6n+2 (8, 14, 20, 32, ...), not {depth}")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(width, width, blocks, 1, shortcut, norm_layer)
        self.layer2 = self._stage(width, 2 * width, blocks, 2, shortcut, norm_layer)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2, shortcut, norm_layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        init_convs(self)

    @staticmethod
    def _stage(
        in_channels: int, out_channels: int, blocks: int, stride: int, shortcut: str, norm_layer: NormLayer
    ) -> nn.Sequential:
        layers = []
        for index in range(blocks):
            first = index == 0 and (stride != 1 or in_channels != out_channels)
            layers.append(
                BasicBlock(
                    in_channels if index == 0 else out_channels,
                    out_channels,
                    stride if index == 0 else 1,
                    make_shortcut(shortcut, in_channels, out_channels, stride, norm_layer) if first else None,
                    norm_layer=norm_layer,
                )
            )
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def make_shortcut(
    kind: str, in_channels: int, out_channels: int, stride: int, norm_layer: NormLayer
) -> nn.Module:
    """The shortcut of a block that changes the shape: "A" (padding) or "B" (1x1 convolution and norm)."""
    if kind == "A":
        return PadShortcut(in_channels, out_channels, stride)
    if kind == "B":
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), norm_layer(out_channels)
        )
    raise ValueError(f"shortcut must be A or B, not {kind!r}")


def init_convs(network: nn.Module) -> None:
    """He et al. 2015: normal, variance 2 / fan-out. Norms and linear layers keep torch's defaults."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def imagenet_resnet(arch: str, num_classes: int = 1000, norm_layer: NormLayer | None = None) -> ResNet:
    """torchvision's ResNet or ResNeXt by name, randomly initialised, with another norm if asked for."""
    if arch not in IMAGENET_ARCHS:
        raise ValueError(f"unknown ImageNet architecture {arch!r}")
    return torchvision.models.get_model(arch, weights=None, num_classes=num_classes, norm_layer=norm_layer)
