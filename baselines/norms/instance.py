"""Instance normalisation (Ulyanov et al. 2016): statistics per sample and channel over positions."""

from __future__ import annotations

from torch import nn


class InstanceNorm2d(nn.InstanceNorm2d):
    """With an affine per channel and without running statistics: evaluation normalises as training does."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps, affine=True, track_running_stats=False)
