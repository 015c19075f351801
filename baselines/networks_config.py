"""Options of static networks by name. Torch-free."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bench.config.schema import MethodConfig


class TorchvisionConfig(MethodConfig):
    """A torchvision classifier by its name, with or without its published weights."""

    method_class: ClassVar[str] = "baselines.named:TorchvisionBaseline"

    model: str = Field(pattern=r"^[a-z0-9_]+$", description="A name of `bench list models torchvision/`.")
    weights: str | None = Field(
        None, pattern=r"^[A-Z0-9_]+$", description="Train on from torchvision's weights: DEFAULT, or a name such as "
        "IMAGENET1K_V1; their file must be in torch hub's folder. A head for other classes starts fresh. null: from "
        "random weights. (`weights:` of the run takes any file, and measures it with evaluate_only.)")

    @classmethod
    def model_names(cls) -> list[str]:
        from baselines.networks import network_names  # imports torchvision, which checking a file need not

        return network_names("torchvision")

    @classmethod
    def small(cls) -> TorchvisionConfig:
        return cls(model="mobilenet_v3_small")


class TimmConfig(MethodConfig):
    """A timm network by its name, from random weights (needs the extra timm)."""

    method_class: ClassVar[str] = "baselines.named:TimmBaseline"

    model: str = Field(pattern=r"^\S+$", description="A name of `bench list models timm/`.")

    @classmethod
    def model_names(cls) -> list[str]:
        from baselines.networks import network_names  # imports timm, which may be absent

        return network_names("timm")

    @classmethod
    def small(cls) -> TimmConfig:
        return cls(model="test_resnet")
