"""The four passes of online normalisation over a whole activation; everything else is [N, C].

    moments  x -> mean and variance of every sample and channel          1 read
    apply    x -> (x - mu) / s * w + b                                   1 read, 1 write
    sums     dz, x -> P * dz and the sums of dz and dz * y               2 reads, 1 write
    combine  P * dz += Q * y + R                                         2 reads, 1 write

with y = (x - mu) / s, s = sqrt(var + eps), and a coefficient per sample and channel for everything else.
``KernelPasses`` finds them inside torch's own normalisation kernels, on a view in which every sample and
channel is a channel of its own, so that each is one vectorised kernel on the CPU. ``PlainPasses`` spells
them out, for any device, memory format and dtype, and for torch.compile, which fuses them.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

aten = torch.ops.aten


class Passes(Protocol):
    """Tensors called mean, var, w, b, Q, R and the results of ``moments`` and ``sums`` are [N, C]."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def apply(self, x: Tensor, mu: Tensor, var: Tensor, eps: float, w: Tensor, b: Tensor | None) -> Tensor: ...

    def sums(
        self, dz: Tensor, x: Tensor, mu: Tensor, var: Tensor, eps: float, w: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]: ...

    def combine(
        self, pdz: Tensor, x: Tensor, mu: Tensor, var: Tensor, eps: float, q: Tensor, r: Tensor
    ) -> Tensor: ...


class KernelPasses:
    """float32 and float64 on the CPU, contiguous."""

    @staticmethod
    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        # Group norm's moments are the only fast ones that survive a mean far from zero (E[x^2] - E[x]^2 loses
        # all digits there); its output is thrown away.
        n, c = x.shape[:2]
        rows = n * c
        _, mean, rstd = aten.native_group_norm(_rows(x), None, None, 1, rows, x[0, 0].numel(), rows, 0.0)
        return mean.view(n, c), rstd.pow(-2).view(n, c)

    @staticmethod
    def apply(x: Tensor, mu: Tensor, var: Tensor, eps: float, w: Tensor, b: Tensor | None) -> Tensor:
        z = _batch_norm(x, mu, var, eps, w, b)
        # a view made inside a custom Function could not be changed in place, and a ReLU wants to
        return aten._unsafe_view(z, x.shape)

    @staticmethod
    def sums(
        dz: Tensor, x: Tensor, mu: Tensor, var: Tensor, eps: float, w: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        pdz, sum_dzy, sum_dz = aten.native_batch_norm_backward(
            _rows(dz), _rows(x), _flat(w), _flat(mu), _flat(var), None, None, False, eps, [True, True, True]
        )
        return pdz, sum_dzy.view_as(mu), sum_dz.view_as(mu)

    @staticmethod
    def combine(pdz: Tensor, x: Tensor, mu: Tensor, var: Tensor, eps: float, q: Tensor, r: Tensor) -> Tensor:
        return aten._unsafe_view(pdz.add_(_batch_norm(x, mu, var, eps, q, r)), x.shape)


class PlainPasses:
    """Elementary operations; half-precision activations are computed with in float32 and rounded once."""

    @staticmethod
    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        dims = tuple(range(2, x.dim()))
        wide = x.to(wide_dtype(x.dtype))
        if not dims:
            return wide, torch.zeros_like(wide)
        var, mean = torch.var_mean(wide, dim=dims, correction=0)
        return mean, var

    @staticmethod
    def apply(x: Tensor, mu: Tensor, var: Tensor, eps: float, w: Tensor, b: Tensor | None) -> Tensor:
        a = w * (var + eps).rsqrt()
        z = (x - _over(mu, x)) * _over(a, x)
        return (z if b is None else z + _over(b, x)).to(x.dtype)

    @staticmethod
    def sums(
        dz: Tensor, x: Tensor, mu: Tensor, var: Tensor, eps: float, w: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = tuple(range(2, x.dim()))
        inv = (var + eps).rsqrt()
        wide = dz.to(mu.dtype)
        dzx = wide * (x - _over(mu, x))
        if dims:
            return wide * _over(w * inv, x), dzx.sum(dims) * inv, wide.sum(dims)
        return wide * w * inv, dzx * inv, wide

    @staticmethod
    def combine(pdz: Tensor, x: Tensor, mu: Tensor, var: Tensor, eps: float, q: Tensor, r: Tensor) -> Tensor:
        a = q * (var + eps).rsqrt()
        return (pdz + (x - _over(mu, x)) * _over(a, x) + _over(r, x)).to(x.dtype)


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
        and x.numel() > 0
        and not torch.compiler.is_compiling()
    )
    return KernelPasses if kernel else PlainPasses


def _rows(x: Tensor) -> Tensor:
    return x.view(1, x.shape[0] * x.shape[1], -1)


def _flat(coefficients: Tensor | None) -> Tensor | None:
    return None if coefficients is None else coefficients.reshape(-1)


def _batch_norm(x: Tensor, mu: Tensor, var: Tensor, eps: float, w: Tensor, b: Tensor | None) -> Tensor:
    return torch.batch_norm(_rows(x), _flat(w), _flat(b), _flat(mu), _flat(var), False, 0.0, eps, False)


def _over(coefficients: Tensor, x: Tensor) -> Tensor:
    return coefficients.view(coefficients.shape + (1,) * (x.dim() - 2))
