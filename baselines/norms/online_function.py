"""Online normalisation with affine and error compensation as one differentiable function.

Chiley et al. 2019, equations 8 and 11-12, for a batch in order: sample n is normalised with the statistics
that samples 1..n-1 left behind, and the control loop of the backward pass visits the samples in the same
order. With one mean and one variance per sample and channel, both are linear recurrences (``online_scan``),
and normalisation, affine and layer scaling fold into one scale and shift per sample and channel, so that
each direction reads the activation twice and writes it once, as batch norm does. What is kept for the
backward pass is the input and [N, C] statistics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from baselines.norms.online_passes import choose_passes, wide_dtype
from baselines.norms.online_scan import scan_constant, scan_varying


class Settings(NamedTuple):
    """Constants of a layer; see ``OnlineNorm2d``."""

    afwd: float
    abkw: float
    eps: float
    ecm: str
    clamp_val: float
    ls_eps: float


class Statistics(NamedTuple):
    """What the forward pass knows of every sample and channel, [N, C]; ``scale`` is [N, 1].

    mean, variance: of the sample. mu, var: of the stream before the sample. scale: 1 / rho of layer
    scaling, None without.
    """

    mean: Tensor
    variance: Tensor
    mu: Tensor
    var: Tensor
    scale: Tensor | None


def track(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, m: Tensor, var: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Statistics]:
    """Forward: output, the stream's mean and variance after the batch (each [C]), and the statistics.

    x: [N, C, ...]; gamma, beta, m, var: [C]. gamma and beta come together or not at all.
    """
    passes = choose_passes(x)
    afwd = settings.afwd
    mean, variance = passes.moments(x)
    means = scan_constant(mean, m, afwd, 1 - afwd)
    mu = means[:-1]
    step = mean - mu
    variances = scan_constant(torch.addcmul(variance, step, step, value=afwd), var, afwd, 1 - afwd)
    stale = variances[:-1]
    scale = _layer_scale(step, variance, stale, gamma, beta, settings) if settings.ecm == "ls" else None
    z = passes.apply(x, mu, stale, settings.eps, *_fold(gamma, beta, scale, mu))
    if settings.ecm == "ac":
        z.clamp_(-settings.clamp_val, settings.clamp_val)
    return z, means[-1], variances[-1], Statistics(mean, variance, mu, stale, scale)


def control(
    dz: Tensor,
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    u: Tensor,
    v: Tensor,
    statistics: Statistics,
    settings: Settings,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
    """Backward: gradients of x, gamma and beta, and the controls u and v after the batch (each [C])."""
    mean, variance, mu, var, scale = statistics
    passes, k, eps = choose_passes(x), 1 - settings.abkw, settings.eps
    size = x[0, 0].numel()
    w, b = _fold(gamma, beta, scale, mu)
    if settings.ecm == "ac":
        z = passes.apply(x, mu, var, eps, w, b)
        dz = torch.ops.aten.hardtanh_backward(dz, z, -settings.clamp_val, settings.clamp_val)
    pdz, g_y, g_1 = passes.sums(dz, x, mu, var, eps, w)  # sums over positions of dz * y and dz
    inv = (var + eps).rsqrt()
    step = mean - mu
    y_mean = step * inv
    y_square = torch.addcmul(variance, step, step) * inv.square()
    pull: Tensor | None = None
    if scale is not None:  # through layer scaling, z = z0 / rho with rho^2 = mean(z0^2) over the sample
        z0_mean, z0_y = y_mean, y_square
        along = g_y
        if gamma is not None and beta is not None:
            z0_mean = torch.addcmul(beta, gamma, y_mean)
            z0_y = torch.addcmul(beta * y_mean, gamma, y_square)
            along = torch.addcmul(beta * g_1, gamma, g_y)
        pull = along.mean(1, keepdim=True) * scale.square()
        g_1 = torch.addcmul(g_1, pull, z0_mean, value=-1) * scale
        g_y = torch.addcmul(g_y, pull, z0_y, value=-1) * scale
        pull = pull / size
    d_gamma = d_beta = None
    if gamma is not None:
        d_gamma, d_beta = g_y.sum(0), g_1.sum(0)
        g_1, g_y = g_1 * gamma, g_y * gamma
    h_y, h_1 = g_y / size, g_1 / size
    vs = scan_varying(1 - k * y_square, h_y, v)
    v_before = vs[:-1]
    us = scan_constant(torch.addcmul(h_1, v_before, y_mean, value=-k) * inv, u, settings.abkw, 1.0)
    q, r = v_before * -k, us[:-1] * -k
    if pull is not None:
        pw = pull * w
        q = torch.addcmul(q, pw, gamma, value=-1) if gamma is not None else q - pw
        if beta is not None:
            r = torch.addcmul(r, pw * beta, inv, value=-1)
    dx = passes.combine(pdz, x, mu, var, eps, q * inv, r)
    return dx, d_gamma, d_beta, us[-1], vs[-1]


class OnlineNormFunction(torch.autograd.Function):
    """``apply(x, weight, bias, m, var, u, v, *settings)`` -> output, new m, new var.

    The gradient is the control loop's, not the derivative of the forward pass: numerical gradient checks
    fail by design. backward moves u and v in place; the caller moves m and var.
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.promote_types(wide_dtype(x.dtype), m.dtype)
        ctx.settings = Settings(*settings)
        z, new_m, new_var, statistics = track(
            x, _to(weight, dtype), _to(bias, dtype), m.to(dtype), var.to(dtype), ctx.settings
        )
        ctx.save_for_backward(x, weight, bias, *statistics)
        # not saved tensors: another backward pass may move them between this forward and its backward
        ctx.u, ctx.v = u, v
        ctx.mark_non_differentiable(new_m, new_var)
        ctx.set_materialize_grads(False)
        return z, new_m, new_var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, *saved = ctx.saved_tensors
        statistics = Statistics(*saved)
        dtype = statistics.mu.dtype
        dx, d_weight, d_bias, new_u, new_v = control(
            _like(dz, x),
            x,
            _to(weight, dtype),
            _to(bias, dtype),
            ctx.u.to(dtype),
            ctx.v.to(dtype),
            statistics,
            ctx.settings,
        )
        ctx.u.copy_(new_u)
        ctx.v.copy_(new_v)
        if weight is not None:
            d_weight, d_bias = _to(d_weight, weight.dtype), _to(d_bias, bias.dtype)
        return dx, d_weight, d_bias, *(None,) * 10


def _layer_scale(
    step: Tensor, variance: Tensor, var: Tensor, gamma: Tensor | None, beta: Tensor | None, settings: Settings
) -> Tensor:
    """1 / rho, [N, 1]: the second moment of the affine output over a sample, from its statistics alone."""
    a = (var + settings.eps).rsqrt()
    if gamma is not None and beta is not None:
        a = a * gamma
        mean = torch.addcmul(beta, a, step)
    else:
        mean = a * step
    square = torch.addcmul(mean.square(), a.square(), variance)
    return (square.mean(1, keepdim=True) + settings.ls_eps).rsqrt()


def _fold(
    gamma: Tensor | None, beta: Tensor | None, scale: Tensor | None, like: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias [N, C] that turn y into the output."""
    if gamma is None or beta is None:
        return (torch.ones_like(like) if scale is None else scale.expand_as(like)), None
    if scale is None:
        return gamma.expand_as(like), beta.expand_as(like)
    return scale * gamma, scale * beta


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _like(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient in the memory format of x, which it may have lost on the way (an expanded sum, say)."""
    if gradient.stride() == x.stride():
        return gradient
    return torch.empty_like(x, dtype=gradient.dtype).copy_(gradient)
