"""First-order linear recurrences along the batch, for all channels at once.

    s_n = a_n * s_{n-1} + b_n,   n = 1..N

The four streams of online normalisation are such recurrences, so that a batch needs no loop over its
samples although sample n sees what samples 1..n-1 left behind. ``scan_constant`` has one decay for all n
and is one small matrix product; ``scan_varying`` has a coefficient per sample and channel, of any sign and
size, and combines neighbours in a tree. (Products of coefficients and logarithms, the textbook way, are
wrong where a coefficient is zero or negative, which the control loop of the backward pass does reach.)
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

#: Longest run of samples that one decay matrix covers; longer batches carry the state over.
CHUNK = 256
#: Up to this many rows a plain loop takes fewer steps than a tree.
LOOP = 8


def scan_constant(inputs: Tensor, start: Tensor, decay: float, gain: float) -> Tensor:
    """States of ``s_n = decay * s_{n-1} + gain * inputs_n``.

    inputs: [N, C]; start: s_0, [C]; both of one floating dtype. Returns [N + 1, C]: row n is the state after
    n samples, so rows 0..N-1 are what each sample sees and row N is what the next batch starts from.
    """
    if torch.compiler.is_compiling():
        return _scan_constant_op(inputs, start, decay, gain)
    return _scan_constant(inputs, start, decay, gain)


def scan_varying(coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    """States of ``s_n = coefficients_n * s_{n-1} + inputs_n``; shapes and result as in ``scan_constant``.

    Both [N, C]. Exact (up to rounding) for every coefficient, zero and below -1 included.
    """
    if torch.compiler.is_compiling():
        return _scan_varying_op(coefficients, inputs, start)
    return _scan_varying(coefficients, inputs, start)


def _scan_constant(inputs: Tensor, start: Tensor, decay: float, gain: float) -> Tensor:
    dtype = torch.float64 if _reduced_precision(inputs.device) else inputs.dtype
    if len(inputs) <= CHUNK:
        return _decay_product(inputs, start, decay, gain, dtype)
    pieces, state = [], start
    for chunk in inputs.split(CHUNK):
        states = _decay_product(chunk, state, decay, gain, dtype)
        pieces.append(states[:-1])
        state = states[-1]
    return torch.cat([*pieces, state[None]])


def _reduced_precision(device: torch.device) -> bool:
    """Whether a float32 matrix product might be taken in TF32 or bfloat16.

    That would be felt in statistics that remember thousands of samples; double precision is out of its reach.
    """
    if device.type != "cpu" or torch.is_autocast_enabled(device.type):
        return True
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set through both of torch's interfaces, which then refuses to answer
        return True


def _decay_product(inputs: Tensor, start: Tensor, decay: float, gain: float, dtype: torch.dtype) -> Tensor:
    matrix = _decay_matrix(len(inputs), decay, gain, dtype, inputs.device)
    return (matrix @ torch.cat([start[None], inputs]).to(dtype)).to(inputs.dtype)


@lru_cache(maxsize=128)
def _decay_matrix(length: int, decay: float, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[N + 1, N + 1]: row t holds the weights of s_0 and of inputs 1..N in s_t. Powers are taken in float64."""
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training later
        steps = torch.arange(length + 1, dtype=torch.float64)
        matrix = torch.tensor(decay, dtype=torch.float64) ** (steps[:, None] - steps).clamp_min(0)
        matrix[:, 1:] *= gain
        return matrix.tril().to(dtype=dtype, device=device)


def _scan_varying(coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    states = torch.cat([start[None], inputs])
    states[1].addcmul_(coefficients[0], start)
    _combine(coefficients.clone(), states[1:])
    return states


def _combine(a: Tensor, b: Tensor) -> None:
    """Turn b into the states of ``s_n = a_n * s_{n-1} + b_n`` with s_0 = 0, in place; a is used up.

    Four neighbours become one affine step, the steps are scanned, the rest is filled in: about
    7 * log4(N) small operations.
    """
    length = len(b)
    if length <= LOOP:
        _loop(a, b)
        return
    whole = length // 4 * 4
    a_blocks, b_blocks = a[:whole].unflatten(0, (-1, 4)), b[:whole].unflatten(0, (-1, 4))
    a_rows, b_rows = a_blocks.unbind(1), b_blocks.unbind(1)
    for j in (1, 2, 3):
        b_rows[j].addcmul_(a_rows[j], b_rows[j - 1])
        a_rows[j].mul_(a_rows[j - 1])
    _combine(a_rows[3], b_rows[3])
    b_blocks[1:, :3].addcmul_(a_blocks[1:, :3], b_blocks[:-1, 3:])
    if whole < length:
        _loop(a[whole - 1 :], b[whole - 1 :])


def _loop(a: Tensor, b: Tensor) -> None:
    a_rows, b_rows = a.unbind(0), b.unbind(0)
    for n in range(1, len(b_rows)):
        b_rows[n].addcmul_(a_rows[n], b_rows[n - 1])


# torch.compile would unroll the tree into very long kernels; as operators of their own the scans stay the
# few small steps that they are, inside one graph.
@torch.library.custom_op("depthbench::scan_constant", mutates_args=())
def _scan_constant_op(inputs: Tensor, start: Tensor, decay: float, gain: float) -> Tensor:
    return _scan_constant(inputs, start, decay, gain)


@torch.library.custom_op("depthbench::scan_varying", mutates_args=())
def _scan_varying_op(coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    return _scan_varying(coefficients, inputs, start)


@_scan_constant_op.register_fake
def _(inputs: Tensor, start: Tensor, decay: float, gain: float) -> Tensor:
    return inputs.new_empty(inputs.shape[0] + 1, inputs.shape[1])


@_scan_varying_op.register_fake
def _(coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    return inputs.new_empty(inputs.shape[0] + 1, inputs.shape[1])
