"""Options of exits on any backbone. Torch-free."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bench.config.schema import MethodConfig
from bench.config.stage import Stage

Weight = Annotated[float, Field(ge=0, le=1000)]

#: Options that say what is cut where, and what the heads are.
NETWORK_FIELDS = ("backbone", "exits", "head", "boost")
#: Options of the loss over all exits.
LOSS_FIELDS = ("exit_weights", "distill", "temperature", "equilibrium")


class ExitsConfig(MethodConfig):
    """Any torchvision, timm or CIFAR network with exits after layers that are named."""

    method_class: ClassVar[str] = "methods.exits.method:Exits"

    backbone: str = Field(
        pattern=r"^[a-z]+/\S+$", description="FAMILY/NAME: torchvision/resnet50, timm/resnet50d, cifar/resnet56 "
        "(cifar/resnet38-b: projection shortcuts).")
    exits: tuple[str, ...] | Annotated[int, Field(ge=1, le=64)] = Field(
        description="Layers after which there is an exit, in any order; or how many exits, which are placed evenly by "
        "MACs. The backbone's own classifier is one more, the last.")
    head: Literal["linear", "conv"] = Field(
        "linear", description="linear: pooling and one linear layer; conv: a 3x3 convolution, norm and ReLU before "
        "them, for maps. Tokens are normalised and their class token or mean is read.")
    regime: Literal["joint", "disjoint", "mixed"] = Field(
        "joint", description="joint: everything at once; disjoint: the backbone, then the heads on it frozen; mixed: "
        "the backbone, then everything.")
    exit_weights: Literal["equal", "depth"] | tuple[Weight, ...] = Field(
        "equal", description="Weights of the exits' losses, the last exit included. depth: exit k of n weighs k/n; or "
        "a number for each.")
    distill: float = Field(0.0, ge=0, le=1, description="Share of an exit's loss that is distillation from the last "
                           "exit; 0: none.")
    temperature: float = Field(3.0, gt=0, le=1000, description="Temperature of the distillation.")
    equilibrium: bool = Field(False, description="Gradient equilibrium: each part of the backbone gets the mean "
                              "instead of the sum of the gradients of the exits behind it.")
    boost: float = Field(0.0, ge=0, le=1, description="Exit k says what its head says plus so much of what exit k-1 "
                         "said, without a gradient into it (BoostNet: 0.5); 0: none.")

    @field_validator("exits", "exit_weights", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("exits")
    @classmethod
    def _named_once(cls, value: tuple[str, ...] | int) -> tuple[str, ...] | int:
        if value == ():
            raise ValueError("name at least one layer, or give a number of exits")
        if isinstance(value, tuple) and len(set(value)) != len(value):
            raise ValueError(f"'{next(name for name in value if value.count(name) > 1)}' stands twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ExitsConfig:
        answers = self.answers
        if isinstance(self.exit_weights, tuple) and len(self.exit_weights) != answers:
            raise ValueError(f"exit_weights has {len(self.exit_weights)} numbers, but there are {answers} exits with "
                             "the last")  # fmt: skip
        if self.equilibrium and self.regime == "disjoint":
            raise ValueError("equilibrium does nothing under regime: disjoint, whose backbone gets no gradient from "
                             "exits")  # fmt: skip
        if self.boost and self.regime == "disjoint":
            raise ValueError("boost changes the last exit too, which regime: disjoint leaves as it is; set regime: "
                             "joint or mixed")  # fmt: skip
        return self

    @property
    def answers(self) -> int:
        """Number of exits, the last one included."""
        return 1 + (self.exits if isinstance(self.exits, int) else len(self.exits))

    def stages(self) -> list[Stage]:
        """``joint`` alone; or ``backbone``, the network without exits, and on it ``heads`` or ``mixed``. Each depends
        only on the options that it uses, so that runs with other exits share the trained backbone."""
        loss = self.model_dump(mode="json", include={*NETWORK_FIELDS, *LOSS_FIELDS})
        if self.regime == "joint":
            return [Stage("joint", options=loss)]
        first = Stage("backbone", options=self.model_dump(mode="json", include={"backbone"}))
        if self.regime == "disjoint":
            return [first, Stage("heads", start_from="backbone", trains=("heads.*",), options=loss)]
        return [first, Stage("mixed", start_from="backbone", options=loss)]

    @classmethod
    def small(cls) -> ExitsConfig:
        return cls(backbone="cifar/resnet8", exits=("layer1", "layer2"))
