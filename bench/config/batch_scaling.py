"""Learning rate and momentum for another batch size (Chiley et al. 2019; the released trainers apply it always).

One step at batch B should do what B / B0 steps at the reference B0 did: the momentum's memory keeps its
length in samples, and so does the weight of each sample in the sum of all updates. The decays of online
normalisation count samples already, and weight decay is not scaled. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bench.config.schema import Recipe


class Scaled(NamedTuple):
    """``lr`` and ``momentum`` of a recipe."""

    lr: float
    momentum: float


def scale_for_batch(lr: float, momentum: float, batch_size: int, reference_batch_size: int) -> Scaled:
    """momentum' = momentum^(B/B0), lr' = lr * (B/B0) * (1 - momentum') / (1 - momentum).

    lr, momentum: of the recipe at ``reference_batch_size``. At B = B0 nothing changes, to the last bit. Plain
    SGD (momentum 0) gets the linear rule. Raises ValueError outside lr > 0, 0 <= momentum < 1, sizes >= 1.
    """
    if not lr > 0 or not 0 <= momentum < 1 or batch_size < 1 or reference_batch_size < 1:
        raise ValueError(
            f"needs lr > 0, 0 <= momentum < 1 and batch sizes of at least 1, not lr {lr}, momentum {momentum}, "
            f"batch sizes {batch_size} and {reference_batch_size}"
        )
    if batch_size == reference_batch_size:
        return Scaled(lr, momentum)
    ratio = batch_size / reference_batch_size
    scaled = momentum**ratio
    return Scaled(lr * ratio * (1 - scaled) / (1 - momentum), scaled)


def scaled_values(recipe: Recipe) -> dict[str, Any]:
    """What ``reference_batch_size`` changes in a recipe: lr, momentum and lr_min (by the factor of lr, so that
    the schedule keeps its shape). Empty where it says nothing or the batch is the reference.

    Raises ValueError where no float holds the result.
    """
    reference = recipe.reference_batch_size
    if reference is None or reference == recipe.batch_size:
        return {}
    try:
        lr, momentum = scale_for_batch(recipe.lr, recipe.momentum, recipe.batch_size, reference)
    except OverflowError:
        lr, momentum = 0.0, 0.0
    if not 0 < lr < float("inf") or (momentum == 0) != (recipe.momentum == 0):
        raise ValueError(
            f"batch_size {recipe.batch_size} is too far from reference_batch_size {reference} to scale lr and momentum"
        )
    values: dict[str, Any] = {"lr": lr, "momentum": momentum}
    if recipe.lr_min:
        values["lr_min"] = recipe.lr_min * (lr / recipe.lr)
    return values
