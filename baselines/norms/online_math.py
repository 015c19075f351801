"""What online normalisation does between its passes over the activation: all of it is [N, C].

Chiley et al. 2019, equations 8 and 11-12, for a batch in order: sample n is normalised with the statistics
that samples 1..n-1 left behind, and the control loop of the backward pass visits the samples in the same
order. With one mean and one variance per sample and channel, both are linear recurrences (``online_scan``),
and normalisation, affine and layer scaling fold into one scale and shift per sample and channel, so that
each direction reads the activation twice and writes it once, as batch norm does.

y = (x - mu) / s with s = sqrt(var + eps) is the normalised activation, z0 = gamma * y + beta, and the output
is z = z0 (ecm none), clamp(z0) (ac), or z0 / rho with rho^2 = mean of z0^2 over the sample (ls).
Tensors or NumPy arrays, as in ``online_scan``; only operators that both have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.norms.online_passes import Passes
from baselines.norms.online_scan import Array, scan

aten = torch.ops.aten


class Settings(NamedTuple):
    """Constants of a layer; see ``OnlineNorm2d``."""

    afwd: float
    abkw: float
    eps: float
    ecm: str
    clamp_val: float
    ls_eps: float


class Kept(NamedTuple):
    """What the forward pass keeps beside its input, [N, C] each; ``scale`` is [N, 1].

    mu, inv: mean and 1 / s of the stream before the sample. y_mean, y_var: of y over positions. scale:
    1 / rho, None without layer scaling.
    """

    mu: Array
    inv: Array
    y_mean: Array
    y_var: Array
    scale: Array | None

    def pack(self) -> tuple[Array, Array | None]:
        """As one [4, N, C] and scale: two saved tensors take less time than five."""
        stack = np.stack if isinstance(self.mu, np.ndarray) else torch.stack
        return stack(self[:4]), self.scale

    @classmethod
    def unpack(cls, packed: Array, scale: Array | None) -> Kept:
        mu, inv, y_mean, y_var = packed
        return cls(mu, inv, y_mean, y_var, scale)


def track(
    x: Tensor, gamma: Array | None, beta: Array | None, m: Array, var: Array, passes: Passes, settings: Settings
) -> tuple[Tensor, Array, Array, Kept]:
    """Forward: output, the stream's mean and variance after the batch (each [C]), and what to keep.

    x: [N, C, ...]; gamma, beta, m, var: [C]. gamma and beta come together or not at all.
    """
    afwd, _, eps, ecm, clamp_val, ls_eps = settings
    mean, variance = passes.moments(x)
    means = scan(afwd, (1 - afwd) * mean, m)
    mu = means[:-1]
    step = mean - mu
    variances = scan(afwd, (1 - afwd) * (variance + afwd * step * step), var)
    inv = _rsqrt(variances[:-1] + eps)
    y_mean, y_var = step * inv, variance * inv * inv
    scale = _layer_scale(y_mean, y_var, gamma, beta, ls_eps) if ecm == "ls" else None
    w, b = _affine(gamma, beta, scale)
    z = passes.apply(x, mu, w * inv, b)
    if ecm == "ac":
        z.clamp_(-clamp_val, clamp_val)
    return z, means[-1], variances[-1], Kept(mu, inv, y_mean, y_var, scale)


def control(
    dz: Tensor,
    x: Tensor,
    gamma: Array | None,
    beta: Array | None,
    u: Array,
    v: Array,
    kept: Kept,
    passes: Passes,
    settings: Settings,
) -> tuple[Tensor, Array | None, Array | None, Array, Array]:
    """Backward: gradients of x, gamma and beta, and the controls u and v after the batch (each [C])."""
    _, abkw, _, ecm, clamp_val, _ = settings
    mu, inv, y_mean, y_var, scale = kept
    w, b = _affine(gamma, beta, scale)
    p = w * inv
    if ecm == "ac":
        dz = aten.hardtanh_backward(dz, passes.apply(x, mu, p, b), -clamp_val, clamp_val)
    g_y, g_1 = passes.sums(dz, x, mu)
    g_y = g_y * inv
    # g_y and g_1 are the means over positions of g * y and of g, for a gradient g on its way from z to y
    y_square = y_var + y_mean * y_mean
    pull = None
    if scale is not None:
        # the gradient of z0 is (dz - pull * z) / rho with pull the mean over the sample of dz * z
        z_mean, z_y, along = w * y_mean, w * y_square, w * g_y
        if b is not None:
            z_mean, z_y, along = z_mean + b, z_y + b * y_mean, along + b * g_1
        pull = along.sum(1)[:, None] * (1 / mu.shape[1])
        g_y = (g_y - pull * z_y) * scale
        g_1 = (g_1 - pull * z_mean) * scale
    d_gamma = d_beta = None
    if gamma is not None:
        size = x[0, 0].numel()
        d_gamma, d_beta = g_y.sum(0) * size, g_1.sum(0) * size
        g_y, g_1 = g_y * gamma, g_1 * gamma
    k = 1 - abkw
    vs = scan(1 - k * y_square, g_y, v)
    q = k * vs[:-1]
    us = scan(abkw, (g_1 - q * y_mean) * inv, u)
    r = k * us[:-1]
    if pull is not None:
        q = q + pull * w * w
        if b is not None:
            r = r + pull * p * b
    dx = passes.combine(dz, x, mu, p, -q * inv * inv, -r)
    return dx, d_gamma, d_beta, us[-1], vs[-1]


def _affine(
    gamma: Array | None, beta: Array | None, scale: Array | None
) -> tuple[Array | float, Array | None]:
    """w and b in z = w * y + b, affine and layer scaling together; they broadcast to [N, C]."""
    if gamma is None or beta is None:
        return (1.0 if scale is None else scale), None
    return (gamma, beta) if scale is None else (gamma * scale, beta * scale)


def _layer_scale(
    y_mean: Array, y_var: Array, gamma: Array | None, beta: Array | None, ls_eps: float
) -> Array:
    """1 / rho, [N, 1]: the mean and variance of y per channel give the mean square of z0 over a sample
    without a pass over the activation."""
    if gamma is None or beta is None:
        square = y_var + y_mean * y_mean
    else:
        z0_mean = gamma * y_mean + beta
        square = z0_mean * z0_mean + gamma * gamma * y_var
    return _rsqrt(square.sum(1)[:, None] * (1 / y_mean.shape[1]) + ls_eps)


def _rsqrt(a: Array) -> Array:
    return 1 / np.sqrt(a) if isinstance(a, np.ndarray) else a.rsqrt()
