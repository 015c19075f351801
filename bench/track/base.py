"""What a tracker is, and what it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.config.resolve import RunSpec

__all__ = ["TrackedRun", "Tracker", "flat", "headline"]


@dataclass(frozen=True)
class TrackedRun:
    """A run of one seed, as a tracker gets it when it is opened.

    name: run, seed and id, unique among the results of a comparison. key: twelve hex digits that are the same whenever
    this run is continued, and others once it begins anew (``--fresh``). continued: whether this tracker was opened for
    the key before. config: every resolved value, of JSON's types. folder: for the tracker's own files, shared by the
    runs of a comparison; it may not be there yet.
    """

    comparison: str
    name: str
    run: str
    label: str
    method: str
    seed: int
    key: str
    continued: bool
    config: Mapping[str, Any]
    folder: Path


class Tracker(ABC):
    """Made without arguments once for each run, in the run's own process; under torchrun in the first one.

    Whatever a hook raises switches the tracker off for this run, with one line, and never ends the run. What it
    needs is imported in ``open``: the class itself is imported to list and check it.
    """

    #: what `trackers:` and tables call it; that of its entry point
    name: ClassVar[str]
    #: one line for `bench list trackers`
    help: ClassVar[str]
    #: the package that ``open`` imports; a file that asks for the tracker is refused if it is not installed
    package: ClassVar[str] = ""
    #: what `pip install` calls it; default: ``package``
    install: ClassVar[str] = ""

    @abstractmethod
    def open(self, run: TrackedRun) -> None:
        """A run begins or is continued."""

    @abstractmethod
    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """The end of an epoch: loss, accuracy (percent), lr, images_per_s, the method's own scalars, ...

        step: optimiser steps of this stage so far. Each step of a stage is told once, however often a run is continued.
        A stage that another run has trained is told all at once.
        """

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:  # noqa: B027
        """The run was measured: its rows of the results table (columns: ``bench.evaluate.rows.Row``)."""

    def close(self, status: str) -> None:  # noqa: B027
        """The last call. status: of the run: done, failed, diverged, timeout or interrupted (to be continued, then)."""


def describe(spec: RunSpec) -> dict[str, Any]:
    """Every value of a resolved run, of JSON's types; stages by their names, options with their defaults."""
    said = spec.model_dump(mode="json", exclude={"options", "all_options", "stages", "trackers", "skip"})
    stages = {stage.name: stage.recipe.model_dump(mode="json") for stage in spec.stages}
    return {**said, "run_id": spec.run_id, "options": spec.model_dump(mode="json")["all_options"], "stages": stages}


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{"stages": {"train": {"lr": 0.1}}} -> {"stages.train.lr": 0.1}. Lists and empty sections stay values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def headline(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of the default operating point, by the names of their columns."""
    row = next((row for row in rows if row.get("default")), {})
    wanted = ("top1", "top5", "nll", "ece", "macs", "params")
    return {name: float(row[name]) for name in wanted if row.get(name) is not None}
