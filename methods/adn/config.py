"""Options of Adaptive Depth Networks."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from baselines.norms.config import NormConfig, NormOption
from bench.config.schema import MethodConfig, Probability
from bench.errors import ConfigError
from methods.adn.splits import BACKBONES, Skip, Split, parse_skip, split_of

#: Backbones whose normalisation is batch norm, and so a choice.
CONVOLUTIONAL = ("resnet", "mobilenet")


class ADNConfig(MethodConfig):
    """Adaptive Depth Network: ``depth`` for CIFAR ResNets, ``arch`` for ImageNet backbones; one of them."""

    method_class: ClassVar[str] = "methods.adn.method:ADN"

    depth: int | None = Field(
        None, description="CIFAR ResNet of depth 6n+2, at least 14 (14, 20, 32, 44, 56, 110, ...)."
    )
    arch: Literal[
        "resnet50", "resnet101", "resnet50vd", "resnet101vd", "mobilenet_v2",
        "swin_t", "swin_v2_t", "vit_b_16", "vit_b_32",
    ] | None = Field(
        None, description="ImageNet backbone by torchvision's name; vd: strided shortcuts pool first."
    )  # fmt: skip
    shortcut: Literal["A", "B"] = Field("A", description="CIFAR only. A: zero padding; B: 1x1 projection.")
    width: int = Field(16, ge=1, description="CIFAR only. Channels of the first stage.")
    norm: NormOption = Field(
        NormConfig(),
        description="Normalisation of ResNets and MobileNetV2: a name, or a section with its parameters.",
    )
    mandatory: tuple[int, ...] | None = Field(
        None,
        description="Mandatory blocks of each stage; default: half of them, rounded up. A stage that is "
        "mandatory as a whole keeps its flag, which then only switches norms.",
    )
    skip_aware: bool = Field(
        True,
        description="Mandatory blocks have a second set of norms for skipped stages (paper, section 3.3). "
        "False is the paper's ablation.",
    )
    # loss
    alpha: Probability = Field(
        0.5, description="Weight of the super-net's loss; that of the base-net's is 1 - alpha."
    )
    paper_weights: bool = Field(
        False, description="Weigh both losses with 1, as in Algorithm 1 of the paper, instead of by alpha."
    )
    distill: bool = Field(
        True,
        description="The base-net learns from the super-net's logits. False: from the labels (the paper's "
        "ablation).",
    )
    temperature: float = Field(1.0, gt=0, description="Temperature of the distillation.")
    top_k: int = Field(
        500,
        ge=1,
        description="Distil over so many classes, those that the super-net finds likeliest; all of them "
        "where there are fewer.",
    )
    feature_stages: tuple[int, ...] = Field(
        (),
        description="Stages, counted from 1, whose pooled features are distilled too. The released code has "
        "[1, 2, 3], later [2, 3, 4]; the paper's formula takes all.",
    )
    teacher: Literal["super", "random"] = Field(
        "super",
        description="The sub-network that learns from the labels and teaches; random: drawn anew at every "
        "step (the paper's ablation).",
    )
    student: Literal["base", "random"] = Field(
        "base", description="The sub-network that is taught; random: drawn anew at every step."
    )
    # stochastic depth
    stochastic_depth: Probability | None = Field(
        None, description="Swin only. Drop probability of the last block, growing linearly; default 0.1."
    )
    stochastic_depth_mandatory: bool = Field(
        True,
        description="Swin only. True, as released: mandatory blocks drop too, unless their stage is skipped. "
        "False, as in the paper: mandatory blocks never drop.",
    )
    # execution
    cascade: tuple[str, ...] = Field(
        ("base", "super"), description="Skip configurations that a cascade tries, in this order."
    )

    @field_validator("mandatory", "feature_stages", "cascade", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _backbone(self) -> ADNConfig:
        if (self.depth is None) == (self.arch is None):
            raise ValueError("give `depth` (CIFAR family) or `arch` (ImageNet family), one of them")
        if self.depth is not None and (self.depth < 14 or (self.depth - 2) % 6):
            raise ValueError(
                "depth must be 6n+2 with at least two blocks a stage (14, 20, 32, 44, 56, 110, ...), "
                f"not {self.depth}"
            )
        if self.arch is not None:
            if self._changed("shortcut") or self._changed("width"):
                raise ValueError("shortcut and width belong to the CIFAR family (depth), not to arch")
            if self._changed("norm") and not self.arch.startswith(CONVOLUTIONAL):
                raise ValueError(f"norm is a choice of ResNets and MobileNetV2; {self.arch} has layer norm")
        if not (self.arch or "").startswith("swin"):
            for name in ("stochastic_depth", "stochastic_depth_mandatory"):
                if self._changed(name):
                    raise ValueError(f"{name} belongs to the Swin backbones")
        return self

    @model_validator(mode="after")
    def _stages_exist(self) -> ADNConfig:
        split = self.split()
        if self.mandatory is not None:
            if len(self.mandatory) != split.flags:
                raise ValueError(f"mandatory must have {split.flags} numbers, one per stage")
            for stage, (few, all_) in enumerate(zip(self.mandatory, split.blocks), start=1):
                if not 1 <= few <= all_:
                    raise ValueError(f"mandatory: stage {stage} has {all_} blocks, so 1 to {all_}, not {few}")
        if any(not 1 <= stage <= split.flags for stage in self.feature_stages):
            raise ValueError(f"feature_stages are numbers from 1 to {split.flags}")
        if len(set(self.feature_stages)) != len(self.feature_stages):
            raise ValueError("feature_stages: a stage stands twice")
        self.cascade_skips()
        return self

    @model_validator(mode="after")
    def _loss(self) -> ADNConfig:
        if self.paper_weights and self._changed("alpha"):
            raise ValueError("paper_weights sets both weights to 1; leave alpha out")
        if not self.distill:
            for name in ("temperature", "top_k"):
                if self._changed(name):
                    raise ValueError(f"{name} does nothing under distill: false")
            if self.feature_stages:
                raise ValueError("feature_stages do nothing under distill: false")
        return self

    def _changed(self, name: str) -> bool:
        # Not model_fields_set: a configuration that was written out in full names every field.
        return getattr(self, name) != type(self).model_fields[name].default

    def split(self) -> Split:
        """Blocks of each stage and how many of them are mandatory."""
        if self.depth is not None:
            blocks: tuple[int, ...] = ((self.depth - 2) // 6,) * 3
        else:
            blocks = BACKBONES[str(self.arch)]
        return split_of(blocks, self.mandatory)

    def cascade_skips(self) -> list[Skip]:
        """The configurations of ``cascade``, parsed; ValueError where one is wrong or stands twice."""
        try:
            skips = [parse_skip(value, self.split().flags) for value in self.cascade]
        except ConfigError as error:
            raise ValueError(f"cascade: {error}") from None
        if not skips:
            raise ValueError("cascade: needs at least one skip configuration")
        if len(set(skips)) != len(skips):
            raise ValueError("cascade: a skip configuration stands twice")
        return skips

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the super-net's and of the base-net's loss."""
        return (1.0, 1.0) if self.paper_weights else (self.alpha, 1.0 - self.alpha)

    @classmethod
    def small(cls) -> ADNConfig:
        return cls(depth=14)
