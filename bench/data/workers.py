"""The loader for large images and for augmentations that work on pictures: torchvision transforms in processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.hashing import AUGMENT, extend_tensor, key
from bench.data.mixing import Mixer
from bench.data.order import BatchPlan
from bench.data.reading import Jobs, read_batches
from bench.data.sources import Source
from bench.method import Batch


class WorkerTrainLoader:
    """Training batches through torchvision transforms. indices: int64 [n], the samples trained on; size: their side
    after the transform. Each sample's transform is seeded by (seed, epoch, sample, repetition)."""

    def __init__(
        self, source: Source, indices: np.ndarray, plan: BatchPlan, transform: Any, mixer: Mixer,
        *, size: int, workers: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.source, self.indices, self.plan = source, indices, plan
        self.transform, self.mixer = transform, mixer
        self.steps_per_epoch = plan.steps
        self.size, self.workers, self.device = size, workers, device

    def global_size(self, step: int) -> int:
        """Samples of a step over all processes."""
        return self.plan.global_size(step)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start`` on, the same ones whatever ``start`` and the number of workers.

        Raises DataError that names the file where an image cannot be read or a worker dies.
        """
        positions, repetition = self.plan.epoch(epoch)
        samples = self.indices[positions]
        keys = extend_tensor(key(self.plan.seed, epoch, AUGMENT), torch.from_numpy(samples))
        keys = extend_tensor(keys, torch.from_numpy(repetition))
        steps = range(start, self.plan.steps)
        jobs = Jobs(samples, keys.numpy(), [self.plan.share(step) for step in steps], self.size)
        batches = read_batches(self.source, self.transform, jobs, workers=self.workers, device=self.device)
        for step, (images, labels, _) in zip(steps, batches):
            yield self.mixer(images, labels, epoch, step)


class WorkerEvalLoader:
    """Clean batches in the order of ``indices``: (images, labels, indices), all on the device."""

    def __init__(
        self, source: Source, indices: np.ndarray, transform: Any, batch_size: int,
        *, size: int, workers: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.source, self.indices, self.transform, self.batch_size = source, indices, transform, batch_size
        self.size, self.workers, self.device = size, workers, device

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        count, step = len(self.indices), self.batch_size
        batches = [slice(start, min(start + step, count)) for start in range(0, count, step)]
        jobs = Jobs(self.indices, None, batches, self.size)
        return read_batches(self.source, self.transform, jobs, workers=self.workers, device=self.device)
