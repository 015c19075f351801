"""First-order linear recurrences along the batch, for all channels at once.

    s_n = a_n * s_{n-1} + b_n,   n = 1..N

The four streams of online normalisation are such recurrences, so that a batch needs no loop over its
samples although sample n sees what samples 1..n-1 left behind. Ever longer stretches of affine steps are
combined, which is exact (up to rounding) for coefficients of any sign and size. Products of coefficients or
their logarithms, the textbook way, are wrong where a coefficient is zero or negative, which the control loop
of the backward pass does reach; a matrix of decays would be at the mercy of TF32 and autocast.

Tensors or, on the CPU, NumPy arrays: at [N, C] the time goes into calling, not into computing.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from baselines.norms import online_triton

#: A tensor or an array; all of the same kind in one call.
Array: TypeAlias = Any


def scan(coefficients: Array | float, inputs: Array, start: Array) -> Array:
    """States of ``s_n = coefficients_n * s_{n-1} + inputs_n``.

    coefficients: [N, C], or one number; inputs: [N, C]; start: s_0, [C]; all of one floating dtype.
    Returns [N + 1, C]: row n is the state after n samples, so rows 0..N-1 are what each sample sees and
    row N is what the next batch starts from.
    """
    if isinstance(inputs, Tensor) and torch.compiler.is_compiling():
        if inputs.device.type == "cpu":
            return _scan_in_graph(coefficients, inputs, start)
        if isinstance(coefficients, Tensor):
            return _scan_varying(coefficients, inputs, start)
        return _scan_constant(coefficients, inputs, start)
    return _scan_here(coefficients, inputs, start)


def _scan_here(coefficients: Array | float, inputs: Array, start: Array) -> Array:
    """The fastest way for where the data is."""
    if isinstance(inputs, Tensor) and not isinstance(inputs, FakeTensor):
        if inputs.device.type == "cpu":
            arrays = (t.numpy() if isinstance(t, Tensor) else t for t in (coefficients, inputs, start))
            return torch.from_numpy(_scan(*arrays))
        if online_triton.uses_triton(inputs):
            return online_triton.scan(coefficients, inputs, start)
    return _scan(coefficients, inputs, start)


def _scan(coefficients: Array | float, inputs: Array, start: Array) -> Array:
    # Hillis and Steele 1986. Before the pass with distance d, row n stands for the affine steps n-d+1..n
    # together; it takes in row n-d, which stands for the d steps before.
    n, c = inputs.shape
    arrays = isinstance(inputs, np.ndarray)
    states = np.empty((n + 1, c), inputs.dtype) if arrays else inputs.new_empty(n + 1, c)
    states[0], states[1:] = start, inputs
    a, distance = coefficients, 1
    while distance <= n:
        states[distance:] += a * states[:-distance]
        a = a * a if isinstance(a, float) else a[distance:] * a[:-distance]
        distance *= 2
    return states


def _scan_in_graph(coefficients: Tensor | float, inputs: Tensor, start: Tensor) -> Tensor:
    """``_scan`` for torch.compile on the CPU. Each ``cat`` becomes a buffer of its own; slices written in place,
    as above, would make one kernel that computes every pass again for every row."""
    states, a, distance = torch.cat((start[None], inputs)), coefficients, 1
    while distance < len(states):
        states = torch.cat((states[:distance], states[distance:] + a * states[:-distance]))
        a = a * a if isinstance(a, float) else a[distance:] * a[:-distance]
        distance *= 2
    return states


# On a GPU the passes would be as many launches; as operators of their own the scans stay one kernel each.
@torch.library.custom_op("depthbench::scan_varying", mutates_args=())
def _scan_varying(coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    return _scan_here(coefficients, inputs, start)


@torch.library.custom_op("depthbench::scan_constant", mutates_args=())
def _scan_constant(coefficient: float, inputs: Tensor, start: Tensor) -> Tensor:
    return _scan_here(coefficient, inputs, start)


@_scan_varying.register_fake
def _(coefficients: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    return inputs.new_empty(inputs.shape[0] + 1, inputs.shape[1])


@_scan_constant.register_fake
def _(coefficient: float, inputs: Tensor, start: Tensor) -> Tensor:
    return inputs.new_empty(inputs.shape[0] + 1, inputs.shape[1])
