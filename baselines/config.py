"""Options of the ResNet baseline."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from baselines.norms.config import NormConfig, NormOption
from bench.config.schema import MethodConfig


class ResNetConfig(MethodConfig):
    """A static ResNet: ``depth`` for the CIFAR family, ``arch`` for the ImageNet family; one of them."""

    method_class: ClassVar[str] = "baselines.method:ResNetBaseline"

    depth: int | None = Field(None, description="CIFAR ResNet of depth 6n+2 (8, 14, 20, 32, 44, 56, 110, ...).")
    arch: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
        "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    ] | None = Field(None, description="ImageNet ResNet or ResNeXt by torchvision's name.")  # fmt: skip
    shortcut: Literal["A", "B"] = Field("A", description="CIFAR only. A: zero padding; B: 1x1 projection.")
    width: int = Field(16, ge=1, description="CIFAR only. Channels of the first stage.")
    norm: NormOption = Field(NormConfig(), description="Normalisation: a name, or a section with its parameters.")

    @model_validator(mode="after")
    def _one_family(self) -> ResNetConfig:
        if (self.depth is None) == (self.arch is None):
            raise ValueError("give `depth` (CIFAR family) or `arch` (ImageNet family), one of them")
        if self.depth is not None and (self.depth < 8 or (self.depth - 2) % 6):
            raise ValueError(f"depth must be 6n+2 (8, 14, 20, 32, 44, 56, 110, ...), not {self.depth}")
        if self.arch is not None and (self.shortcut, self.width) != ("A", 16):  # a default said aloud is no mistake
            raise ValueError("shortcut and width belong to the CIFAR family (depth), not to arch")
        return self

    @classmethod
    def small(cls) -> ResNetConfig:
        return cls(depth=8)
