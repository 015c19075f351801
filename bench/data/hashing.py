"""Counter-based random numbers: a value is a function of (seed, epoch, sample, ...), never of what ran before.

The mixing function is splitmix64 (Steele, Lea and Flood, OOPSLA 2014; constants of Stafford's variant 13). It
exists twice, for Python integers and for int64 tensors on any device, and both give the same bits: int64
arithmetic wraps around, and the logical shift is an arithmetic one with the sign bits masked off.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB

# One stream per purpose, so that the order of an epoch tells nothing about its crops.
ORDER, AUGMENT, MIX = 1, 2, 3


def mix(z: int) -> int:
    """splitmix64's output function on a 64-bit integer."""
    z = ((z ^ (z >> 30)) * _M1) & _MASK
    z = ((z ^ (z >> 27)) * _M2) & _MASK
    return z ^ (z >> 31)


def key(*words: int) -> int:
    """A 64-bit key of a sequence of integers; the order of the words matters."""
    state = 0
    for word in words:
        state = extend(state, word)
    return state


def extend(state: int, word: int) -> int:
    """The key of one word more: ``extend(key(a, b), c) == key(a, b, c)``."""
    return mix((state + _GOLDEN + mix((word + _GOLDEN) & _MASK)) & _MASK)


def name_key(name: str) -> int:
    """A 64-bit word for a text."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def permutation(count: int, state: int) -> np.ndarray:
    """A permutation of range(count), int64, from the raw stream of PCG64.

    numpy promises the raw stream of a bit generator for ever; its shuffling methods it does not.
    """
    return np.argsort(np.random.PCG64(state).random_raw(count), kind="stable")


def extend_tensor(state: int | Tensor, words: Tensor) -> Tensor:
    """``extend`` for int64 tensors, elementwise: the same bits, read as signed."""
    base = state if not isinstance(state, int) else _signed(state)
    return _mix_tensor(_mix_tensor(words + _signed(_GOLDEN)) + base + _signed(_GOLDEN))


def uniforms(keys: Tensor, count: int) -> Tensor:
    """``count`` numbers per key, float64 in [0, 1): int64 [B] -> [B, count]."""
    import torch

    steps = torch.arange(1, count + 1, device=keys.device) * _signed(_GOLDEN)
    return _shift(_mix_tensor(keys[:, None] + steps), 11).double() * 2.0**-53


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(_M1)
    z = (z ^ _shift(z, 27)) * _signed(_M2)
    return z ^ _shift(z, 31)
