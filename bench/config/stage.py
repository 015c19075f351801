"""A stage of training, torch-free: a configuration names its stages before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.config.schema import Recipe


@dataclass(frozen=True)
class Stage:
    """One stage of training, as a method declares it.

    name: what configurations and rows call it.
    start_from: the stage whose final weights ``prepare`` receives; None starts from a fresh network.
    recipe: what this stage changes in the shared recipe (keys of ``bench.config.schema.Recipe``). A run's
        own ``stages: {name: {...}}`` still wins over it.
    trains: fnmatch patterns over parameter names; a parameter that none matches gets ``requires_grad=False``.
    options: the method options that this stage depends on, for its content address. None means all of
        them. Stages that share data, recipe, seed, options and predecessors are trained once.
    """

    name: str
    start_from: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    trains: tuple[str, ...] = ("*",)
    options: Mapping[str, Any] | None = None

    def resolve(self, recipe: Recipe) -> RunStage:
        return RunStage(self.name, self.start_from, recipe, self.trains)


@dataclass(frozen=True)
class RunStage:
    """A stage of a run, as hooks get it: with the whole ``recipe`` in force. The rest is as declared."""

    name: str
    start_from: str | None
    recipe: Recipe
    trains: tuple[str, ...] = ("*",)
