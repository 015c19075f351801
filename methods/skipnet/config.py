"""Options of SkipNet. Defaults are the released CIFAR settings where the paper or its code gives one."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from baselines.norms.config import NormConfig, NormOption
from bench.config.schema import MethodConfig, Probability
from bench.config.stage import Stage

#: Options that supervised pre-training does not depend on: a sweep over them shares one such stage.
HRL_OPTIONS = (
    "alpha", "ce_reward", "rl_weight", "rl_reduction", "gamma", "baseline", "freeze_norm_statistics",
    "temperature",
)  # fmt: skip
#: Options that change only what is measured after training, or which stages there are.
NOT_TRAINED = ("thresholds", "hrl")

#: The published second stages: CIFAR 10,000 steps at a constant rate; ImageNet 40 epochs with a drop at 30.
HRL_CIFAR_RECIPE: dict[str, Any] = {
    "lr": 1e-4, "lr_scheduler": "constant", "lr_min": 0.0, "lr_warmup_epochs": 0, "iterations": 10_000,
}  # fmt: skip
HRL_IMAGENET_RECIPE: dict[str, Any] = {
    "lr": 1e-4, "lr_scheduler": "step", "lr_step_size": 30, "lr_gamma": 0.1, "lr_min": 0.0,
    "lr_warmup_epochs": 0, "epochs": 40,
}  # fmt: skip

Gate = Literal["rnn", "ff1", "ff2", "none"]
ImageNetArch = Literal["resnet18", "resnet34", "resnet50", "resnet74", "resnet101", "resnet152"]


class SkipNetConfig(MethodConfig):
    """A ResNet that skips blocks image by image: ``depth`` (CIFAR family) or ``arch`` (ImageNet family)."""

    method_class: ClassVar[str] = "methods.skipnet.method:SkipNet"

    depth: int | None = Field(
        None, description="CIFAR ResNet of depth 6n+2 with projection shortcuts (paper: 38, 74, 110, 152).")
    arch: ImageNetArch | None = Field(
        None, description="ImageNet ResNet; resnet74 has 3, 4, 14, 3 bottlenecks.")
    width: int = Field(16, ge=1, description="CIFAR only. Channels of the first group.")
    norm: NormOption = Field(
        NormConfig(), description="Normalisation: a name, or a section with its parameters.")
    # gates
    gate: Gate = Field(
        "rnn", description="rnn: one recurrent gate for all blocks (0.03 % of the MACs); ff1: two "
        "convolutions per gate (the paper's choice below 100 layers); ff2: one convolution per gate (above); "
        "none: the ungated ResNet.")
    rnn_size: int = Field(10, ge=1, description="gate: rnn only. Size of the embedding and of the state.")
    soft_gates: bool = Field(
        False, description="Supervised pre-training with gates that blend by their probability instead of by "
        "0 or 1; evaluation is hard all the same (the paper's Table 3).")
    threshold: float = Field(
        0.5, ge=0, lt=1, description="A block runs where its gate's probability is strictly greater: in "
        "supervised pre-training and at the default operating point.")
    thresholds: tuple[Probability, ...] = Field(
        (), description="Further operating points of the trained network, each a threshold and a pass of its "
        "own; not used in training.")
    keep_open_bias: float = Field(
        0.0, description="Added to every gate's logit at initialisation: above 0 the network starts with "
        "more blocks running. 0: as published.")
    target_rate: Probability | None = Field(
        None, description="Pulls the open rate towards this value during supervised pre-training. Default: no "
        "pull, as published.")
    target_rate_of: Literal["network", "gate"] = Field(
        "network", description="What target_rate is the open rate of. network: all gates together, so that one "
        "may stay open and another closed; gate: each gate over the batch (as in ConvNet-AIG, Veit and Belongie "
        "2018), so that every gate has to choose between images.")
    target_rate_weight: float = Field(
        1.0, ge=0, description="Weight of (open rate - target_rate)^2 in the loss; the sum over gates where "
        "target_rate_of is gate.")
    # hybrid reinforcement learning
    hrl: bool = Field(
        True, description="Second stage: hybrid reinforcement learning. false: supervised only.")
    alpha: float = Field(
        0.1, ge=0, description="Reward of skipping all gated blocks; each is worth alpha / gates (released: "
        "CIFAR 0.1, ImageNet 0.01).")
    ce_reward: Literal["full", "scaled"] = Field(
        "full", description="Weight of -cross-entropy in the return. full: 1 (CIFAR); scaled: alpha / gates, "
        "as the skips have (ImageNet), so that one skipped block is worth one nat whatever alpha is.")
    rl_weight: float = Field(
        0.01, ge=0, description="Weight of the policy term beside the mean cross-entropy, for a sum over a "
        "batch of 128 images and all gates.")
    rl_reduction: Literal["mean", "sum"] = Field(
        "mean", description="mean: 128 * rl_weight times the mean over images, the same force at any batch "
        "size and over any number of processes; sum: rl_weight times the sum over images, as released. Equal "
        "at batch 128.")
    gamma: Probability = Field(1.0, description="Discount per gate.")
    baseline: Literal["none", "batch"] = Field(
        "none", description="Subtracted from the return. batch: at each gate, the mean of the other images.")
    freeze_norm_statistics: bool = Field(
        False, description="Keep running statistics of normalisation fixed in the second stage, and normalise "
        "by them.")
    temperature: float = Field(
        1.0, gt=0, description="Gate logits are divided by it once, when the second stage starts; below 1 "
        "sharpens the policy (released: ImageNet 0.05).")

    @field_validator("thresholds", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("thresholds")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a threshold stands twice")
        if any(threshold == 1 for threshold in value):
            raise ValueError("thresholds must be less than 1: no gate's probability is greater")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SkipNetConfig:
        if (self.depth is None) == (self.arch is None):
            raise ValueError("give `depth` (CIFAR family) or `arch` (ImageNet family), one of them")
        if self.depth is not None and (self.depth < 8 or (self.depth - 2) % 6):
            raise ValueError(f"depth must be 6n+2 (8, 14, 20, 38, 74, 110, ...), not {self.depth}")
        if self.arch is not None and "width" in self.model_fields_set:
            raise ValueError("width belongs to the CIFAR family (depth), not to arch")
        if self.gate == "none":
            if "hrl" in self.model_fields_set and self.hrl:
                raise ValueError("gate: none has no gates for hrl: true to train; set hrl: false")
            if self.thresholds or self.soft_gates or self.target_rate is not None:
                raise ValueError("gate: none goes with no thresholds, soft_gates or target_rate")
        for name in ("target_rate_weight", "target_rate_of"):
            if name in self.model_fields_set and self.target_rate is None:
                raise ValueError(f"{name} needs a target_rate")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # runs and stages from before there was a choice keep their identity
        return {name: value for name, value in handler(self).items() if (name, value) != ("target_rate_of", "network")}

    @classmethod
    def small(cls) -> SkipNetConfig:
        return cls(depth=8, thresholds=(0.4,))

    def stages(self) -> list[Stage]:
        """Ungated: [base]. Gated: [sp], then hrl unless it is switched off."""
        options = self.model_dump(mode="json", exclude=set(NOT_TRAINED))
        supervised = {key: value for key, value in options.items() if key not in HRL_OPTIONS}
        if self.gate == "none":
            keys = ("depth", "arch", "width", "norm", "gate")
            return [Stage("base", options={key: supervised[key] for key in keys})]
        sp = Stage("sp", options=supervised)
        if not self.hrl:
            return [sp]
        recipe = HRL_CIFAR_RECIPE if self.depth is not None else HRL_IMAGENET_RECIPE
        return [sp, Stage("hrl", start_from="sp", recipe=recipe, options=options)]

    @property
    def backbone(self) -> str:
        """The residual network under the gates: 'resnet110', 'resnet14-w8' where it is not of the usual width."""
        wide = f"-w{self.width}" if self.width != 16 else ""
        return self.arch or f"resnet{self.depth}{wide}"
