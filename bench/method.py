"""The contract a method fulfils: hooks are verbs, what passes between them are nouns.

A method is one class with a pydantic ``Config``. The harness makes one instance per run,
``Method(config, data)``, and asks it for its networks, its loss and one ``walk`` through a network, from which
it derives operating points, units, counts, the decision record and execution. Everything else (data, loop, cost,
policies, statistics, plots) belongs to the harness. ``docs/adding-a-method.md`` walks through one.
"""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from bench.config.schema import MethodConfig, Recipe
from bench.config.stage import RunStage, Stage
from bench.errors import ConfigError, WeightsError
from bench.nouns import Arch, Batch, Capability, DataSpec, Decisions, Executed, Plan, Point, Unit
from bench.train.losses import cross_entropy
from bench.walker import Walker
from bench.walking import Walk, everybody

__all__ = [
    "Arch", "Batch", "Capability", "DataSpec", "Decisions", "Executed", "Exports", "Method", "Plan", "Point",
    "RunStage", "Stage", "Unit", "Walk",
]  # fmt: skip

_WRAPPERS = ("module.", "_orig_mod.")

C = TypeVar("C", bound=MethodConfig)


def _overridable(walk: Callable[..., Walk]) -> Callable[..., Walk]:
    """For type checkers: an override may take the point as a further argument."""
    return walk


class Method(ABC, Generic[C]):
    """Base class of all methods: ``class Mine(Method[MineConfig])``.

    ``build`` is all that a static network writes. With a ``walk`` it becomes one that stops, chooses paths or skips;
    whatever is derived from the walk can be overridden. Hooks get the *bare* module: the harness wraps it for
    several processes, compilation and averaging.
    """

    Config: ClassVar[type[MethodConfig]]
    #: what the method's operating points are, for policies and reports
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    #: whether a step may leave parameters without a gradient (several processes must then look for them)
    find_unused_parameters: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:
        """``Config`` is what stands in brackets after ``Method``."""
        super().__init_subclass__(**more)
        for base in getattr(cls, "__orig_bases__", ()):
            for config in typing.get_args(base):
                if isinstance(config, type) and issubclass(config, MethodConfig) and "Config" not in vars(cls):
                    cls.Config = config

    def __init__(self, config: C, data: DataSpec) -> None:
        self.config = config
        self.data = data
        self._walker: Walker | None = None

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
    def build(self, stage: RunStage) -> nn.Module:
        """The network of that stage on the CPU, initialised from torch's global generator."""

    def build_last(self) -> nn.Module:
        """A fresh network of the last stage."""
        return self.build(self.stages()[-1].resolve(Recipe()))

    def prepare(self, model: nn.Module, stage: RunStage, previous: nn.Module | None) -> None:
        """Once, when a stage starts and never when it resumes: take over weights, freeze, sharpen.

        previous is the trained network of ``stage.start_from``. The default copies all of its weights.
        """
        if previous is not None:
            model.load_state_dict(previous.state_dict())

    def set_mode(self, model: nn.Module, stage: RunStage) -> None:
        """After every ``model.train()``: put parts back into the mode they must stay in."""
        return None

    def loss(self, model: nn.Module, batch: Batch, stage: RunStage) -> dict[str, Tensor]:
        """All passes of one step. Returns ``{"loss": scalar to differentiate, ...}``.

        Further scalars are logged as running means. The key ``"logits"`` [B, C], if given, is used for
        the running training accuracy and not logged.
        The default is the cross-entropy of the network's logits or, under a walk with several answers, the sum of
        theirs; the option ``exit_weights``, if there is one, weighs them (a number for each exit, the first one first).
        """
        if type(self).walk is Method.walk:
            answers = [model(batch.images)]
        else:
            answers = list(everybody(self.walk(model, batch.images)))
        smoothing = stage.recipe.label_smoothing
        losses = [cross_entropy(logits, batch.targets, smoothing) for logits in answers]
        weights = getattr(self.config, "exit_weights", None) or (1.0,) * len(losses)
        if len(weights) != len(losses):
            raise ConfigError(f"exit_weights has {len(weights)} numbers, but the network has {len(losses)} exits")
        parts = {f"ce_exit{k + 1}": one.detach() for k, one in enumerate(losses)} if len(losses) > 1 else {}
        return {"loss": sum(w * one for w, one in zip(weights, losses)), **parts, "logits": answers[-1]}  # type: ignore[dict-item]

    # ---- measuring --------------------------------------------------------------------------------
    @_overridable
    def walk(self, model: nn.Module, images: Tensor) -> Walk:
        """Say once how the network is run: yield logits [b, C]; ``yield`` returns an index of the images that go on.

        With a third parameter ``point`` it walks one path through the network, of which ``points`` are the list.
        ``bench.walking`` has what gates need.
        """
        yield model(images)

    def points(self, model: nn.Module) -> Sequence[Point]:
        """The operating points in order, the default one first. Derived: the last exit, then from the first on."""
        return self.walker(model).points()

    def cascade(self, model: nn.Module) -> Sequence[Point]:
        """The points that a policy runs one after the other, for a walk that takes a point. Default: none."""
        return []

    def units(self, model: nn.Module) -> Sequence[Unit]:
        """The pieces a decision can run or leave out, in a fixed order. They cover the whole network.

        Derived: the modules that the walk calls, in the order in which the network holds them.
        """
        return self.walker(model).units()

    def record(self, model: nn.Module, images: Tensor) -> Decisions:
        """All operating points of a batch, in evaluation mode and without gradients. Derived: all images go on."""
        with torch.no_grad():
            return self.walker(model).record(images)

    def execute(self, model: nn.Module, images: Tensor, plan: Plan) -> Executed:
        """Run one plan with the work that it leaves out really left out. Derived: the batch shrinks."""
        return self.walker(model).execute(images, plan)

    def walker(self, model: nn.Module) -> Walker:
        """What is derived from the walk through this very network, found once."""
        if self._walker is None or not self._walker.is_for(model):
            self._walker = Walker(self, model)
        return self._walker

    # ---- published weights ------------------------------------------------------------------------
    @classmethod
    def import_weights(cls, arch: str, state_dict: Mapping[str, Tensor]) -> tuple[Method[C], nn.Module]:
        """Published names in, our network out. Every key is accounted for or a WeightsError names it.

        The default builds ``archs()[arch]``, strips ``module.`` and loads strictly.
        """
        spec = cls.find_arch(arch)
        method = cls(spec.config, spec.data)  # type: ignore[arg-type]  # archs() holds the class's own options
        model = method.build_last()
        load_strict(model, strip_prefix(state_dict), what=arch)
        return method, model

    def export_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Our network out under its published names (the inverse of ``import_weights``)."""
        return {key: value.detach().clone() for key, value in model.state_dict().items()}

    @classmethod
    def find_arch(cls, arch: str) -> Arch:
        from bench.registry import did_you_mean

        archs = cls.archs()
        if arch not in archs:
            raise WeightsError(f"unknown architecture '{arch}'{did_you_mean(arch, archs)}")
        return archs[arch]


class Exports(ABC):
    """Mixin of a method whose operating points are plain networks, for ``bench export``."""

    @abstractmethod
    def export_point(self, model: nn.Module, point: Point) -> nn.Module:
        """One operating point as a plain network that decides nothing: images [B, C, H, W] -> logits [B, classes].

        On the CPU, in evaluation mode, sharing no memory with ``model``; no random number is drawn. Raises
        WeightsError if there is no such network.
        """

    def export_constructor(self, point: Point) -> str | None:
        """A Python expression with full module names for an empty network that ``export_point``'s state_dict
        fits, or None."""
        return None


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
