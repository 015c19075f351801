"""The passes of online normalisation over a whole activation; everything else is [N, C].

    moments  x -> mean and variance over positions                       1 read
    apply    x -> a * (x - mu) + b                                       1 read, 1 write
    sums     dz, x -> means of dz * (x - mu) and of dz over positions    2 reads
    combine  dz, x -> p * dz + a * (x - mu) + b                          2 reads, 1 write

with a mean mu and coefficients for every sample and channel. ``KernelPasses`` finds them inside torch's own
kernels, on a view in which every sample and channel is a channel of its own, so that each is one or two
vectorised kernels on the CPU. ``PlainPasses`` spells them out, for any device, memory format and dtype, and
for torch.compile, which fuses them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from baselines.norms.online_scan import Array

aten = torch.ops.aten


class Passes(Protocol):
    """x and dz are [N, C, ...] of one memory format; everything else is, or broadcasts to, [N, C]."""

    def small(self, tensor: Tensor, dtype: torch.dtype) -> Array:
        """A tensor without positions in the form that these passes compute with."""

    def moments(self, x: Tensor) -> tuple[Array, Array]: ...

    def apply(self, x: Tensor, mu: Array, a: Array, b: Array | None) -> Tensor: ...

    def sums(self, dz: Tensor, x: Tensor, mu: Array) -> tuple[Array, Array]: ...

    def combine(self, dz: Tensor, x: Tensor, mu: Array, p: Array, a: Array, b: Array) -> Tensor: ...


class KernelPasses:
    """float32 and float64 on the CPU, contiguous; computes with NumPy arrays beside the activation."""

    #: Where the mean square is more than this many times the variance, E[x^2] - E[x]^2 loses digits.
    far = 5.0

    @staticmethod
    def small(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
        if tensor.requires_grad:
            tensor = tensor.detach()
        return (tensor if tensor.dtype is dtype else tensor.to(dtype)).numpy()

    @classmethod
    def moments(cls, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        rows = x.view(x.shape[0] * x.shape[1], -1)
        mean = rows.sum(1).numpy()
        mean *= 1 / rows.shape[1]
        square = torch.linalg.vector_norm(rows, dim=1).numpy()
        square *= square
        square *= 1 / rows.shape[1]
        variance = square - mean * mean
        doubtful = variance * cls.far < square
        if doubtful.any():
            cls._refine(rows, mean, variance, doubtful)
        return mean.reshape(x.shape[:2]), variance.reshape(x.shape[:2])

    @staticmethod
    def _refine(rows: Tensor, mean: np.ndarray, variance: np.ndarray, doubtful: np.ndarray) -> None:
        """Second pass over the rows whose mean lies far from zero, around that mean."""
        index = np.flatnonzero(doubtful)
        centred = rows[torch.from_numpy(index)].sub_(torch.from_numpy(mean[index])[:, None])
        shift = centred.mean(1)
        square = centred.square_().mean(1)
        variance[index] = (square - shift * shift).clamp_min_(0).numpy()
        mean[index] += shift.numpy()

    @staticmethod
    def apply(x: Tensor, mu: np.ndarray, a: np.ndarray, b: np.ndarray | None) -> Tensor:
        z = torch.empty_like(x)  # filled as a whole: a view made here could not be changed in place later
        if b is not None and b.ndim == 1:
            b = np.tile(b, x.shape[0])
        _scale_shift(x, mu, a, b, out=z)
        return z

    @staticmethod
    def sums(dz: Tensor, x: Tensor, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = x.shape[0] * x.shape[1]
        one = _ones(rows, x.dtype)
        _, dzx, dz_ = aten.native_batch_norm_backward(
            dz.view(1, rows, -1), x.view(1, rows, -1), None, _column(mu), one, None, None, False, 0.0,
            [False, True, True],
        )  # fmt: skip
        size = rows / x.numel()
        return dzx.numpy().reshape(mu.shape) * size, dz_.numpy().reshape(mu.shape) * size

    @staticmethod
    def combine(
        dz: Tensor, x: Tensor, mu: np.ndarray, p: np.ndarray, a: np.ndarray, b: np.ndarray
    ) -> Tensor:
        dx = torch.empty_like(x)
        _scale_shift(x, mu, a, b, out=dx)
        rows = x.shape[0] * x.shape[1]
        # one factor that is constant along the row, as the second one here, is what addcmul vectorises
        dx.view(rows, -1).addcmul_(dz.view(rows, -1), _column(p)[:, None])
        return dx


class PlainPasses:
    """Elementary operations; half-precision activations are computed with in float32 and rounded once."""

    @staticmethod
    def small(tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(dtype)

    @staticmethod
    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        dims = _positions(x)
        wide = x.to(wide_dtype(x.dtype))
        if not dims:
            return wide, torch.zeros_like(wide)
        variance, mean = torch.var_mean(wide, dim=dims, correction=0)
        return mean, variance

    @staticmethod
    def apply(x: Tensor, mu: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
        z = (x - _over(mu, x)) * _over(a, x)
        return (z if b is None else z + _over(b, x)).to(x.dtype)

    @staticmethod
    def sums(dz: Tensor, x: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        dims = _positions(x)
        wide = dz.to(mu.dtype)
        product = wide * (x - _over(mu, x))
        return (product.mean(dims), wide.mean(dims)) if dims else (product, wide)

    @staticmethod
    def combine(dz: Tensor, x: Tensor, mu: Tensor, p: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (dz * _over(p, x) + (x - _over(mu, x)) * _over(a, x) + _over(b, x)).to(x.dtype)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics and coefficients: float32, or float64 where the activation is."""
    return torch.promote_types(dtype, torch.float32)


def choose_passes(x: Tensor) -> type[KernelPasses] | type[PlainPasses]:
    """The fastest passes for this activation that keep its memory format."""
    kernel = (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() > 2
        and x.is_contiguous()
        and type(x) in (Tensor, nn.Parameter)  # not a fake or a functional one
        and not torch.compiler.is_compiling()
    )
    return KernelPasses if kernel else PlainPasses


def _positions(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def _over(coefficients: Tensor, x: Tensor) -> Tensor:
    """[N, C] or [C] as a factor of [N, C, ...]."""
    return coefficients.view(coefficients.shape + (1,) * (x.dim() - 2))


def _column(coefficients: np.ndarray) -> Tensor:
    return torch.from_numpy(coefficients.reshape(-1))


@lru_cache(maxsize=32)
def _ones(length: int, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.ones(length, dtype=dtype)


def _scale_shift(x: Tensor, mu: np.ndarray, a: np.ndarray, b: np.ndarray | None, out: Tensor) -> None:
    """a * (x - mu) + b as batch norm in evaluation, whose running variance is 1."""
    rows = x.shape[0] * x.shape[1]
    nothing = torch.empty(0, dtype=x.dtype)
    torch.native_batch_norm(
        x.view(1, rows, -1), _column(a), None if b is None else _column(b), _column(mu), _ones(rows, x.dtype),
        False, 0.0, 0.0, out=(out.view(1, rows, -1), nothing, nothing),
    )  # fmt: skip
