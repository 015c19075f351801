"""Triton kernels of online normalisation; ``online_triton`` launches them. Importing this needs Triton.

Three shapes of work. Row kernels run over (sample, block of channels) and read the activation with its own
strides, so that both memory formats are read as they lie. Stream kernels run over blocks of channels and take
the whole batch as a tile, with a parallel scan along it instead of a loop. Sample kernels reduce over
channels, for layer scaling. Nothing is accumulated atomically: results are the same every time.

Per sample and channel, [N, C] contiguous: mean, variance, mu, inv, y_mean, y_var, ... as in ``online_math``.
"""

# mypy: disallow-untyped-defs=False
# (what a kernel takes are pointers and numbers of Triton's own types)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load_rows(pointer, n, c, d, stride_n, stride_c, stride_d, channels, size, acc: tl.constexpr):
    inside = (c < channels)[:, None] & (d < size)[None, :]
    offsets = n.to(tl.int64) * stride_n + c[:, None] * stride_c + d[None, :] * stride_d
    return tl.load(pointer + offsets, mask=inside, other=0.0).to(acc), inside, offsets


@triton.jit
def moments_kernel(
    x, mean, variance, channels, size, stride_n, stride_c, stride_d,
    acc: tl.constexpr, block_c: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """Mean and variance of each row in one read; blocks of positions are merged as by Chan et al. 1979."""
    n = tl.program_id(0)
    c = tl.program_id(1) * block_c + tl.arange(0, block_c)
    m = tl.zeros((block_c,), acc)
    m2 = tl.zeros((block_c,), acc)
    for start in range(0, size, block_d):
        d = start + tl.arange(0, block_d)
        values, inside, _ = _load_rows(x, n, c, d, stride_n, stride_c, stride_d, channels, size, acc)
        count = tl.minimum(size - start, block_d).to(acc)
        block_mean = tl.sum(values, axis=1) / count
        centred = tl.where(inside, values - block_mean[:, None], 0.0)
        step = block_mean - m
        seen = start + count
        m2 += tl.sum(centred * centred, axis=1) + step * step * (start * count / seen)
        m += step * (count / seen)
    at = n * channels + c
    tl.store(mean + at, m, mask=c < channels)
    tl.store(variance + at, m2 / size, mask=c < channels)


@triton.jit
def _affine_step(a_l, b_l, before_a_l, before_b_l, a_r, b_r, before_a_r, before_b_r):
    """Two stretches of affine steps as one: s -> a * s + b after all of it, and before its last step."""
    return a_r * a_l, a_r * b_l + b_r, before_a_r * a_l, before_a_r * b_l + before_b_r


@triton.jit
def _scan_tile(a, b, start, last):
    """States before each row and after the last one of ``s_n = a_n * s_{n-1} + b_n``; tile [rows, channels]."""
    one, zero = tl.full(a.shape, 1.0, a.dtype), tl.full(a.shape, 0.0, a.dtype)
    a, b, before_a, before_b = tl.associative_scan((a, b, one, zero), 0, _affine_step)
    before = before_a * start[None, :] + before_b
    after = tl.sum(tl.where(last, a * start[None, :] + b, 0.0), axis=0)
    return before, after


@triton.jit
def scan_kernel(
    coefficients, inputs, start, states, samples, channels, coefficient: tl.constexpr,
    varying: tl.constexpr, acc: tl.constexpr, rows: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """``online_scan.scan``: states [N + 1, C] from coefficients and inputs [N, C] and start [C]."""
    c = tl.program_id(0) * block_c + tl.arange(0, block_c)
    state = tl.load(start + c, mask=c < channels, other=0.0).to(acc)
    for first in range(0, samples, rows):
        n = first + tl.arange(0, rows)
        inside = (n < samples)[:, None] & (c < channels)[None, :]
        at = n[:, None] * channels + c[None, :]
        b = tl.load(inputs + at, mask=inside, other=0.0).to(acc)
        if varying:
            a = tl.load(coefficients + at, mask=inside, other=1.0).to(acc)
        else:
            a = tl.where(inside, tl.full(inside.shape, coefficient, acc), 1.0)
        last = (n == tl.minimum(samples, first + rows) - 1)[:, None]
        before, state = _scan_tile(a, b, state, last)
        tl.store(states + at, before, mask=inside)
    tl.store(states + samples * channels + c, state, mask=c < channels)


@triton.jit
def track_kernel(
    mean, variance, weight, bias, m, var, mu, inv, y_mean, y_var, square, samples, channels,
    afwd: tl.constexpr, eps: tl.constexpr, affine: tl.constexpr, scaling: tl.constexpr, acc: tl.constexpr,
    rows: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Both streams of the forward pass; moves m and var. square: mean square of the affine output.

    In float64: rounded to float32, a decay of 0.999 would make the weights of a stream sum to 1 + 1.3e-5.
    """
    c = tl.program_id(0) * block_c + tl.arange(0, block_c)
    known = c < channels
    m_state = tl.load(m + c, mask=known, other=0.0).to(acc)
    var_state = tl.load(var + c, mask=known, other=1.0).to(acc)
    if affine:
        gamma = tl.load(weight + c, mask=known, other=0.0).to(acc)[None, :]
        beta = tl.load(bias + c, mask=known, other=0.0).to(acc)[None, :]
    for first in range(0, samples, rows):
        n = first + tl.arange(0, rows)
        inside = (n < samples)[:, None] & known[None, :]
        at = n[:, None] * channels + c[None, :]
        last = (n == tl.minimum(samples, first + rows) - 1)[:, None]
        sample_mean = tl.load(mean + at, mask=inside, other=0.0).to(acc)
        sample_var = tl.load(variance + at, mask=inside, other=0.0).to(acc)
        a = tl.where(inside, tl.full(inside.shape, afwd, acc), 1.0)
        gain = 1 - a
        mu_before, m_state = _scan_tile(a, gain * sample_mean, m_state, last)
        step = sample_mean - mu_before
        var_before, var_state = _scan_tile(a, gain * (sample_var + a * step * step), var_state, last)
        scale = 1.0 / tl.sqrt(var_before + eps)
        mean_y = step * scale
        var_y = sample_var * scale * scale
        tl.store(mu + at, mu_before, mask=inside)
        tl.store(inv + at, scale, mask=inside)
        tl.store(y_mean + at, mean_y, mask=inside)
        tl.store(y_var + at, var_y, mask=inside)
        if scaling:
            if affine:
                z_mean = gamma * mean_y + beta
                tl.store(square + at, z_mean * z_mean + gamma * gamma * var_y, mask=inside)
            else:
                tl.store(square + at, mean_y * mean_y + var_y, mask=inside)
    tl.store(m + c, m_state, mask=known)
    tl.store(var + c, var_state, mask=known)


@triton.jit
def layer_scale_kernel(square, scale, channels, ls_eps: tl.constexpr, acc: tl.constexpr, block_c: tl.constexpr):
    """1 / rho of each sample."""
    n = tl.program_id(0)
    total = tl.zeros((block_c,), acc)
    for first in range(0, channels, block_c):
        c = first + tl.arange(0, block_c)
        total += tl.load(square + n * channels + c, mask=c < channels, other=0.0)
    tl.store(scale + n, 1.0 / tl.sqrt(tl.sum(total, axis=0) / channels + ls_eps))


@triton.jit
def _affine_of(weight, bias, scale, n, c, known, affine: tl.constexpr, scaling: tl.constexpr, acc: tl.constexpr):
    """w and b in z = w * y + b, for one sample and a block of channels."""
    w = tl.full(c.shape, 1.0, acc)
    b = tl.full(c.shape, 0.0, acc)
    if affine:
        w = tl.load(weight + c, mask=known, other=0.0).to(acc)
        b = tl.load(bias + c, mask=known, other=0.0).to(acc)
    if scaling:
        factor = tl.load(scale + n)
        w = w * factor
        b = b * factor
    return w, b


@triton.jit
def apply_kernel(
    x, z, mu, inv, weight, bias, scale, channels, size, stride_n, stride_c, stride_d, limit: tl.constexpr,
    affine: tl.constexpr, scaling: tl.constexpr, clamping: tl.constexpr, acc: tl.constexpr,
    block_c: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """The output."""
    n = tl.program_id(0)
    c = tl.program_id(1) * block_c + tl.arange(0, block_c)
    known = c < channels
    w, b = _affine_of(weight, bias, scale, n, c, known, affine, scaling, acc)
    centre = tl.load(mu + n * channels + c, mask=known, other=0.0)[:, None]
    w = (w * tl.load(inv + n * channels + c, mask=known, other=0.0))[:, None]
    for start in range(0, size, block_d):
        d = start + tl.arange(0, block_d)
        values, inside, offsets = _load_rows(x, n, c, d, stride_n, stride_c, stride_d, channels, size, acc)
        out = (values - centre) * w + b[:, None]
        if clamping:
            out = tl.minimum(tl.maximum(out, -limit), limit)
        tl.store(z + offsets, out.to(z.dtype.element_ty), mask=inside)


@triton.jit
def sums_kernel(
    dz, x, g_y, g_1, mu, inv, weight, bias, channels, size, stride_n, stride_c, stride_d, limit: tl.constexpr,
    affine: tl.constexpr, clamping: tl.constexpr, acc: tl.constexpr, block_c: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """Means over positions of dz * y and of dz, where the output was not clamped."""
    n = tl.program_id(0)
    c = tl.program_id(1) * block_c + tl.arange(0, block_c)
    known = c < channels
    at = n * channels + c
    w, b = _affine_of(weight, bias, weight, n, c, known, affine, False, acc)
    centre = tl.load(mu + at, mask=known, other=0.0)[:, None]
    scale = tl.load(inv + at, mask=known, other=0.0)[:, None]
    sum_y = tl.zeros((block_c,), acc)
    sum_1 = tl.zeros((block_c,), acc)
    for start in range(0, size, block_d):
        d = start + tl.arange(0, block_d)
        values, inside, offsets = _load_rows(x, n, c, d, stride_n, stride_c, stride_d, channels, size, acc)
        gradient = tl.load(dz + offsets, mask=inside, other=0.0).to(acc)
        y = (values - centre) * scale
        if clamping:
            gradient = tl.where(tl.abs(y * w[:, None] + b[:, None]) < limit, gradient, 0.0)
        sum_y += tl.sum(gradient * y, axis=1)
        sum_1 += tl.sum(gradient, axis=1)
    tl.store(g_y + at, sum_y / size, mask=known)
    tl.store(g_1 + at, sum_1 / size, mask=known)


@triton.jit
def pull_kernel(
    g_y, g_1, weight, bias, scale, pull, channels,
    affine: tl.constexpr, acc: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """The mean of dz * z over each sample, for the gradient of layer scaling."""
    n = tl.program_id(0)
    total = tl.zeros((block_c,), acc)
    for first in range(0, channels, block_c):
        c = first + tl.arange(0, block_c)
        known = c < channels
        w, b = _affine_of(weight, bias, scale, n, c, known, affine, True, acc)
        total += w * tl.load(g_y + n * channels + c, mask=known, other=0.0)
        total += b * tl.load(g_1 + n * channels + c, mask=known, other=0.0)
    tl.store(pull + n, tl.sum(total, axis=0) / channels)


@triton.jit
def control_kernel(
    g_y, g_1, inv, y_mean, y_var, weight, bias, scale, pull, u, v, q, r, d_weight, d_bias,
    samples, channels, size, abkw: tl.constexpr,
    affine: tl.constexpr, scaling: tl.constexpr, acc: tl.constexpr, rows: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Both streams of the backward pass; moves u and v. The gradient of x is p * dz + q * (x - mu) + r."""
    c = tl.program_id(0) * block_c + tl.arange(0, block_c)
    known = c < channels
    u_state = tl.load(u + c, mask=known, other=0.0).to(acc)
    v_state = tl.load(v + c, mask=known, other=0.0).to(acc)
    gamma = tl.full((1, block_c), 1.0, acc)
    beta = tl.full((1, block_c), 0.0, acc)
    if affine:
        gamma = tl.load(weight + c, mask=known, other=0.0).to(acc)[None, :]
        beta = tl.load(bias + c, mask=known, other=0.0).to(acc)[None, :]
    sum_gamma = tl.zeros((block_c,), acc)
    sum_beta = tl.zeros((block_c,), acc)
    for first in range(0, samples, rows):
        n = first + tl.arange(0, rows)
        inside = (n < samples)[:, None] & known[None, :]
        at = n[:, None] * channels + c[None, :]
        last = (n == tl.minimum(samples, first + rows) - 1)[:, None]
        along_y = tl.load(g_y + at, mask=inside, other=0.0)
        along_1 = tl.load(g_1 + at, mask=inside, other=0.0)
        mean_y = tl.load(y_mean + at, mask=inside, other=0.0)
        square_y = tl.load(y_var + at, mask=inside, other=0.0) + mean_y * mean_y
        s = tl.load(inv + at, mask=inside, other=0.0)
        q_scaling = tl.zeros((rows, block_c), acc)
        r_scaling = tl.zeros((rows, block_c), acc)
        if scaling:
            factor = tl.load(scale + n, mask=n < samples, other=0.0)[:, None]
            back = tl.load(pull + n, mask=n < samples, other=0.0)[:, None]
            w, b = gamma * factor, beta * factor
            along_y = (along_y - back * (w * square_y + b * mean_y)) * factor
            along_1 = (along_1 - back * (w * mean_y + b)) * factor
            q_scaling = back * w * w
            r_scaling = back * w * b * s
        sum_gamma += tl.sum(along_y, axis=0)
        sum_beta += tl.sum(along_1, axis=0)
        k = tl.full((rows, block_c), 1 - abkw, acc)
        v_before, v_state = _scan_tile(
            tl.where(inside, 1.0 - k * square_y, 1.0), tl.where(inside, along_y * gamma, 0.0), v_state, last
        )
        h = (along_1 * gamma - k * v_before * mean_y) * s
        u_before, u_state = _scan_tile(tl.where(inside, tl.full(inside.shape, abkw, acc), 1.0), h, u_state, last)
        tl.store(q + at, -(k * v_before + q_scaling) * s * s, mask=inside)
        tl.store(r + at, -(k * u_before + r_scaling), mask=inside)
    tl.store(u + c, u_state, mask=known)
    tl.store(v + c, v_state, mask=known)
    if affine:
        tl.store(d_weight + c, (sum_gamma * size).to(d_weight.dtype.element_ty), mask=known)
        tl.store(d_bias + c, (sum_beta * size).to(d_bias.dtype.element_ty), mask=known)


@triton.jit
def combine_kernel(
    dz, x, dx, mu, inv, weight, bias, scale, q, r, channels, size, stride_n, stride_c, stride_d, limit: tl.constexpr,
    affine: tl.constexpr, scaling: tl.constexpr, clamping: tl.constexpr, acc: tl.constexpr,
    block_c: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """The gradient of x."""
    n = tl.program_id(0)
    c = tl.program_id(1) * block_c + tl.arange(0, block_c)
    known = c < channels
    at = n * channels + c
    w, b = _affine_of(weight, bias, scale, n, c, known, affine, scaling, acc)
    centre = tl.load(mu + at, mask=known, other=0.0)[:, None]
    p = (w * tl.load(inv + at, mask=known, other=0.0))[:, None]
    slope = tl.load(q + at, mask=known, other=0.0)[:, None]
    shift = tl.load(r + at, mask=known, other=0.0)[:, None]
    for start in range(0, size, block_d):
        d = start + tl.arange(0, block_d)
        values, inside, offsets = _load_rows(x, n, c, d, stride_n, stride_c, stride_d, channels, size, acc)
        gradient = tl.load(dz + offsets, mask=inside, other=0.0).to(acc)
        values = values - centre
        if clamping:
            gradient = tl.where(tl.abs(values * p + b[:, None]) < limit, gradient, 0.0)
        out = p * gradient + slope * values + shift
        tl.store(dx + offsets, out.to(dx.dtype.element_ty), mask=inside)
