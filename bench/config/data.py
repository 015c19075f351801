"""What a network must know of its data: torch-free, so that architectures can be listed without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSpec:
    """name of the data set; classes of the head; side of the (square) input in pixels; input channels;
    mean and std of the normalisation, one per channel, in units of [0, 1] pixels."""

    name: str
    num_classes: int
    image_size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
