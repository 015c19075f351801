"""Losses that every method shares."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["cross_entropy"]


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Cross-entropy on class numbers or on class probabilities, in float32 whatever the logits are in.

    logits: [B, C], any floating type; half precision is widened, since the log of a sum of exponentials
        over many classes loses too much in it. targets: int64 [B], or float [B, C] (mixup, cutmix).
    label_smoothing: eps in [0, 1]; the target becomes (1 - eps) * target + eps / C (Szegedy et al. 2016).
    Returns a scalar, or [B] with reduction "none".
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction=reduction)
