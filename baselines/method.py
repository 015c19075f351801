"""The plug of the static ResNets: one operating point, everything runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from baselines.config import ResNetConfig
from baselines.norms.factory import norm_layer
from baselines.resnet import IMAGENET_ARCHS, CifarResNet, imagenet_resnet
from baselines.weights import from_published, list_archs, to_published
from bench.config.data import DataSpec
from bench.errors import ConfigError
from bench.method import Arch, Batch, Exports, Method, Point, RunStage, Walk, load_strict
from bench.train.losses import cross_entropy
from bench.walking import piece

__all__ = ["ResNetBaseline"]


class ResNetBaseline(Method[ResNetConfig], Exports):
    """ResNets of He et al. 2016 (CIFAR: section 4.2; ImageNet: torchvision's), trained with cross-entropy."""

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

    def build(self, stage: RunStage) -> nn.Module:
        norm = norm_layer(self.config.norm)
        if self.config.depth is None:
            return imagenet_resnet(str(self.config.arch), self.data.num_classes, norm)
        return CifarResNet(
            self.config.depth, self.data.num_classes, self.config.shortcut, norm, self.config.width, self.data.channels
        )

    def loss(self, model: nn.Module, batch: Batch, stage: RunStage) -> dict[str, Tensor]:
        logits = model(batch.images)
        return {"loss": cross_entropy(logits, batch.targets, stage.recipe.label_smoothing), "logits": logits}

    def walk(self, model: nn.Module, images: Tensor) -> Walk:
        """The network, with ``stem``, every block by its own name (``layer1.0``, ...) and ``head`` as units."""
        if not isinstance(model, (CifarResNet, ResNet)):
            raise TypeError(f"units of {type(model).__name__}: not a network that this method builds")
        pool = [model.maxpool] if isinstance(model, ResNet) else []
        x = piece("stem", model.conv1, model.bn1, model.relu, *pool)(images)
        for block in model.modules():
            if isinstance(block, (BasicBlock, Bottleneck)):
                x = block(x)
        yield piece("head", model.avgpool, nn.Flatten(1), model.fc)(x)

    @classmethod
    def import_weights(cls, arch: str, state_dict: Mapping[str, Tensor]) -> tuple[Method, nn.Module]:
        spec = cls.find_arch(arch)
        method = cls(spec.config, spec.data)  # type: ignore[arg-type]
        model = method.build_last()
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
