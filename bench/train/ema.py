"""Exponential moving average of a model: floating tensors are averaged, everything else is copied.

Averaging integer buffers and truncating them back corrupts index tables (Swin's relative positions, for
one), so they are copied.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class ModelEMA:
    """The average of a model's weights and buffers. ``module`` is the averaged model, in evaluation mode."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module, *, reset: bool = False) -> None:
        """Move towards ``model``; the first update and ``reset`` copy it."""
        copy = reset or self.updates == 0
        own, new = _tensors(self.module), _tensors(model)
        floats = [(a, b) for a, b in zip(own, new) if a.is_floating_point()]
        if copy:
            for average, value in zip(own, new):
                average.copy_(value)
        else:
            torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1.0 - self.decay)
            for average, value in zip(own, new):
                if not average.is_floating_point():
                    average.copy_(value)
        self.updates = 0 if reset else self.updates + 1

    def state_dict(self) -> dict[str, object]:
        return {"model": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.module.load_state_dict(state["model"])  # type: ignore[arg-type]
        self.updates = int(state["updates"])  # type: ignore[call-overload]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
