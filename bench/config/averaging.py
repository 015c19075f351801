"""What ``model_ema`` does over a training of a given length, in numbers. Imports no torch."""

from __future__ import annotations

from bench.config.schema import Recipe


def adjusted_decay(recipe: Recipe, steps_per_epoch: int) -> float:
    """torchvision's references' adjustment: the stated decay belongs to one image and one epoch.

    d = 1 - min(1, (1 - model_ema_decay) * batch_size * model_ema_steps / epochs).
    """
    epochs = recipe.epochs if recipe.epochs is not None else (recipe.iterations or 1) / steps_per_epoch
    return 1.0 - min(1.0, (1.0 - recipe.model_ema_decay) * recipe.batch_size * recipe.model_ema_steps / epochs)


def averaging_updates(recipe: Recipe, steps_per_epoch: int) -> int:
    """Updates of the average after warmup, the first of which copies the network: after the first step of an epoch
    and then every ``model_ema_steps`` within it."""
    total = recipe.iterations or (recipe.epochs or 0) * steps_per_epoch
    warmup = recipe.lr_warmup_epochs * (1 if recipe.iterations else steps_per_epoch)

    def until(step: int) -> int:
        whole, rest = divmod(step, steps_per_epoch)
        every = recipe.model_ema_steps
        return whole * -(-steps_per_epoch // every) + -(-rest // every)

    return until(total) - until(warmup)


def share_of_start(recipe: Recipe, steps_per_epoch: int) -> float:
    """The weight that the network of the first update (after warmup) still has in the average at the end."""
    updates = averaging_updates(recipe, steps_per_epoch)
    return adjusted_decay(recipe, steps_per_epoch) ** (updates - 1) if updates else 0.0
