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

from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from baselines.norms.online_scan import Array

aten = torch.ops.aten


class Passes(ABC):
    """x and dz are [N, C, ...] of one memory format; everything else is, or broadcasts to, [N, C]."""

    @abstractmethod
    def small(self, tensor: Tensor, dtype: torch.dtype) -> Array:
        """A tensor without positions in the form that these passes compute with."""

    @abstractmethod
    def moments(self, x: Tensor) -> tuple[Array, Array]: ...

    @abstractmethod
    def apply(self, x: Tensor, mu: Array, a: Array, b: Array | None) -> Tensor: ...

    @abstractmethod
    def sums(self, dz: Tensor, x: Tensor, mu: Array) -> tuple[Array, Array]: ...

    @abstractmethod
    def combine(self, dz: Tensor, x: Tensor, mu: Array, p: Array, a: Array, b: Array) -> Tensor: ...


class KernelPasses(Passes):
    """float32 and float64 on the CPU, contiguous; computes with NumPy arrays beside the activation."""

    #: Where the mean square is more than this many times the variance, E[x^2] - E[x]^2 loses digits.
    far = 5.0

    def small(self, tensor: Tensor, dtype: torch.dtype) -> Array:
        if tensor.requires_grad:
            tensor = tensor.detach()
        return (tensor if tensor.dtype is dtype else tensor.to(dtype)).numpy()

    def moments(self, x: Tensor) -> tuple[Array, Array]:
        rows = x.view(x.shape[0] * x.shape[1], -1)
        mean = rows.sum(1).numpy()
        mean *= 1 / rows.shape[1]
        square = torch.linalg.vector_norm(rows, dim=1).numpy()
        square *= square
        square *= 1 / rows.shape[1]
        variance = square - mean * mean
        doubtful = variance * self.far < square
        if doubtful.any():
            self._refine(rows, mean, variance, doubtful)
        return mean.reshape(x.shape[:2]), variance.reshape(x.shape[:2])

    def _refine(self, rows: Tensor, mean: np.ndarray, variance: np.ndarray, doubtful: np.ndarray) -> None:
        """Second pass over the rows whose mean lies far from zero, around that mean."""
        index = np.flatnonzero(doubtful)
        centred = rows[torch.from_numpy(index)].sub_(torch.from_numpy(mean[index])[:, None])
        shift = centred.mean(1)
        square = centred.square_().mean(1)
        variance[index] = (square - shift * shift).clamp_min_(0).numpy()
        mean[index] += shift.numpy()

    def apply(self, x: Tensor, mu: Array, a: Array, b: Array | None) -> Tensor:
        z = torch.empty_like(x)  # filled as a whole: a view made here could not be changed in place later
        if b is not None and b.ndim == 1:
            b = np.tile(b, x.shape[0])
        _scale_shift(x, mu, a, b, out=z)
        return z

    def sums(self, dz: Tensor, x: Tensor, mu: Array) -> tuple[Array, Array]:
        rows = x.shape[0] * x.shape[1]
        one = _ones(rows, x.dtype)
        _, dzx, dz_ = aten.native_batch_norm_backward(
            dz.view(1, rows, -1), x.view(1, rows, -1), None, _column(mu), one, None, None, False, 0.0,
            [False, True, True],
        )  # fmt: skip
        size = rows / x.numel()
        return dzx.numpy().reshape(mu.shape) * size, dz_.numpy().reshape(mu.shape) * size

    def combine(self, dz: Tensor, x: Tensor, mu: Array, p: Array, a: Array, b: Array) -> Tensor:
        dx = torch.empty_like(x)
        _scale_shift(x, mu, a, b, out=dx)
        rows = x.shape[0] * x.shape[1]
        # one factor that is constant along the row, as the second one here, is what addcmul vectorises
        dx.view(rows, -1).addcmul_(dz.view(rows, -1), _column(p)[:, None])
        return dx


class PlainPasses(Passes):
    """Elementary operations; half-precision activations are computed with in float32."""

    def small(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(dtype)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dims = _positions(x)
        wide = x.to(wide_dtype(x.dtype))
        if not dims:
            return wide, torch.zeros_like(wide)
        if torch.compiler.is_compiling():
            variance, mean = torch.var_mean(wide, dim=dims, correction=0)
            return mean, variance
        mean = wide.mean(dims)  # two passes are several times as fast as var_mean where nothing fuses it
        return mean, (wide - _over(mean, x)).square_().mean(dims)

    def apply(self, x: Tensor, mu: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
        shift = -a * mu if b is None else b - a * mu
        return torch.addcmul(_over(shift, x), x.to(mu.dtype), _over(a, x)).to(x.dtype)

    def sums(self, dz: Tensor, x: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        dims = _positions(x)
        wide = dz.to(mu.dtype)
        product = (x - _over(mu, x)) * wide
        return (product.mean(dims), wide.mean(dims)) if dims else (product, wide)

    def combine(self, dz: Tensor, x: Tensor, mu: Tensor, p: Tensor, a: Tensor, b: Tensor) -> Tensor:
        dx = torch.addcmul(_over(b - a * mu, x), x.to(mu.dtype), _over(a, x))
        return dx.addcmul_(dz.to(mu.dtype), _over(p, x)).to(x.dtype)


class ArrayPasses(Passes):
    """``PlainPasses`` for the CPU: [N, C] is computed with in NumPy, as by ``KernelPasses``."""

    def small(self, tensor: Tensor, dtype: torch.dtype) -> Array:
        return _KERNEL.small(tensor, dtype)

    def moments(self, x: Tensor) -> tuple[Array, Array]:
        mean, variance = _PLAIN.moments(x)
        return mean.numpy(), variance.numpy()

    def apply(self, x: Tensor, mu: Array, a: Array, b: Array | None) -> Tensor:
        return _PLAIN.apply(x, torch.from_numpy(mu), torch.from_numpy(a), None if b is None else torch.from_numpy(b))

    def sums(self, dz: Tensor, x: Tensor, mu: Array) -> tuple[Array, Array]:
        dzx, dz_ = _PLAIN.sums(dz, x, torch.from_numpy(mu))
        return dzx.numpy(), dz_.numpy()

    def combine(self, dz: Tensor, x: Tensor, mu: Array, p: Array, a: Array, b: Array) -> Tensor:
        coefficients = (torch.from_numpy(array) for array in (mu, p, a, b))
        return _PLAIN.combine(dz, x, *coefficients)


_KERNEL, _PLAIN, _ARRAY = KernelPasses(), PlainPasses(), ArrayPasses()


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics and coefficients: float32, or float64 where the activation is."""
    return torch.promote_types(dtype, torch.float32)


def choose_passes(x: Tensor) -> Passes:
    """The fastest passes for this activation that keep its memory format."""
    # fake and functional tensors, as of torch.compile and of memory estimates, have no values for NumPy
    if x.device.type != "cpu" or type(x) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling():
        return _PLAIN
    kernel = x.dtype in (torch.float32, torch.float64) and x.dim() > 2 and x.is_contiguous()
    return _KERNEL if kernel else _ARRAY


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
