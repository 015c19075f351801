"""Weights and images of the golden vectors, made from the released key names and shapes."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden/skipnet.json").read_text())


def golden_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """A value for every key, drawn from a generator that the key itself seeds."""
    return {key: torch.from_numpy(_draw(_without_alias(key), tuple(shape))) for key, shape in shapes.items()}


def golden_images(shape: list[int]) -> Tensor:
    """Images whose scale and offset grow from first to last, so that gates differ between them."""
    images = torch.from_numpy(np.random.RandomState(2018).standard_normal(shape).astype(np.float32))
    count = shape[0]
    scale = torch.linspace(0.2, 3, count).reshape(-1, 1, 1, 1)
    return images * scale + torch.linspace(-1, 1, count).reshape(-1, 1, 1, 1)


def _without_alias(key: str) -> str:
    """group2_ds0.0.weight holds the tensor of group2_layer0.downsample.0.weight."""
    if "_ds" not in key:
        return key
    group, rest = key.split("_ds")
    index, name = rest.split(".", 1)
    return f"{group}_layer{index}.downsample.{name}"


def _draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    r = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(count)
    fan = math.sqrt(2 / (count / shape[0]))
    many = len(shape) > 1
    if key.endswith("running_var"):
        values = 1 + 0.2 * np.abs(r)
    elif key.startswith("control.proj"):
        values = 4 * r
    elif key.startswith("control.rnn"):
        values = 0.6 * r
    elif "_gate" in key and many:
        values = 2 * r * fan
    elif not many and key.endswith("weight"):
        values = 0.5 + 0.1 * r
    elif many:
        values = r * fan
    else:
        values = 0.1 * r
    return values.reshape(shape).astype(np.float32)
