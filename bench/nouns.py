"""What passes between a method and the harness: data, no behaviour. ``bench.method`` hands all of it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import Tensor, nn

from bench.config.data import DataSpec

if TYPE_CHECKING:
    from bench.config.schema import MethodConfig

__all__ = ["Arch", "Batch", "Capability", "Decisions", "Executed", "Plan", "Point", "Unit"]

#: What a network's operating points are, for policies and reports. exits: answers on the way, each holding the
#: work of those before it; static_paths: networks of their own inside one; gates: each image finds its own way.
Capability = Literal["exits", "static_paths", "gates"]


class Batch(NamedTuple):
    """One training batch, on the device, normalised and augmented.

    images: float [B, 3, H, W], mixed where mixup or cutmix is on.
    targets: int64 [B], or float [B, C] where mixup or cutmix is on (label smoothing is the loss's part).
    labels: int64 [B], the labels before mixing.
    clean_images: the images before mixing; the same tensor as ``images`` where nothing is mixed.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    clean_images: Tensor


@dataclass(frozen=True)
class Point:
    """An operating point: one way to run the trained network. ``settings`` are the method's own."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A piece that a decision runs or leaves out, counted by itself.

    module is called as ``module(*inputs)`` with tensors only; inputs are examples of batch size 1.
    extra_costs adds columns of a method's published way of counting: cost of one run of this unit.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    extra_costs: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Decisions:
    """What the network said and ran for one batch, at every operating point.

    logits: [P, B, C], in the order of ``points``, the default point first.
    counts: how often each unit ran, integers, [P, U] where it is the same for every sample, else [P, B, U].
    signals: more that a policy may see, each [P, B] (a gate's margin, say). Never anything of the label.
    """

    logits: Tensor
    counts: Tensor
    signals: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Executed:
    """What ``execute`` really ran. logits: [B, C]; counts: integers [B, U]; taken: int64 [B], the exit or
    path at which each sample stopped (all zeros where a point was asked for)."""

    logits: Tensor
    counts: Tensor
    taken: Tensor


# A plan is a point, or a policy's decision after exit k: logits [b, C] of the samples still running ->
# bool [b], True for those that go on.
Plan = Point | Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Arch:
    """A published architecture: the options that build it and the data set its head is for."""

    config: MethodConfig
    data: DataSpec
