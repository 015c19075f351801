"""Image sizes and the kind of loader that a recipe means for a data set. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from bench.config.schema import Recipe
from bench.data.catalog import DatasetInfo
from bench.errors import ConfigError


@dataclass(frozen=True)
class Sizes:
    """Sides in pixels. train: what training sees; crop: what evaluation sees; resize: the shorter side before the
    evaluation crop; train_resize: the shorter side before a training crop that does not itself resize."""

    train: int
    crop: int
    resize: int
    train_resize: int


def image_sizes(info: DatasetInfo, recipe: Recipe) -> Sizes:
    """The sizes in force. Evaluation has the training size unless ``val_crop_size`` says otherwise.

    Before its crop an image is resized to ``val_resize_size``; without it to 8/7 of the crop (256 for 224) for
    large images, and not at all beyond the crop where the data set's images have the crop's size anyway.
    """
    train = recipe.train_crop_size or info.image_size
    crop = recipe.val_crop_size or train
    resize = recipe.val_resize_size or (crop if info.one_size else round(crop * 8 / 7))
    if resize < crop:
        raise ConfigError(f"val_resize_size ({resize}) is smaller than the evaluation crop ({crop})",
                          where="recipe.val_resize_size")  # fmt: skip
    train_resize = train if info.one_size else round(train * resize / crop)
    return Sizes(train, crop, resize, train_resize)


def train_crop(info: DatasetInfo, recipe: Recipe) -> str:
    """``pad``, ``resized``, ``center`` or ``none``."""
    if recipe.train_crop != "auto":
        return recipe.train_crop
    return "pad" if info.small else "resized"


def train_loader_kind(info: DatasetInfo, recipe: Recipe) -> str:
    """``resident`` or ``workers``, for training; ConfigError where resident is asked for and cannot be."""
    needs = _needs_workers(info, image_sizes(info, recipe).train)
    if recipe.auto_augment:
        needs = f"auto_augment: {recipe.auto_augment}"
    elif train_crop(info, recipe) == "resized":
        needs = "train_crop: resized"
    return _kind(info, recipe, needs)


def eval_loader_kind(info: DatasetInfo, recipe: Recipe) -> str:
    """The same for evaluation, which augments nothing."""
    sizes = image_sizes(info, recipe)
    return _kind(info, recipe, _needs_workers(info, sizes.crop) or _needs_workers(info, sizes.resize))


def _needs_workers(info: DatasetInfo, size: int) -> str | None:
    return f"images of {size} instead of {info.image_size} pixels" if size != info.image_size else None


def _kind(info: DatasetInfo, recipe: Recipe, needs: str | None) -> str:
    if recipe.loader == "workers":
        return "workers"
    if recipe.loader == "auto":
        return "resident" if info.small and not needs else "workers"
    if not info.one_size:
        raise ConfigError(f"loader: resident holds small images of one size, not {info.name}", where="recipe.loader")
    if needs:
        raise ConfigError(f"{needs} needs loader: workers (or auto)", where="recipe.loader")
    return "resident"
