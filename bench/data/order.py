"""Which sample stands where: the order of an epoch, its batches, and each process's share of a batch.

Everything here is a function of (seed, epoch); nothing is drawn from a generator that a run shares. So an epoch
can be entered at any batch, and the global batch is the same for any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.hashing import ORDER, key, permutation
from bench.errors import ConfigError


@dataclass(frozen=True)
class BatchPlan:
    """How ``count`` samples become batches. batch_size is global; ``repetitions`` as in repeated augmentation."""

    count: int
    batch_size: int
    seed: int
    drop_last: bool = False
    repetitions: int = 1
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def global_size(self, step: int) -> int:
        """Samples of the global batch, over all processes."""
        return min(self.batch_size, self.count - step * self.batch_size)

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions int64 [count] in the order of the epoch, and the repetition that each one is.

        With repetitions every drawn sample stands so many times in a row and the epoch keeps its length, so that
        it covers one sample in ``repetitions``; the next epoch draws anew.
        """
        positions = permutation(self.count, key(self.seed, epoch, ORDER))
        repetition = np.zeros(self.count, dtype=np.int64)
        if self.repetitions > 1:
            positions = np.repeat(positions, self.repetitions)[: self.count]
            repetition = np.arange(self.count) % self.repetitions
        return positions, repetition

    def share(self, step: int) -> slice:
        """This process's part of a batch: every ``world``-th sample from ``rank`` on, as torchvision's samplers
        deal them, so that the repetitions of one image go to different processes."""
        start = step * self.batch_size
        return slice(start + self.rank, start + self.global_size(step), self.world)

    def check(self, name: str) -> None:
        """ConfigErrors for what cannot be: no batch at all, or a process without a share."""
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world} processes")
        where = "recipe.batch_size"
        if self.batch_size > self.count:
            raise ConfigError(f"a batch of {self.batch_size} is larger than the training part of {name} "
                              f"({self.count} images)", where=where)  # fmt: skip
        if self.batch_size % self.world:
            raise ConfigError(f"a batch of {self.batch_size} cannot be shared by {self.world} processes; "
                              "take a multiple", where=where)  # fmt: skip
        last = self.global_size(self.steps - 1)
        if last < self.world:
            raise ConfigError(f"the last batch of an epoch has {last} images for {self.world} processes; set "
                              "drop_last: true or another batch_size", where=where)  # fmt: skip
