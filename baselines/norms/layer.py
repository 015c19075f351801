"""Layer normalisation (Ba et al. 2016) of images: statistics per sample over channels and positions."""

from __future__ import annotations

from torch import nn


class LayerNorm2d(nn.GroupNorm):
    """Group normalisation with one group. The affine is per channel, [C].

    Not per element, [C, H, W]: a layer's size in pixels is not known where it is made, would tie the network
    to one image size, and would add more parameters than a ResNet-20 has. The statistics are the same.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(1, channels, eps=eps)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}"
