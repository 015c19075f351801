"""No normalisation."""

from __future__ import annotations

from torch import nn


class NoNorm(nn.Identity):
    """Nothing in a norm's place: no scale, no shift. Convolutions keep having no bias, as published."""

    def __init__(self, channels: int) -> None:
        super().__init__()
