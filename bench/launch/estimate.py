"""How long training will take, from a few steps of each stage on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from bench.config.resolve import RunSpec
from bench.config.stage import RunStage
from bench.cost.memory import build_for_training
from bench.launch.foresee import steps_of
from bench.launch.inspect import Inspected
from bench.launch.stages import stage_key
from bench.nouns import Batch
from bench.train.optim import make_optimizer
from bench.train.step import TrainStep

if TYPE_CHECKING:
    from bench.data import DataBundle, TrainLoader

__all__ = ["TIMED_STEPS", "in_words", "seconds_per_step", "total_seconds"]

#: Steps whose median is taken, after others that start workers and fill caches.
TIMED_STEPS, WARMUP_STEPS = 5, 2


def seconds_per_step(found: Inspected, bundle: DataBundle, device: torch.device) -> dict[str, float]:
    """Median time of a training step of each stage of a run, with its loader, by the stage's name. Networks are not
    trained for what comes before, and torch.compile is left out."""
    times = {}
    for stage, planned in zip(found.method.stages(), found.spec.stages):
        loader = bundle.train_loader(planned.recipe, seed=0, device=device)
        times[stage.name] = _time_steps(found, stage.resolve(planned.recipe), loader, device)
    return times


def _time_steps(found: Inspected, stage: RunStage, loader: TrainLoader, device: torch.device) -> float:
    recipe = stage.recipe
    with torch.random.fork_rng(devices=[]):
        model = build_for_training(found.method, stage).to(device)
        optimizer = make_optimizer(model, recipe)
        step = TrainStep(found.method, model, stage)
        step.train()
        dtype = torch.float16 if recipe.amp == "fp16" else torch.bfloat16
        marks = [time.perf_counter()]
        for batch in _batches(loader, WARMUP_STEPS + TIMED_STEPS):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=dtype, enabled=recipe.amp != "off"):
                loss = step(*batch)["loss"]
            loss.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            marks.append(time.perf_counter())
    took = [after - before for before, after in pairwise(marks)]
    return statistics.median(took[WARMUP_STEPS:])


def _batches(loader: TrainLoader, count: int) -> Iterator[Batch]:
    """So many training batches, over several epochs if one is too short."""
    epoch = 0
    while count > 0:
        for batch in loader.epoch(epoch):
            yield batch
            count -= 1
            if count == 0:
                return
        epoch += 1


def total_seconds(specs: Sequence[RunSpec], per_step: Mapping[str, Mapping[str, float]], images: int) -> float:
    """Time to train all stages of all runs and seeds, those that runs share once. per_step: by run and stage."""
    total: dict[str, float] = {}
    for spec in specs:
        keys: dict[str, str] = {}
        for stage in spec.stages if spec.run in per_step else ():
            key = stage_key(spec, stage, "", keys.get(stage.start_from or ""), None)
            keys[stage.name] = key
            total[key] = steps_of(stage.recipe, images)[0] * per_step[spec.run][stage.name]
    return sum(total.values())


def in_words(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h', '2.1 days'."""
    for unit, size, most in (("s", 1.0, 90.0), ("min", 60.0, 90.0), ("h", 3600.0, 48.0)):
        if seconds < most * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 86400:.3g} days"
