"""A CIFAR ResNet written out on the published tensors, without modules: an independent witness."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def run_published(weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Logits of the akamaster layout in evaluation mode; shortcut A, or B where ``shortcut`` weights exist."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        scale = weights[f"{name}.weight"] / torch.sqrt(var + 1e-5)
        return x * scale[:, None, None] + (weights[f"{name}.bias"] - mean * scale)[:, None, None]

    x = F.relu(norm(F.conv2d(images, weights["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in weights:
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            y = norm(F.conv2d(y, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.shortcut.0.weight" in weights:
                x = norm(F.conv2d(x, weights[f"{name}.shortcut.0.weight"], stride=stride), f"{name}.shortcut.1")
            elif stride == 2:
                zeros = torch.zeros(len(x), x.shape[1] // 2, y.shape[2], y.shape[3], dtype=x.dtype)
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = F.relu(x + y)
            block += 1
    return x.mean((2, 3)) @ weights["linear.weight"].t() + weights["linear.bias"]


def fill(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights from the names alone, the same on every machine, none of them 0 or 1."""
    filled = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            filled[name] = torch.tensor(7)
            continue
        random = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("running_var"):
            random = 1 + 0.2 * np.abs(random)
        elif len(shape) == 1:
            random = 0.1 * random + (0.6 if name.endswith("weight") else 0.0)
        else:
            random = random * np.sqrt(2 / np.prod(shape[1:]))
        filled[name] = torch.from_numpy(random.astype(np.float32))
    return filled


def golden_images() -> Tensor:
    """Four pseudo-random images [4, 3, 32, 32], smooth enough to look like some."""
    coarse = np.random.RandomState(2018).standard_normal((4, 3, 8, 8)).astype(np.float32)
    return F.interpolate(torch.from_numpy(coarse), size=32, mode="bilinear", align_corners=False)
