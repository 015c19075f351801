"""The learning rate as a function of the position in training: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from bench.config.schema import Recipe


def learning_rate(recipe: Recipe, position: float, length: float) -> float:
    """The rate at a position, both in epochs (or both in steps, under ``iterations``).

    Warmup, cosine and exponential are torchvision's references' (LinearLR or ConstantLR, then the main
    schedule counted from the warmup's end). Milestones and step sizes are counted from the start of
    training, which is how papers state them.
    """
    warmup = recipe.lr_warmup_epochs
    if position < warmup:
        if recipe.lr_warmup_method == "constant":
            return recipe.lr * recipe.lr_warmup_decay
        return recipe.lr * (recipe.lr_warmup_decay + (1 - recipe.lr_warmup_decay) * position / warmup)
    if recipe.lr_scheduler == "multistep":
        return recipe.lr * recipe.lr_gamma ** sum(position >= m for m in recipe.lr_milestones)
    if recipe.lr_scheduler == "step":
        return recipe.lr * recipe.lr_gamma ** int(position // recipe.lr_step_size)
    if recipe.lr_scheduler == "cosine":
        done = (position - warmup) / (length - warmup)
        return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * done)) / 2
    if recipe.lr_scheduler == "exponential":
        return recipe.lr * recipe.lr_gamma ** (position - warmup)
    return recipe.lr


def step_learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of one optimiser step (counted from 0): per epoch, or per step where the recipe says so."""
    if recipe.iterations is not None:
        return learning_rate(recipe, step, recipe.iterations)
    assert recipe.epochs is not None
    position = step / steps_per_epoch if recipe.lr_per_step else step // steps_per_epoch
    return learning_rate(recipe, position, recipe.epochs)
