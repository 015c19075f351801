"""What the harness's loop costs: images/s of training against a bare torch loop, interleaved.

    python benchmarks/loop.py [--depth 20] [--steps 12] [--rounds 7] [--threads 1] [--device cpu]

The bare loop gets the very batches of the harness's loader, made beforehand, so that the ratio holds
everything the harness adds: loading, augmentation, schedule, meters, checks, progress. Times are the
process's CPU time on the CPU (other load does not count) and wall time on CUDA.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bench.config.schema import Data, Recipe
from bench.data import open_data
from bench.method import Batch, Method, Stage
from bench.registry import method_class, method_config
from bench.train.loop import StageJob, _Training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps per measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    clock = time.process_time if device.type == "cpu" else _cuda_clock

    recipe = Recipe(iterations=options.steps, lr=0.01, batch_size=128, drop_last=True)
    bundle = open_data(Data(name="fashion_mnist_mini"))
    method = method_class("resnet")(method_config("resnet")(depth=options.depth), bundle.spec(recipe))
    stage = Stage("train").resolve(recipe)
    loader = bundle.train_loader(recipe, seed=0, device=device)
    batches = [batch for batch, _ in zip(loader.epoch(0), range(options.steps))]

    ratios, ours, theirs = [], [], []
    for round_ in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            job = StageJob(method, stage, loader, Path(folder), 0, device, lambda model: None, quiet=True)
            harness = _timed(clock, _Training(job).run)
        bare = _bare_loop(method, stage, batches, device, clock)
        if round_:  # the first one warms up
            ours.append(128 * options.steps / harness)
            theirs.append(128 * options.steps / bare)
            ratios.append(bare / harness)
    print(f"ResNet-{options.depth}, batch 128, {options.threads} threads, {device.type}, torch {torch.__version__}, "
          f"{options.rounds} rounds of {options.steps} steps")
    for name, values, unit in (("harness", ours, "images/s"), ("bare loop", theirs, "images/s"), ("ratio", ratios, "")):
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"{name:10s} median {median:8.3f} {unit}  (min {low:.3f}, max {high:.3f})")


def _bare_loop(
    method: Method, stage: Stage, batches: list[Batch], device: torch.device, clock: Callable[[], float]
) -> float:
    """What one writes by hand: forward, cross-entropy, backward, step; nothing else."""
    model = method.build(stage).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()

    def loop() -> None:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            criterion(model(batch.images), batch.labels).backward()
            optimizer.step()

    return _timed(clock, loop)


def _timed(clock: Callable[[], float], work: Callable[[], object]) -> float:
    began = clock()
    work()
    return clock() - began


def _cuda_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
