"""Self-distillation from the super-net to the base-net (Kang and Lee 2024, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over classes, mean over the batch.

    student, teacher: logits [B, C]; no gradient reaches the teacher. top_k: keep only the classes that the
    teacher finds likeliest, per sample, and renormalise both over them; None or at least C: the whole
    formula. Half precision is widened to float32.
    """
    teacher = teacher.detach()
    if top_k is not None and top_k < teacher.shape[1]:
        kept = teacher.topk(top_k, dim=1).indices
        teacher, student = teacher.gather(1, kept), student.gather(1, kept)
    wide = torch.promote_types(teacher.dtype, torch.float32)
    target = F.log_softmax(teacher.to(wide) / temperature, dim=1)
    guess = F.log_softmax(student.to(wide) / temperature, dim=1)
    return temperature**2 * F.kl_div(guess, target, reduction="batchmean", log_target=True)


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """Sum over stages of ``distillation_loss`` over channels. student, teacher: one [B, C_s] per stage."""
    return torch.stack(
        [distillation_loss(guess, target, temperature) for guess, target in zip(student, teacher, strict=True)]
    ).sum()
