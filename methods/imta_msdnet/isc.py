"""Inline subnetwork collaboration: each exit also sees what the exit before it said.

Li et al. 2019 (arXiv 1908.06294), section 3.2. With pooled features f_k of a frozen network,

    z_0 = W_0 f_0 + b_0
    h_k = ReLU(BatchNorm(A_k z_k + a_k))             classes -> width of f_{k+1}
    z_{k+1} = W_{k+1} [f_{k+1}; h_k] + b_{k+1}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.walking import as_unit
from methods.imta_msdnet.network import MSDNet, Trunk

__all__ = ["Collaboration", "IMTANet"]


class Collaboration(nn.Module):
    """New classifiers for exits with features of these widths, each reading the logits of the exit before it.

    stop_gradient: an exit's loss does not reach the exits before it through their logits.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, stop_gradient: bool = False) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient
        self.classify = nn.ModuleList(
            nn.Linear(width if k == 0 else 2 * width, num_classes) for k, width in enumerate(widths)
        )
        self.carry = nn.ModuleList(
            nn.Sequential(nn.Linear(num_classes, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True))
            for width in widths[1:]
        )

    def step(self, k: int, feature: Tensor, previous: Tensor | None) -> Tensor:
        """Logits [B, C] of exit k from its feature [B, d_k] and the logits of exit k - 1 (None for k = 0)."""
        if k == 0:
            return self.classify[0](feature)
        if previous is None:
            raise ValueError(f"exit {k} needs the logits of exit {k - 1}")
        carried = self.carry[k - 1](previous.detach() if self.stop_gradient else previous)
        return self.classify[k](torch.cat([feature, carried], dim=1))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        logits: list[Tensor] = []
        for k, feature in enumerate(features):
            logits.append(self.step(k, feature, logits[-1] if logits else None))
        return logits


class IMTANet(nn.Module):
    """A trained MSDNet (``net``, frozen) under collaborating classifiers (``collaboration``).

    images [B, 3, H, W] -> logits [B, C] of every collaborating exit, and of the last head of ``net``, which
    is the teacher of the distillation and is not needed for predicting.
    """

    def __init__(self, net: MSDNet, num_classes: int, stop_gradient: bool = False) -> None:
        super().__init__()
        self.net = net
        self.collaboration = Collaboration(net.widths, num_classes, stop_gradient)
        for k, classify in enumerate(self.collaboration.classify):
            as_unit(net.head(k).body, f"feature {k + 1}")
            as_unit(classify, f"classify {k + 1}")
        for k, carry in enumerate(self.collaboration.carry, start=1):
            as_unit(carry, f"carry {k}")

    @property
    def trunk(self) -> Trunk:
        return self.net.trunk

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        features = [self.net.head(k).body(x) for k, x in enumerate(self.net.trunk(images))]
        return self.collaboration(features), self.net.head(-1).linear(features[-1])

    def classify(self, k: int, coarsest: Tensor, previous: Tensor | None = None) -> Tensor:
        """Logits [B, C] of exit k from its map and the logits of exit k - 1."""
        return self.collaboration.step(k, self.net.head(k).body(coarsest), previous)
