"""The shared cross-entropy, as the baseline uses it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bench.train.losses import cross_entropy


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_logits_are_widened_and_double_stays(dtype: torch.dtype) -> None:
    logits = (8 * torch.randn(5, 100, dtype=torch.float64)).to(dtype)
    labels = torch.arange(5)
    loss = cross_entropy(logits, labels, 0.1)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(
        loss.double(), F.cross_entropy(logits.double(), labels, label_smoothing=0.1), rtol=1e-5, atol=1e-5
    )


def test_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cross_entropy(torch.randn(3, 4) @ torch.randn(4, 6), torch.arange(3)).dtype == torch.float32


def test_probabilities_of_another_type_and_reductions() -> None:
    logits, targets = torch.randn(5, 7), torch.rand(5, 7, dtype=torch.float64).softmax(1)
    each = cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(each, -(targets * logits.double().log_softmax(1)).sum(1).float())
    torch.testing.assert_close(cross_entropy(logits, targets, reduction="sum"), each.sum())
    torch.testing.assert_close(cross_entropy(logits, targets), each.mean())
