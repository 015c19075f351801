"""Online normalisation with affine and error compensation as one differentiable function."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from baselines.norms import online_triton
from baselines.norms.online_math import Kept, Settings, control, track
from baselines.norms.online_passes import Passes, choose_passes, wide_dtype
from baselines.norms.online_scan import Array


class OnlineNormFunction(torch.autograd.Function):
    """``apply(x, weight, bias, m, var, u, v, *settings)`` -> output, in the dtype and memory format of x.

    forward moves m and var in place, backward u and v. The gradient is the control loop's, not the
    derivative of the forward pass: numerical gradient checks fail by design. Kept for backward are x and
    four numbers per sample and channel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        m: Tensor,
        var: Tensor,
        u: Tensor,
        v: Tensor,
        *settings: Any,
    ) -> Tensor:
        ctx.settings = Settings(*settings)
        ctx.by_triton = online_triton.uses_triton(x)
        # not saved tensors: another backward pass may move them between this forward and its backward
        ctx.u, ctx.v = u, v
        if ctx.by_triton:
            x = _dense(x)
            z, kept = online_triton.track(x, weight, bias, m, var, ctx.settings)
            ctx.save_for_backward(x, weight, bias, *kept)
            return z
        passes, dtype = choose_passes(x), wide_dtype(x.dtype)
        z, new_m, new_var, kept = track(
            x,
            _small(weight, passes, dtype),
            _small(bias, passes, dtype),
            passes.small(m, dtype),
            passes.small(var, dtype),
            passes,
            ctx.settings,
        )
        m.copy_(_tensor(new_m))
        var.copy_(_tensor(new_var))
        ctx.save_for_backward(x, weight, bias, *(None if a is None else _tensor(a) for a in kept.pack()))
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *saved = ctx.saved_tensors
        dz = _like(dz, x)
        if ctx.by_triton:
            gradients = online_triton.control(dz, x, weight, bias, ctx.u, ctx.v, Kept(*saved), ctx.settings)
            return *gradients, *(None,) * 10
        passes, dtype = choose_passes(x), wide_dtype(x.dtype)
        dx, d_weight, d_bias, new_u, new_v = control(
            dz,
            x,
            _small(weight, passes, dtype),
            _small(bias, passes, dtype),
            passes.small(ctx.u, dtype),
            passes.small(ctx.v, dtype),
            Kept.unpack(*(_small(tensor, passes, dtype) for tensor in saved)),
            passes,
            ctx.settings,
        )
        ctx.u.copy_(_tensor(new_u))
        ctx.v.copy_(_tensor(new_v))
        if weight is not None:
            d_weight, d_bias = _tensor(d_weight).to(weight.dtype), _tensor(d_bias).to(bias.dtype)
        return dx, d_weight, d_bias, *(None,) * 10


def _small(tensor: Tensor | None, passes: Passes, dtype: torch.dtype) -> Array | None:
    return None if tensor is None else passes.small(tensor, dtype)


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def _like(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient in the memory format of x, which it may have lost on the way (an expanded sum, say)."""
    if gradient.stride() == x.stride():
        return gradient
    return torch.empty_like(x, dtype=gradient.dtype).copy_(gradient)


def _dense(x: Tensor) -> Tensor:
    """x itself where its elements lie densely in one of the two memory formats, else a copy that does."""
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return x if dense else x.contiguous()
