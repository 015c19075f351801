"""The contract a method fulfils: hooks are verbs, what passes between them are nouns.

A method is one class with a pydantic ``Config``. The harness makes one instance per run,
``Method(config, data)``, and asks it for its training stages, its networks, its loss, its operating
points and the pieces that a decision can run or leave out. Everything else (data, loop, cost, policies,
statistics, plots) belongs to the harness. ``docs/adding-a-method.md`` walks through one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.config.stage import Stage
from bench.errors import WeightsError

if TYPE_CHECKING:
    from bench.config.schema import MethodConfig

_WRAPPERS = ("module.", "_orig_mod.")

__all__ = ["Arch", "Batch", "DataSpec", "Decisions", "Executed", "Method", "Plan", "Point", "Stage", "Unit"]


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


class Method(ABC):
    """Base class. ``Config`` is the pydantic model of the method's own options.

    A subclass defines the abstract hooks below; the others have defaults that suit a static network.
    Hooks get the *bare* module: the harness wraps it for several processes, compilation and averaging.
    """

    Config: ClassVar[type[MethodConfig]]
    #: what the method can do, for policies and reports: "static_paths", "exits", "gates", ...
    capabilities: ClassVar[frozenset[str]] = frozenset()
    #: whether a step may leave parameters without a gradient (several processes must then look for them)
    find_unused_parameters: ClassVar[bool] = False

    def __init__(self, config: MethodConfig, data: DataSpec) -> None:
        self.config = config
        self.data = data

    # ---- what it is -------------------------------------------------------------------------------
    @classmethod
    def archs(cls) -> dict[str, Arch]:
        """Published architecture name -> what to build for it. Used by ``bench import``."""
        return {}

    def backbone(self) -> str:
        """A short name of the network for tables: 'resnet20', 'resnet110-b', ..."""
        return type(self).__name__.lower()

    def stages(self) -> Sequence[Stage]:
        """The stages of training, in order; the last one's network is evaluated.

        They are the configuration's (``Config.stages()``), so that a file which names a stage that does
        not exist is refused before torch is imported. Define them there.
        """
        return self.config.stages()

    # ---- training ---------------------------------------------------------------------------------
    @abstractmethod
    def build(self, stage: Stage) -> nn.Module:
        """The network of that stage on the CPU, initialised from torch's global generator."""

    def prepare(self, model: nn.Module, stage: Stage, previous: nn.Module | None) -> None:
        """Once, when a stage starts and never when it resumes: take over weights, freeze, sharpen.

        previous is the trained network of ``stage.start_from``. The default copies all of its weights.
        """
        if previous is not None:
            model.load_state_dict(previous.state_dict())

    def set_mode(self, model: nn.Module, stage: Stage) -> None:
        """After every ``model.train()``: put parts back into the mode they must stay in."""
        return None

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """All passes of one step. Returns ``{"loss": scalar to differentiate, ...}``.

        Further scalars are logged as running means. The key ``"logits"`` [B, C], if given, is used for
        the running training accuracy and not logged.
        """

    # ---- measuring --------------------------------------------------------------------------------
    def points(self, model: nn.Module) -> Sequence[Point]:
        """The operating points in order, the default one first."""
        return [Point("full")]

    @abstractmethod
    def units(self, model: nn.Module) -> Sequence[Unit]:
        """The pieces a decision can run or leave out, in a fixed order. They cover the whole network."""

    @abstractmethod
    def record(self, model: nn.Module, images: Tensor) -> Decisions:
        """All operating points of a batch, in evaluation mode and without gradients."""

    @abstractmethod
    def execute(self, model: nn.Module, images: Tensor, plan: Plan) -> Executed:
        """Run one plan with the work that it leaves out really left out."""

    # ---- published weights ------------------------------------------------------------------------
    @classmethod
    def import_weights(cls, arch: str, state_dict: Mapping[str, Tensor]) -> tuple[Method, nn.Module]:
        """Published names in, our network out. Every key is accounted for or a WeightsError names it.

        The default builds ``archs()[arch]``, strips ``module.`` and loads strictly.
        """
        spec = cls.find_arch(arch)
        method = cls(spec.config, spec.data)
        model = method.build(method.stages()[-1])
        load_strict(model, strip_prefix(state_dict), what=arch)
        return method, model

    def export_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Our network out under its published names (the inverse of ``import_weights``)."""
        return {key: value.detach().clone() for key, value in model.state_dict().items()}

    def export_point(self, model: nn.Module, point: Point) -> nn.Module:
        """One operating point as a plain network that decides nothing: images [B, C, H, W] -> logits [B, classes].

        On the CPU, in evaluation mode, sharing no memory with ``model``; no random number is drawn. Raises
        WeightsError where there is no such network, as by default.
        """
        raise WeightsError(f"{type(self).__name__}: point '{point.name}' is no plain network; nothing to export")

    def export_constructor(self, point: Point) -> str | None:
        """A Python expression with full module names for an empty network that ``export_point``'s state_dict
        fits, or None."""
        return None

    @classmethod
    def find_arch(cls, arch: str) -> Arch:
        from bench.registry import did_you_mean

        archs = cls.archs()
        if arch not in archs:
            raise WeightsError(f"unknown architecture '{arch}'{did_you_mean(arch, archs)}")
        return archs[arch]


def strip_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what wrappers put before every key: ``module.`` (DataParallel, DDP, averages) and ``_orig_mod.``
    (torch.compile), in any order and however often they stand there."""
    stripped = {}
    for key, value in state_dict.items():
        while key.startswith(_WRAPPERS):
            key = key.partition(".")[2]
        stripped[key] = value
    return stripped


def load_strict(model: nn.Module, state_dict: Mapping[str, Tensor], *, what: str) -> None:
    """Load with every key accounted for; raises WeightsError naming what is missing, left over or misshapen.

    ``num_batches_tracked`` may be missing: files from before torch 0.4.1 have none.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in state_dict and not k.endswith("num_batches_tracked")]
    extra = [k for k in state_dict if k not in own]
    shapes = [
        f"{k} {tuple(state_dict[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state_dict and tuple(state_dict[k].shape) != tuple(own[k].shape)
    ]
    problems = [
        f"{len(keys)} {label} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for label, keys in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise WeightsError(f"weights do not fit {what}: " + "; ".join(problems))
    with torch.no_grad():
        model.load_state_dict(dict(state_dict), strict=False)
