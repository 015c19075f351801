"""Gradient equilibrium for any network with exits (Li et al. 2019, arXiv 1908.06294, section 3.1).

Exit k of n (0-based) sends its own gradient and those of all later exits through block k. Without scaling
their sum, and with it its variance, grows towards the input. Around each head the gradient is scaled by
1 / (n - k) on the way out of the block and by n - k - 1 between the head and the next block, so that a block
receives the *mean* of the gradients behind it. The forward pass and the heads' own gradients do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["GradientEquilibrium", "scale_gradient"]


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, with the gradient that comes back through it multiplied by ``factor``."""
    return x if factor == 1 else _ScaleGradient.apply(x, factor)


class GradientEquilibrium:
    """The two scalings around each exit of a network with ``exits`` exits.

    A method calls ``before_head(k, maps)`` on what leaves block k and lets head k read the result, then
    ``after_head(k, maps)`` on what enters block k + 1. ``maps`` are the tensors that cross the boundary,
    the head's own last; entries may be None (a scale that has ended).

    scope: "coarsest" scales the last map only (as the authors released it; on a network of several scales the
    gradients that cross on finer scales stay as they are), "all" scales every map.
    """

    def __init__(self, exits: int, scope: Literal["coarsest", "all"] = "coarsest") -> None:
        self.exits = exits
        self.scope = scope

    def before_head(self, k: int, maps: Sequence[Tensor | None]) -> list[Tensor | None]:
        return self._scale(maps, 1 / (self.exits - k))

    def after_head(self, k: int, maps: Sequence[Tensor | None]) -> list[Tensor | None]:
        return self._scale(maps, self.exits - k - 1)

    def _scale(self, maps: Sequence[Tensor | None], factor: float) -> list[Tensor | None]:
        first = 0 if self.scope == "all" else len(maps) - 1
        return [
            m if m is None or index < first else scale_gradient(m, factor) for index, m in enumerate(maps)
        ]
