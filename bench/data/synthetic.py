"""Computed images: a pattern of stripes per class under noise. Learnable, deterministic, and meaningless."""

from __future__ import annotations

import numpy as np

from bench.data.hashing import key, name_key
from bench.data.sources import ArraySource

# Stripe direction (steps per pixel in x and y, of a period of 64) of each class: five angles, two widths.
_STEPS = ((4, 0), (0, 4), (3, 3), (3, -3), (5, 2), (10, 0), (0, 10), (7, 7), (7, -7), (12, 5))


def synthetic_images(part: str, count: int, size: int = 32) -> ArraySource:
    """``count`` images, balanced over 10 classes and shuffled. Integer arithmetic only: the same everywhere."""
    stream = np.random.PCG64(key(name_key(f"synthetic/{part}"), count, size))
    labels = (np.argsort(stream.random_raw(count), kind="stable") % len(_STEPS)).astype(np.int64)
    steps = np.array(_STEPS, dtype=np.int64)[labels]
    raw = stream.random_raw(count).astype(np.uint64)
    phase = (raw % np.uint64(64)).astype(np.int64)
    tint = np.stack([(raw >> np.uint64(8 * (c + 1))) % np.uint64(96) for c in range(3)], 1).astype(np.int64)
    y, x = np.mgrid[0:size, 0:size]
    wave = (steps[:, 0, None, None] * x + steps[:, 1, None, None] * y + phase[:, None, None]) % 64
    stripes = 4 * np.abs(wave - 32)  # 0..128, a triangle of period 64
    words = stream.random_raw(count * 3 * size * size // 8)
    noise = words.astype("<u8").view(np.uint8).reshape(count, 3, size, size).astype(np.int64) // 2
    data = np.clip(stripes[:, None] + tint[:, :, None, None] + noise - 64, 0, 255).astype(np.uint8)
    return ArraySource(f"synthetic {part}", data, labels, tuple(f"stripes {n}" for n in range(len(_STEPS))))
