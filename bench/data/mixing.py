"""Mixup and CutMix of a batch by torchvision, drawn from (seed, epoch, step) and from nothing else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torchvision.transforms import v2

from bench.config.schema import Recipe
from bench.data.hashing import MIX, key
from bench.method import Batch


@contextlib.contextmanager
def forked_rng() -> Iterator[Callable[[int], None]]:
    """Yields a function that seeds torch's CPU generator and ``random``; both are put back afterwards.

    The CUDA generators are left alone (``torch.manual_seed`` would seed them too): transforms draw on the CPU.
    """
    torch_state, python_state = torch.get_rng_state(), random.getstate()

    def seed(value: int) -> None:
        torch.default_generator.manual_seed(value & (2**63 - 1))
        random.seed(value)

    try:
        yield seed
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)


class Mixer:
    """Makes a ``Batch`` of images and labels; mixes it where the recipe has mixup or cutmix (one of the two per
    batch where it has both, each with probability one half, as in torchvision's references).

    The choice, lambda and box depend on (seed, epoch, step) alone and so are the same in every process. Partners
    are found by rolling the batch by one: within the process's share of the batch where there are several.
    """

    def __init__(self, recipe: Recipe, num_classes: int, seed: int) -> None:
        self.seed = seed
        transforms: list[v2.Transform] = []
        if recipe.mixup_alpha > 0:
            transforms.append(v2.MixUp(alpha=recipe.mixup_alpha, num_classes=num_classes))
        if recipe.cutmix_alpha > 0:
            transforms.append(v2.CutMix(alpha=recipe.cutmix_alpha, num_classes=num_classes))
        self.transform = v2.RandomChoice(transforms) if len(transforms) > 1 else (transforms or [None])[0]

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> Batch:
        if self.transform is None:
            return Batch(images, labels, labels, images)
        with forked_rng() as seed:
            seed(key(self.seed, epoch, MIX, step))
            mixed, targets = self.transform(images, labels)
        return Batch(mixed, targets.to(images.dtype), labels, images)
