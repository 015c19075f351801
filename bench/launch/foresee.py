"""What would go wrong in training, or surprise, found before anything is trained. Imports torch only where a network
has to be built."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config.averaging import averaging_updates, share_of_start
from bench.config.load import Loaded
from bench.config.resolve import RunSpec, StageSpec, own_lengths
from bench.config.schema import Data, Recipe
from bench.data.catalog import dataset_info, find_root
from bench.data.geometry import eval_loader_kind, train_loader_kind
from bench.data.opening import open_sources
from bench.data.order import BatchPlan
from bench.data.splits import make_split
from bench.errors import BenchError, ConfigError
from bench.launch.folder import SETTLED, RunFolder

__all__ = ["foresee", "length_of", "say_first", "steps_of"]

#: An average that keeps more of its first network than this is said to be mostly that network.
MOSTLY = 0.5


def say_first(
    loaded: Loaded, specs: Sequence[RunSpec], out: Path, *, retry: Sequence[str] = (), fresh: bool = False,
    quiet: bool = False,
) -> None:  # fmt: skip
    """``foresee`` for the runs of a results folder that there is something to do for, its lines on standard error."""
    missing = [spec for spec in specs if fresh or _is_missing(RunFolder(out, spec).status["status"], retry)]
    for line in foresee(loaded, missing):
        if not quiet and int(os.environ.get("RANK") or 0) == 0:
            print(line, file=sys.stderr, flush=True)


def _is_missing(status: str, retry: Sequence[str]) -> bool:
    return status != "done" and (status not in SETTLED or status in retry or "all" in retry)


def foresee(loaded: Loaded, specs: Sequence[RunSpec], counts: dict[str, int] | None = None) -> list[str]:
    """Check runs that are to be done and return what should be said of them first: lines, 'note: ...', 'warning: ...'.

    counts: images of each part, if the data is open already. Raises ConfigError, ContractError or WeightsError, in one
    line, for what cannot work: a method of another package that breaks the contract, weights that do not fit, a last
    batch that the network cannot be trained on, too few test images.
    """
    specs = [spec for spec in specs if spec.skip is None]
    if not specs:
        return []
    from bench.launch.plugins import require_contract

    require_contract(specs)
    if counts is None:
        counts = _count_images(loaded.comparison.data, loaded.comparison.protocol)
    _require_test_images(loaded, counts["test"])
    first_seeds = list({spec.run: spec for spec in reversed(specs)}.values())[::-1]
    _require_weights(loaded, [spec for spec in first_seeds if spec.weights is not None])
    trained = [_Trained(spec, stage, counts["train"]) for spec in first_seeds if not spec.evaluate_only
               for stage in spec.stages]  # fmt: skip
    _require_batches(loaded, trained)
    return [*_own_lengths(loaded, trained), *_kept_starts(trained)]


def steps_of(recipe: Recipe, images: int) -> tuple[int, int]:
    """Optimiser steps of a stage and of one of its epochs, on so many training images."""
    plan = BatchPlan(images, recipe.batch_size, 0, recipe.drop_last)
    plan.check("the data")
    return recipe.iterations or (recipe.epochs or 0) * plan.steps, plan.steps


def length_of(recipe: Recipe, images: int) -> str:
    """The length of a stage in words: '10,000 steps (25.6 epochs)'."""
    steps, each = steps_of(recipe, images)
    epochs = steps / each
    passes = f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"
    plurals = "" if steps == 1 else "s", "" if passes == "1" else "s"
    return f"{steps:,} step{plurals[0]} ({passes} epoch{plurals[1]} of {each:,})"


@dataclass(frozen=True)
class _Trained:
    """A stage that is trained on so many images."""

    spec: RunSpec
    stage: StageSpec
    images: int

    @property
    def recipe(self) -> Recipe:
        return self.stage.recipe

    def __str__(self) -> str:
        several = len(self.spec.stages) > 1
        return f"run '{self.spec.run}'" + (f", stage '{self.stage.name}'" if several else "")


def _count_images(data: Data, protocol: str) -> dict[str, int]:
    train, test = open_sources(dataset_info(data.name), find_root(data), data.download)
    return make_split(data, train.labels, test.labels, protocol).counts


def _require_test_images(loaded: Loaded, count: int) -> None:
    """One image has no spread: there is no interval of a difference."""
    comparison = loaded.comparison
    if count < 2 and (comparison.budgets or comparison.ablation):
        what = "budgets" if comparison.budgets else "ablation"
        key = "test_subset" if comparison.data.test_subset is not None else "name"
        raise ConfigError(f"data: {count} test image is too few to compare runs ({what}); at least 2 are needed",
                          where=str(loaded.origin("data", key)))  # fmt: skip


# ---- weights ----------------------------------------------------------------------------------------
def _require_weights(loaded: Loaded, specs: Sequence[RunSpec]) -> None:
    """Names and shapes of given weights against the network that they are for, which is built without memory."""
    if not specs:
        return
    from bench.cost.copies import quietly
    from bench.data import open_data
    from bench.launch.inspect import data_spec, last_stage, on_meta, planned_method
    from bench.launch.stages import load_given_weights

    bundle = open_data(loaded.comparison.data, protocol=loaded.comparison.protocol)
    for spec in specs:
        method = planned_method(spec, data_spec(spec, bundle))
        starts = [last_stage(spec, method)] if spec.evaluate_only else [
            stage.resolve(planned.recipe) for stage, planned in zip(method.stages(), spec.stages)
            if planned.start_from is None
        ]  # fmt: skip
        with _at_run(loaded, spec, "weights"), quietly():  # torch warns that meta tensors take no values
            for stage in starts:
                load_given_weights(spec, method, on_meta(method, stage))


# ---- batches ----------------------------------------------------------------------------------------
def _require_batches(loaded: Loaded, trained: Sequence[_Trained]) -> None:
    """A process whose last batch of an epoch is one image: batch norm over it may have nothing to average."""
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    for one in trained:
        recipe = one.recipe
        plan = BatchPlan(one.images, recipe.batch_size, 0, recipe.drop_last, world=processes)
        with _at_run(loaded, one.spec, "recipe", "batch_size"):
            train_loader_kind(dataset_info(one.spec.data.name), recipe)
            eval_loader_kind(dataset_info(one.spec.data.name), recipe)
            plan.check(one.spec.data.name)
            last = plan.global_size(plan.steps - 1)
            together = recipe.sync_batchnorm and processes > 1
            if last // processes == 1 and not together:
                _require_single(one, last)


def _require_single(one: _Trained, last: int) -> None:
    from bench.data import open_data
    from bench.launch.inspect import data_spec, planned_method, refuses_one_image

    bundle = open_data(one.spec.data, protocol=one.spec.protocol)
    method = planned_method(one.spec, data_spec(one.spec, bundle))
    reason = refuses_one_image(method, one.stage)
    if reason is not None:
        share = "" if last == 1 else f", {last} for all processes"
        raise ConfigError(
            f"the last batch of an epoch has 1 image ({one.images:,} in batches of {one.recipe.batch_size}{share}), "
            f"which stage '{one.stage.name}' cannot be trained on: {reason}; set drop_last: true or another batch_size"
        )


class _at_run:
    """Errors of a run with the place in the file that they are about."""

    def __init__(self, loaded: Loaded, spec: RunSpec, *path: str) -> None:
        names = [run.name for run in loaded.comparison.runs]
        own = loaded.tree.find(("runs", names.index(spec.run), *path))
        self.where = str(own.origin if own is not None else loaded.origin(*path))
        self.run = spec.run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BenchError):
            raise ConfigError(f"run '{self.run}': {' '.join(str(error).split())}", where=self.where) from None
        if isinstance(error, (ValueError, RuntimeError, TypeError)):
            words = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ConfigError(f"run '{self.run}': its network cannot be built: {words}", where=self.where) from error


# ---- what is said first -----------------------------------------------------------------------------
def _own_lengths(loaded: Loaded, trained: Sequence[_Trained]) -> Iterator[str]:
    """Stages whose length is their method's own: what the file says of epochs does not reach them."""
    images = {one.spec.run: one.images for one in trained}
    found: dict[tuple[str, str, str], list[str]] = {}
    for run, stage in own_lengths(loaded, images):
        key = "epochs" if stage.recipe.iterations is None else "iterations"
        found.setdefault((stage.name, length_of(stage.recipe, images[run]), key), []).append(run)
    for (stage_name, length, key), runs in found.items():
        yield (f"note: stage '{stage_name}' of {_names(runs)} lasts {length}, its method's own length, whatever "
               f"`recipe` says; to change it: stages: {{{stage_name}: {{{key}: N}}}}")  # fmt: skip


def _kept_starts(trained: Sequence[_Trained]) -> Iterator[str]:
    """Averages of weights over too short a time."""
    for one in trained:
        if not one.recipe.model_ema:
            continue
        _, each = steps_of(one.recipe, one.images)
        kept = share_of_start(one.recipe, each)
        if kept > MOSTLY:
            updates = averaging_updates(one.recipe, each)
            times = "update" if updates == 1 else "updates"
            yield (f"warning: {one}: the average that model_ema evaluates keeps {100 * kept:.3g} % of the network of "
                   f"its first update ({updates:,} {times} in the whole training): lower model_ema_steps or "
                   "model_ema_decay, or train longer")  # fmt: skip


def _names(runs: Iterable[str]) -> str:
    listed = list(dict.fromkeys(runs))
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ("run " if len(listed) == 1 else "runs ") + ", ".join(f"'{name}'" for name in listed[:3]) + more
