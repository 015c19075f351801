"""Running means of a training epoch, kept on the device: reading them is the only synchronisation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.method import Batch


class Meter:
    """Image-weighted sums of the loss, its parts and the hits since the last ``reset``. seconds: what they took,
    kept by whoever trains."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.images = 0
        self.judged = 0
        self.seconds = 0.0

    def reset(self) -> None:
        self.sums, self.images, self.judged, self.seconds = {}, 0, 0, 0.0

    @torch.no_grad()
    def update(self, parts: dict[str, Tensor], batch: Batch) -> None:
        size = batch.images.shape[0]
        self.images += size
        for name, value in parts.items():
            if name == "logits":
                self._add("hits", (value.argmax(1) == batch.labels).sum())
                self.judged += size
            else:
                self._add(name, value.detach() * size)

    def _add(self, name: str, value: Tensor) -> None:
        value = value.to(torch.float64)
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    @property
    def images_per_s(self) -> float:
        return self.images / max(self.seconds, 1e-9)  # some clocks are coarse

    def means(self) -> dict[str, float]:
        """Loss and parts, and ``accuracy`` in percent where the method returned logits."""
        values = {name: float(value) for name, value in self.sums.items()}
        hits = values.pop("hits", None)
        means = {name: value / self.images for name, value in values.items()}
        if hits is not None and self.judged:
            means["accuracy"] = 100.0 * hits / self.judged
        return means

    def is_finite(self) -> bool:
        """Whether the loss has been finite so far (a NaN stays in the sum)."""
        return "loss" not in self.sums or math.isfinite(float(self.sums["loss"]))

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": {name: float(value) for name, value in self.sums.items()},
            "images": self.images,
            "judged": self.judged,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = {k: torch.tensor(v, dtype=torch.float64, device=self.device) for k, v in state["sums"].items()}
        self.images, self.judged = int(state["images"]), int(state["judged"])
        self.seconds = float(state.get("seconds", 0.0))  # an earlier version's checkpoint has none
