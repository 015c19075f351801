"""The plug of the static ResNets: one operating point, everything runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from baselines.config import ResNetConfig
from baselines.norms.factory import norm_layer
from baselines.resnet import IMAGENET_ARCHS, CifarResNet, imagenet_resnet
from baselines.weights import from_published, list_archs, to_published
from bench.config.data import DataSpec
from bench.errors import ConfigError
from bench.method import Arch, Batch, Decisions, Executed, Method, Plan, Point, Stage, Unit, load_strict
from bench.train.losses import cross_entropy

__all__ = ["ResNetBaseline"]


class ResNetBaseline(Method):
    """ResNets of He et al. 2016 (CIFAR: section 4.2; ImageNet: torchvision's), trained with cross-entropy."""

    Config = ResNetConfig
    config: ResNetConfig
    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: ResNetConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        if config.arch is not None and data.channels != 3:
            raise ConfigError(f"{config.arch} takes images of 3 channels, {data.name} has {data.channels}")

    @classmethod
    def archs(cls) -> dict[str, Arch]:
        """torchvision's names, ``cifar10_resnet20`` (shortcut A), ``cifar10_resnet20_b`` (B), ``cifar100_...``."""
        return list_archs(IMAGENET_ARCHS)

    def backbone(self) -> str:
        if self.config.arch is not None:
            return self.config.arch
        wide = f"-w{self.config.width}" if self.config.width != 16 else ""
        return f"resnet{self.config.depth}{wide}{'-b' if self.config.shortcut == 'B' else ''}"

    def build(self, stage: Stage) -> nn.Module:
        norm = norm_layer(self.config.norm)
        if self.config.depth is None:
            return imagenet_resnet(str(self.config.arch), self.data.num_classes, norm)
        return CifarResNet(
            self.config.depth, self.data.num_classes, self.config.shortcut, norm, self.config.width, self.data.channels
        )

    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        logits = model(batch.images)
        smoothing = stage.resolved.label_smoothing if stage.resolved is not None else 0.0
        return {"loss": cross_entropy(logits, batch.targets, smoothing), "logits": logits}

    def units(self, model: nn.Module) -> Sequence[Unit]:
        """``stem``, every block by its own name (``layer1.0``, ...), ``head``."""
        if not isinstance(model, (CifarResNet, ResNet)):
            raise TypeError(f"units of {type(model).__name__}: not a network that this method builds")
        stem = nn.Sequential(model.conv1, model.bn1, model.relu)
        side = self.data.image_size
        if isinstance(model, ResNet):
            stem.append(model.maxpool)
            size = _half(_half(side))
        else:
            size = side
        units = [Unit("stem", stem, (_image(self.data.channels, side),))]
        channels = model.conv1.out_channels
        for name, block in _blocks(model):
            units.append(Unit(name, block, (_image(channels, size),)))
            channels, size = _out_channels(block), size if block.stride == 1 else _half(size)
        head = nn.Sequential(model.avgpool, nn.Flatten(1), model.fc)
        return [*units, Unit("head", head, (_image(channels, size),))]

    @torch.no_grad()
    def record(self, model: nn.Module, images: Tensor) -> Decisions:
        return Decisions(model(images)[None], torch.ones(1, self._unit_count(model), dtype=torch.int64))

    @torch.no_grad()
    def execute(self, model: nn.Module, images: Tensor, plan: Plan) -> Executed:
        """There is one way to run it: a policy has nothing to decide after the only exit."""
        samples = len(images)
        return Executed(
            model(images),
            torch.ones(samples, self._unit_count(model), dtype=torch.int64),
            torch.zeros(samples, dtype=torch.int64),
        )

    @classmethod
    def import_weights(cls, arch: str, state_dict: Mapping[str, Tensor]) -> tuple[Method, nn.Module]:
        spec = cls.find_arch(arch)
        method = cls(spec.config, spec.data)  # type: ignore[arg-type]
        model = method.build(method.stages()[-1])
        load_strict(model, from_published(state_dict), what=arch)
        return method, model

    def export_weights(self, model: nn.Module) -> dict[str, Tensor]:
        return to_published(model.state_dict(), self.config)

    def export_point(self, model: nn.Module, point: Point) -> nn.Module:
        """The network itself: it is plain already."""
        return copy.deepcopy(model).cpu().eval()

    def export_constructor(self, point: Point) -> str:
        config, norm = self.config, ""
        if config.norm.kind != "batch" or config.norm.eps != 1e-5:
            given = config.norm.model_dump(mode="json")
            norm = f", norm_layer=baselines.norms.factory.norm_layer(baselines.norms.config.NormConfig(**{given}))"
        if config.arch is not None:
            return f"torchvision.models.{config.arch}(num_classes={self.data.num_classes}{norm})"
        return (
            f"baselines.resnet.CifarResNet({config.depth}, {self.data.num_classes}, {config.shortcut!r}, "
            f"width={config.width}, channels={self.data.channels}{norm})"
        )

    @staticmethod
    def _unit_count(model: nn.Module) -> int:
        return sum(1 for _ in _blocks(model)) + 2


def _blocks(model: nn.Module) -> list[tuple[str, BasicBlock | Bottleneck]]:
    return [(name, part) for name, part in model.named_modules() if isinstance(part, (BasicBlock, Bottleneck))]


def _out_channels(block: BasicBlock | Bottleneck) -> int:
    return (block.conv3 if isinstance(block, Bottleneck) else block.conv2).out_channels


def _half(size: int) -> int:
    """Side after any of the strided layers of a ResNet: all of them round up."""
    return (size + 1) // 2


def _image(channels: int, size: int) -> Tensor:
    return torch.zeros(1, channels, size, size)
