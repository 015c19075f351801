"""Transforms of the worker loader: torchvision v2 on pictures, in the order of torchvision's references.

Training: geometry, flip, automatic augmentation, to float, normalise, erase. Evaluation is separate: resize, crop,
to float, normalise. The randomness of a training transform comes from torch's CPU generator and ``random``, which
the loader seeds for every sample.
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision.transforms import InterpolationMode, v2

from bench.config.schema import Recipe
from bench.data.catalog import DatasetInfo
from bench.data.geometry import image_sizes, train_crop

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def train_transform(info: DatasetInfo, recipe: Recipe, normalisation: Normalisation) -> v2.Transform:
    """RGB picture -> float [3, S, S], augmented; S is the training size."""
    steps = _train_geometry(info, recipe)
    hflip_prob = info.hflip_prob if recipe.hflip_prob is None else recipe.hflip_prob
    if hflip_prob > 0:
        steps.append(v2.RandomHorizontalFlip(hflip_prob))
    if recipe.auto_augment:
        steps.append(_auto_augment(recipe))
    steps += _to_float(normalisation)
    if recipe.random_erase > 0:
        steps.append(v2.RandomErasing(p=recipe.random_erase))
    return v2.Compose(steps)


def eval_transform(info: DatasetInfo, recipe: Recipe, normalisation: Normalisation) -> v2.Transform:
    """RGB picture -> float [3, S, S], clean; S is the evaluation size."""
    sizes, mode = image_sizes(info, recipe), InterpolationMode(recipe.interpolation)
    return v2.Compose([v2.Resize(sizes.resize, interpolation=mode), v2.CenterCrop(sizes.crop),
                       *_to_float(normalisation)])  # fmt: skip


def _train_geometry(info: DatasetInfo, recipe: Recipe) -> list[Any]:
    sizes, mode = image_sizes(info, recipe), InterpolationMode(recipe.interpolation)
    kind = train_crop(info, recipe)
    if kind == "resized":
        return [v2.RandomResizedCrop(sizes.train, interpolation=mode, antialias=True)]
    if kind == "none":
        return [v2.Resize((sizes.train, sizes.train), interpolation=mode)]
    resize = v2.Resize(sizes.train_resize, interpolation=mode)
    if kind == "center":
        return [resize, v2.CenterCrop(sizes.train)]
    return [resize, v2.RandomCrop(sizes.train, padding=recipe.crop_padding or None, pad_if_needed=True)]


def _auto_augment(recipe: Recipe) -> v2.Transform:
    mode = InterpolationMode(recipe.interpolation)
    if recipe.auto_augment == "ra":
        return v2.RandAugment(magnitude=recipe.ra_magnitude, interpolation=mode)
    if recipe.auto_augment == "ta_wide":
        return v2.TrivialAugmentWide(interpolation=mode)
    if recipe.auto_augment == "augmix":
        return v2.AugMix(severity=recipe.augmix_severity, interpolation=mode)
    return v2.AutoAugment(v2.AutoAugmentPolicy(recipe.auto_augment), interpolation=mode)


def _to_float(normalisation: Normalisation) -> list[Any]:
    mean, std = normalisation
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
