"""The gated ResNet, in its dense form: every block is computed for every image and the gates blend.

Pieces are modules of their own (stem, blocks, projections, gates, control, head), so that cost, execution
and hooks speak of the same objects. Block 0 always runs; gate k reads the output of block k and decides
block k + 1. Where a block changes the shape, its shortcut is a 1x1 convolution with norm; a skipped block
leaves the shortcut as it is, without ReLU. There is no gate after the last block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from baselines.norms.factory import norm_layer
from baselines.resnet import CifarResNet, imagenet_resnet
from bench.config.data import DataSpec
from bench.errors import ConfigError
from bench.walking import as_unit
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.gates import Choose, Control, Embedding, FeedForwardGate, above

State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Place:
    """Where a block stands: group and index in it (both as released: groups from 1, indices from 0), its
    channels and its stride."""

    group: int
    index: int
    in_channels: int
    out_channels: int
    stride: int


@dataclass
class Routed:
    """One forward pass with what the gates said, in gate order.

    logits: [B, classes]. gate_logits: [T, B]. actions: [T, B], bool or floating as ``choose`` gave them.
    """

    logits: Tensor
    gate_logits: Tensor
    actions: Tensor


class Stem(nn.Module):
    """Everything before the first block."""

    def __init__(self, conv1: nn.Module, bn1: nn.Module, pool: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv1
        self.bn1 = bn1
        self.relu = nn.ReLU(inplace=True)
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        return x if self.pool is None else self.pool(x)


class SkipBlock(nn.Module):
    """A residual block that is handed its shortcut: relu(branch(x) + shortcut)."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        convs = 3 if isinstance(block, Bottleneck) else 2
        self.branch = nn.Sequential()
        for number in range(1, convs + 1):
            self.branch.add_module(f"conv{number}", getattr(block, f"conv{number}"))
            self.branch.add_module(f"bn{number}", getattr(block, f"bn{number}"))
            if number < convs:
                self.branch.add_module(f"relu{number}", nn.ReLU(inplace=True))

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        out = self.branch(x)
        out += shortcut
        return F.relu(out, inplace=True)


class Head(nn.Module):
    """Global average pooling and the classifier."""

    def __init__(self, fc: nn.Linear) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(x).flatten(1))


class GatedResNet(nn.Module):
    """The network. ``forward`` is the pass at the configured threshold, [B, 3, H, W] -> [B, classes].

    places: one ``Place`` per block. gates: N - 1 modules (none where ``gate: none``). projections: by the
    flat index of the block that they lead into.
    """

    def __init__(self, config: SkipNetConfig, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        backbone = _backbone(config, num_classes, channels)
        pool = cast(nn.Module, backbone.maxpool) if isinstance(backbone, ResNet) else None
        self.config = config
        self.stem = Stem(backbone.conv1, backbone.bn1, pool)
        self.blocks = nn.ModuleList()
        self.projections = nn.ModuleDict()
        self.places: list[Place] = []
        for group, index, block in _blocks(backbone):
            if block.downsample is not None:
                self.projections[str(len(self.blocks))] = block.downsample
            self.blocks.append(SkipBlock(block))
            self.places.append(_place(group, index, block))
        gated = self.places[:-1] if config.gate != "none" else []
        self.gates = nn.ModuleList(make_gate(config, place.out_channels) for place in gated)
        self.control = Control(config.rnn_size) if config.gate == "rnn" else None
        self.head = Head(backbone.fc)
        _initialise(self, config)
        share = 100 / len(self.blocks)
        for number, block in enumerate(self.blocks):
            as_unit(block, f"block{number}", computation_percentage=share, executed_blocks=1.0)
        for key, projection in self.projections.items():
            as_unit(projection, f"projection{key}")
        for number, gate in enumerate(self.gates):
            as_unit(gate, f"gate{number}")

    def forward(self, images: Tensor) -> Tensor:
        return self.route(images, above(self.config.threshold)).logits

    def route(self, images: Tensor, choose: Choose) -> Routed:
        """One dense pass: every block computed for every image, blended as ``choose`` decides.

        A bool action selects (nothing of the other side enters, not even its gradient); a floating one a
        blends a * block + (1 - a) * shortcut.
        """
        x = self.stem(images)
        x = self.blocks[0](x, self.shortcut(0, x))
        gate_logits: list[Tensor] = []
        actions: list[Tensor] = []
        state: State | None = None
        for k in range(len(self.blocks) - 1):
            shortcut = self.shortcut(k + 1, x)
            if not self.gates:
                x = self.blocks[k + 1](x, shortcut)
                continue
            z, state = self.read_gate(k, x, state)
            action = choose(k, z)
            gate_logits.append(z)
            actions.append(action)
            x = _blend(action, self.blocks[k + 1](x, shortcut), shortcut)
        if not gate_logits:
            nothing = x.new_zeros((0, len(images)))
            return Routed(self.head(x), nothing, nothing)
        return Routed(self.head(x), torch.stack(gate_logits), torch.stack(actions))

    def shortcut(self, index: int, x: Tensor) -> Tensor:
        """What bypasses block ``index``: x itself, or its projection where the block changes the shape."""
        key = str(index)
        return self.projections[key](x) if key in self.projections else x

    def read_gate(self, k: int, x: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        """Gate k on the output of block k: logits [B], never in half precision, and the state for the next gate."""
        if self.control is None:
            z = self.gates[k](x)
        else:
            seen = self.gates[k](x)
            if state is None:
                zeros = seen.new_zeros(seen.shape)
                state = (zeros, zeros)
            z, *after = self.control(seen, *state)
            state = (after[0], after[1])
        return (z.float() if z.dtype in (torch.float16, torch.bfloat16) else z), state


def build_network(config: SkipNetConfig, data: DataSpec) -> GatedResNet:
    """The network for a data set, initialised from torch's global generator."""
    if config.arch is not None and data.channels != 3:
        raise ConfigError(f"{config.arch} takes images of 3 channels; {data.name} has {data.channels}")
    return GatedResNet(config, data.num_classes, data.channels)


def make_gate(config: SkipNetConfig, channels: int) -> nn.Module:
    """The gate on a block's output: an ``Embedding`` for the shared control, or a ``FeedForwardGate``."""
    if config.gate == "rnn":
        return Embedding(channels, config.rnn_size)
    return FeedForwardGate(channels, 1 if config.gate == "ff1" else 2, norm_layer(config.norm))


def final_gate_layers(network: GatedResNet) -> list[nn.Linear]:
    """The layers that make the gates' logits: one for recurrent gates, one per gate otherwise."""
    if network.control is not None:
        return [network.control.proj]
    return [cast(FeedForwardGate, gate).linear for gate in network.gates]


def _backbone(config: SkipNetConfig, num_classes: int, channels: int) -> CifarResNet | ResNet:
    norm = norm_layer(config.norm)
    if config.depth is not None:
        return CifarResNet(config.depth, num_classes, "B", norm, config.width, channels)
    if config.arch == "resnet74":
        return ResNet(Bottleneck, [3, 4, 14, 3], num_classes, norm_layer=norm)
    return imagenet_resnet(cast(str, config.arch), num_classes, norm)


def _blocks(backbone: CifarResNet | ResNet) -> Iterator[tuple[int, int, BasicBlock | Bottleneck]]:
    group = 1
    while hasattr(backbone, f"layer{group}"):
        for index, block in enumerate(getattr(backbone, f"layer{group}")):
            yield group, index, block
        group += 1


def _place(group: int, index: int, block: BasicBlock | Bottleneck) -> Place:
    last = block.conv3 if isinstance(block, Bottleneck) else block.conv2
    return Place(group, index, block.conv1.in_channels, last.out_channels, int(block.stride))


def _blend(action: Tensor, block: Tensor, shortcut: Tensor) -> Tensor:
    if action.dtype == torch.bool:
        return torch.where(action[:, None, None, None], block, shortcut)
    a = action.to(block.dtype)[:, None, None, None]
    return a * block + (1 - a) * shortcut


def _initialise(network: GatedResNet, config: SkipNetConfig) -> None:
    """Released initialisation. The backbone's convolutions have theirs (normal, variance 2 / fan-out)."""
    if config.gate == "none":
        return
    fc = network.head.fc
    nn.init.normal_(fc.weight, 0.0, (2 / (fc.in_features * fc.out_features)) ** 0.5)
    for gate in network.gates:
        for module in gate.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):  # a 1x1 convolution in the released code
                nn.init.normal_(module.weight, 0.0, (2 / module.out_features) ** 0.5)
    if network.control is not None and config.depth is not None:
        nn.init.normal_(network.control.proj.weight, 0.0, (2 / config.rnn_size) ** 0.5)
    elif network.control is not None:
        for name, parameter in network.control.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_normal_(parameter)
    if config.keep_open_bias:
        for layer in final_gate_layers(network):
            with torch.no_grad():
                layer.bias[-1] += config.keep_open_bias
