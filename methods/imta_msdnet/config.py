"""Options of MSDNet and of the three training techniques of IMTA. Torch-free."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from baselines.norms.config import NormConfig, NormOption
from bench.config.schema import MethodConfig
from bench.config.stage import Stage
from methods.imta_msdnet.geometry import Geometry, plan_geometry

_IMAGENET: dict[str, Any] = {
    "stem": "imagenet", "exits": 5, "step_mode": "even", "channels": 32, "growth": 16,
    "growth_factor": (1, 2, 4, 4), "bottleneck_factor": (1, 2, 4, 4),
}  # fmt: skip
_CIFAR: dict[str, Any] = {
    "stem": "cifar", "channels": 16, "growth": 6, "growth_factor": (1, 2, 4), "bottleneck_factor": (1, 2, 4),
}  # fmt: skip

#: Published networks: the fields that each name stands for.
NETWORKS: dict[str, dict[str, Any]] = {
    **{f"lg{n}": {**_CIFAR, "step_mode": "lin_grow", "exits": n, "base": 1, "step": 1} for n in range(4, 9)},
    **{f"any{n}": {**_CIFAR, "step_mode": "even", "exits": n, "base": 4, "step": 2} for n in (7, 10, 11)},
    **{f"imagenet{n}": {**_IMAGENET, "base": n, "step": n} for n in (4, 5, 6, 7)},
}

NetworkName = Literal[
    "lg4", "lg5", "lg6", "lg7", "lg8", "any7", "any10", "any11",
    "imagenet4", "imagenet5", "imagenet6", "imagenet7",
]  # fmt: skip

#: Fields that say what the network of the first stage is.
NETWORK_FIELDS = (
    "exits", "step_mode", "base", "step", "channels", "growth", "growth_factor", "bottleneck",
    "bottleneck_factor", "prune", "reduction", "stem", "head_channels", "head_pool", "norm", "init",
)  # fmt: skip


class IMTAMSDNetConfig(MethodConfig):
    """MSDNet with gradient equilibrium (GE), inline subnetwork collaboration (ISC) and one-for-all
    distillation (OFA), each by its own switch. The defaults are IMTA on the CIFAR network of five exits."""

    method_class: ClassVar[str] = "methods.imta_msdnet.method:IMTAMSDNet"

    # network
    network: NetworkName | None = Field(
        None, description="A published network: sets the fields below that are not given. lgN: CIFAR, N "
        "exits, blocks that grow; anyN: CIFAR, N exits, even blocks; imagenetN: 5 exits, N layers a block.")
    exits: int = Field(5, ge=1, le=64, description="Number of exits, one per block.")
    step_mode: Literal["even", "lin_grow"] = Field(
        "lin_grow", description="Layers of block k = 1, 2, ... after the first: `step`, or step * k + 1.")
    base: int = Field(1, ge=1, le=256, description="Layers of the first block.")
    step: int = Field(1, ge=1, le=256, description="Layers of the later blocks; see step_mode.")
    channels: int = Field(16, ge=1, le=4096, description="Channels of the stem at a scale of growth factor 1.")
    growth: int = Field(6, ge=1, le=4096, description="Channels that a layer adds at a scale of growth factor 1.")
    growth_factor: tuple[int, ...] = Field(
        (1, 2, 4), min_length=1, max_length=8, description="Width of each scale, finest first; its length is "
        "the number of scales.")
    bottleneck: bool = Field(True, description="1x1 convolutions before the 3x3 ones.")
    bottleneck_factor: tuple[int, ...] = Field(
        (1, 2, 4), description="Width of the bottlenecks of each scale, in multiples of what the 3x3 "
        "convolution writes.")
    prune: Literal["max", "min"] = Field(
        "max", description="max: drop the finest scale at equal distances; min: in the last layers only.")
    reduction: float = Field(0.5, ge=0, le=1, description="Share of channels that a transition keeps; 0: no "
                             "transitions.")
    stem: Literal["auto", "cifar", "imagenet"] = Field(
        "auto", description="cifar: 3x3, full resolution; imagenet: 7x7 with stride 2 and max pooling; auto: "
        "imagenet for images larger than 64 pixels.")
    head_channels: int | None = Field(
        None, ge=1, description="Channels inside a head; default: 128 under the cifar stem, those of "
        "the head's input under the imagenet stem.")
    head_pool: Literal["fixed", "global"] = Field(
        "fixed", description="fixed: 2x2 pooling as published, for images of about 32 or 224 pixels; global: "
        "any size.")
    norm: NormOption = Field(
        NormConfig(), description="Normalisation: a name, or a section with its parameters. ISC normalises "
        "vectors and always uses batch norm.")
    init: Literal["default", "he"] = Field(
        "default", description="default: torch's own, which the released PyTorch code ends up with; he: "
        "normal over the fan-out, as in the Lua code.")
    # techniques
    ge: Literal["none", "coarsest", "all"] = Field(
        "coarsest", description="Gradient equilibrium: on the coarsest scale as released, on all, or not.")
    isc: Literal["none", "full", "stop_gradient"] = Field(
        "full", description="Collaboration of the exits in a second stage on the frozen network; "
        "stop_gradient: no gradient from an exit into the exits before it.")
    ofa: Literal["none", "class_mean", "batch_mean"] = Field(
        "class_mean", description="Distillation into the earlier exits. class_mean: averaged over batch and "
        "classes as released, so 1/classes as strong as batch_mean.")
    ofa_teacher: Literal["auto", "frozen_head", "final_exit"] = Field(
        "auto", description="frozen_head: the last head of the frozen network, as released; final_exit: the "
        "last exit of the network in training; auto: frozen_head under ISC, else final_exit.")
    ofa_weight: float = Field(
        0.1, ge=0, le=1, description="Weight gamma of the distillation; the earlier exits' cross-entropies "
        "get 1 - gamma.")
    ofa_temperature: float = Field(1.0, gt=0, description="Temperature T of the distillation.")
    frozen_norm: Literal["train", "eval"] = Field(
        "train", description="Batch norm of the frozen network in the second stage. train: batch statistics, "
        "and the running ones go on adapting, as released; eval: fixed.")
    # evaluation
    lazy: bool = Field(
        False, description="Leave finer scales that an exit does not depend on to the exits that do.")

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(name := values.get("network"), str) and name in NETWORKS:
            return {**NETWORKS[name], **values}
        return values

    @field_validator("growth_factor", "bottleneck_factor", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("growth_factor", "bottleneck_factor")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(1 <= factor <= 64 for factor in value):
            raise ValueError("every factor must lie between 1 and 64")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> IMTAMSDNetConfig:
        if len(self.bottleneck_factor) != len(self.growth_factor):
            growth, bottleneck = len(self.growth_factor), len(self.bottleneck_factor)
            raise ValueError(f"growth_factor has {growth} scales, bottleneck_factor {bottleneck}")
        odd = [s for s, factor in enumerate(self.growth_factor) if s and self.growth * factor % 2]
        if odd:
            raise ValueError(
                "growth * growth_factor must be even at every scale but the finest (two branches share it); "
                f"it is {self.growth * self.growth_factor[odd[0]]} at scale {odd[0] + 1}"
            )
        if self.isc == "none" and self.ofa_teacher == "frozen_head" and self.ofa != "none":
            raise ValueError("ofa_teacher: frozen_head needs isc; set that, or ofa_teacher: final_exit")
        self.geometry()
        return self

    @classmethod
    def small(cls) -> IMTAMSDNetConfig:
        return cls(exits=3, channels=8, growth=4)

    def stages(self) -> list[Stage]:
        """The network with its own heads, called ``ge`` (``msdnet`` without GE); under ISC then ``isc_ofa``,
        which trains new classifiers on it frozen. Each depends only on the options that it uses, so the runs
        of an ablation share their first stage."""
        two = self.isc != "none"
        alone = not two and self.ofa != "none"
        first = self._options(*NETWORK_FIELDS, "ge") | (self._distillation() if alone else {})
        stages = [Stage("msdnet" if self.ge == "none" else "ge", options=first)]
        if two:
            second = self._options(*NETWORK_FIELDS, "isc", "frozen_norm") | self._distillation()
            stages.append(
                Stage("isc_ofa", start_from=stages[0].name, trains=("collaboration.*",), options=second)
            )
        return stages

    def _options(self, *names: str) -> dict[str, Any]:
        return self.model_dump(mode="json", include=set(names))

    def _distillation(self) -> dict[str, Any]:
        if self.ofa == "none":
            return {"ofa": "none"}
        return self._options("ofa", "ofa_weight", "ofa_temperature") | {"ofa_teacher": self.teacher}

    def geometry(self) -> Geometry:
        """The layers and scales of this network; raises ValueError where there is none."""
        return plan_geometry(
            exits=self.exits, step_mode=self.step_mode, base=self.base, step=self.step,
            channels=self.channels, growth=self.growth, growth_factor=self.growth_factor,
            prune=self.prune, reduction=self.reduction,
        )  # fmt: skip

    @property
    def teacher(self) -> Literal["frozen_head", "final_exit"]:
        """The teacher in force."""
        if self.ofa_teacher != "auto":
            return self.ofa_teacher
        return "frozen_head" if self.isc != "none" else "final_exit"
