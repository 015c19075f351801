"""Online normalisation on a GPU: eight kernel launches per layer and step with layer scaling, six without.

Same semantics as ``online_math``, which is its reference and stands in wherever Triton is missing.
Not yet timed on a GPU.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from baselines.norms.online_math import Kept, Settings

#: Rows of the tile that a stream kernel scans at once; longer batches carry the state over.
CHUNK = 256


def uses_triton(x: Tensor) -> bool:
    """Whether the kernels take this activation: on CUDA, where Triton is there, unless BENCH_TRITON=0.

    Under TRITON_INTERPRET=1 (Triton's interpreter, for tests) also on the CPU.
    """
    if torch.compiler.is_compiling() or type(x).__name__ == "FakeTensor" or not _has_triton():
        return False
    return x.is_cuda or (_interpreting() and x.device.type == "cpu")


@cache
def _has_triton() -> bool:
    return os.environ.get("BENCH_TRITON", "1") != "0" and importlib.util.find_spec("triton") is not None


@cache
def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def track(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, m: Tensor, var: Tensor, settings: Settings
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]]:
    """As ``online_math.track``, but moves m and var in place and takes the parameters in their own dtype.

    The second result are the fields of ``online_math.Kept``.
    """
    from baselines.norms import online_kernels as kernels

    acc, n, c = _acc(x), x.shape[0], x.shape[1]
    mean, variance, mu, inv, y_mean, y_var = _rows(x, 6)
    scaling, affine = settings.ecm == "ls", gamma is not None
    square = torch.empty_like(mean) if scaling else mean
    scale = torch.empty(n, 1, dtype=mean.dtype, device=x.device) if scaling else None
    nothing = mean  # a pointer for what the kernels are told not to look at
    weight, bias = (nothing, nothing) if gamma is None or beta is None else (gamma, beta)
    z = torch.empty_like(x)
    shape = _shape(x)
    with _on(x):
        kernels.moments_kernel[_row_grid(x)](x, mean, variance, *shape, acc=acc, **_row_blocks(x))
        kernels.track_kernel[_stream_grid(x)](
            mean, variance, weight, bias, m, var, mu, inv, y_mean, y_var, square, n, c, settings.afwd, settings.eps,
            affine=affine, scaling=scaling, acc=_double(), **_stream_blocks(x),
        )  # fmt: skip
        if scaling:
            kernels.layer_scale_kernel[(n,)](square, scale, c, settings.ls_eps, acc=acc, block_c=_power(c, 1024))
        kernels.apply_kernel[_row_grid(x)](
            x, z, mu, inv, weight, bias, nothing if scale is None else scale, *shape, settings.clamp_val,
            affine=affine, scaling=scaling, clamping=settings.ecm == "ac", acc=acc, **_row_blocks(x),
        )  # fmt: skip
    return z, (mu, inv, y_mean, y_var, scale)


def control(
    dz: Tensor,
    x: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    u: Tensor,
    v: Tensor,
    kept: Kept,
    settings: Settings,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """As ``online_math.control``, but moves u and v in place. dz has the strides of x."""
    from baselines.norms import online_kernels as kernels

    acc, n, c = _acc(x), x.shape[0], x.shape[1]
    mu, inv, y_mean, y_var, scale = kept
    g_y, g_1, q, r = _rows(x, 4)
    scaling, clamping, affine = scale is not None, settings.ecm == "ac", gamma is not None
    nothing = g_y  # a pointer for what the kernels are told not to look at
    scales, pull = (nothing, nothing) if scale is None else (scale, torch.empty_like(scale))
    weight, bias = (nothing, nothing) if gamma is None or beta is None else (gamma, beta)
    d_weight, d_bias = (None, None) if gamma is None else (torch.empty_like(gamma), torch.empty_like(gamma))
    dx = torch.empty_like(x)
    shape = _shape(x)
    with _on(x):
        kernels.sums_kernel[_row_grid(x)](
            dz, x, g_y, g_1, mu, inv, weight, bias, *shape, settings.clamp_val,
            affine=affine, clamping=clamping, acc=acc, **_row_blocks(x),
        )  # fmt: skip
        if scaling:
            kernels.pull_kernel[(n,)](
                g_y, g_1, weight, bias, scales, pull, c, affine=affine, acc=acc, block_c=_power(c, 1024)
            )
        kernels.control_kernel[_stream_grid(x)](
            g_y, g_1, inv, y_mean, y_var, weight, bias, scales, pull, u, v, q, r,
            nothing if d_weight is None else d_weight, nothing if d_bias is None else d_bias,
            n, c, shape[1], settings.abkw,
            affine=affine, scaling=scaling, acc=acc, **_stream_blocks(x),
        )  # fmt: skip
        kernels.combine_kernel[_row_grid(x)](
            dz, x, dx, mu, inv, weight, bias, scales, q, r, *shape, settings.clamp_val,
            affine=affine, scaling=scaling, clamping=clamping, acc=acc, **_row_blocks(x),
        )  # fmt: skip
    return dx, d_weight, d_bias


def scan(coefficients: Tensor | float, inputs: Tensor, start: Tensor) -> Tensor:
    """``online_scan.scan`` in one launch."""
    from baselines.norms import online_kernels as kernels

    inputs = inputs.contiguous()
    n, c = inputs.shape
    states = inputs.new_empty(n + 1, c)
    varying = isinstance(coefficients, Tensor)
    with _on(inputs):
        kernels.scan_kernel[_stream_grid(inputs)](
            coefficients.contiguous() if isinstance(coefficients, Tensor) else inputs, inputs, start.contiguous(),
            states, n, c, 0.0 if isinstance(coefficients, Tensor) else coefficients,
            varying=varying, acc=_acc(inputs), **_stream_blocks(inputs),
        )  # fmt: skip
    return states


def _acc(x: Tensor) -> Any:
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _double() -> Any:
    import triton.language as tl

    return tl.float64


def _rows(x: Tensor, count: int) -> tuple[Tensor, ...]:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.empty(count, x.shape[0], x.shape[1], dtype=dtype, device=x.device).unbind(0)


def _shape(x: Tensor) -> tuple[int, int, int, int, int]:
    """channels, positions, and the strides of sample, channel and position."""
    channels = x.shape[1]
    size = x[0, 0].numel()
    if x.is_contiguous():
        return channels, size, channels * size, size, 1
    return channels, size, channels * size, 1, channels


def _power(length: int, largest: int) -> int:
    return min(1 << max(0, length - 1).bit_length(), largest)


def _row_blocks(x: Tensor) -> dict[str, int]:
    """Tiles of about 2,048 elements, long along the dimension that lies densely."""
    channels, size, _, _, stride_d = _shape(x)
    if stride_d == 1:
        block_d = _power(size, 1024)
        return {"block_c": _power(channels, max(1, 2048 // block_d)), "block_d": block_d}
    block_c = _power(channels, 128)
    return {"block_c": block_c, "block_d": _power(size, max(1, 2048 // block_c))}


def _row_grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0], -(-x.shape[1] // _row_blocks(x)["block_c"])


def _stream_blocks(x: Tensor) -> dict[str, int]:
    return {"rows": _power(x.shape[0], CHUNK), "block_c": 2}


def _stream_grid(x: Tensor) -> tuple[int]:
    return (-(-x.shape[1] // _stream_blocks(x)["block_c"]),)


def _on(x: Tensor) -> Any:
    """Launch on the device of x, whatever the current one is."""
    return torch.cuda.device(x.device) if x.is_cuda else torch.autograd.profiler.record_function("online_norm")
