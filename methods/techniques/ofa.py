"""One-for-all distillation for any network with exits (Li et al. 2019, arXiv 1908.06294, section 3.3).

The last exit learns from the labels; every earlier exit learns from the labels and from one teacher, the
deepest classifier. The loss is, over exits k of n with weight gamma and temperature T,

    CE(z_n, y) + sum over k < n of (1 - gamma) CE(z_k, y) + gamma T^2 KL(softmax(r / T) || softmax(z_k / T))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["OneForAll", "distillation_loss", "one_for_all_loss"]


class OneForAll(NamedTuple):
    """loss: the scalar to differentiate. hard: cross-entropy of each exit. soft: T^2 KL of each exit but the
    last. All scalars; the parts are unweighted."""

    loss: Tensor
    hard: list[Tensor]
    soft: list[Tensor]


def distillation_loss(
    logits: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    reduction: Literal["class_mean", "batch_mean"] = "batch_mean",
) -> Tensor:
    """T^2 KL(teacher || student) of logits [B, C]; no gradient into the teacher.

    reduction: batch_mean divides the sum by B; class_mean by B * C, which is what the released code does and
    is C times weaker.
    """
    if logits.dtype != torch.float64:  # in half precision a log-softmax over many classes loses too much
        logits, teacher = logits.float(), teacher.float()
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.softmax(teacher.detach() / temperature, dim=1),
        reduction="batchmean",
    )
    if reduction == "class_mean":
        divergence = divergence / logits.shape[1]
    return divergence * temperature**2


def one_for_all_loss(
    logits: Sequence[Tensor],
    teacher: Tensor,
    hard_loss: Callable[[Tensor], Tensor],
    *,
    weight: float,
    temperature: float = 1.0,
    reduction: Literal["class_mean", "batch_mean"] = "batch_mean",
    exit_weights: Sequence[float] | None = None,
) -> OneForAll:
    """The loss above. logits: [B, C] of every exit, the last one last. teacher: logits [B, C], detached here.
    hard_loss: logits -> scalar on the labels, so label smoothing and mixed targets stay the caller's.
    exit_weights: what each exit's part of the sum is multiplied by; None: 1."""
    hard = [hard_loss(z) for z in logits]
    soft = [distillation_loss(z, teacher, temperature, reduction) for z in logits[:-1]]
    each = [1.0] * len(logits) if exit_weights is None else exit_weights
    loss = each[-1] * hard[-1]
    for ce, kl, share in zip(hard, soft, each):
        loss = loss + share * (1 - weight) * ce + share * weight * kl
    return OneForAll(loss, hard, soft)
