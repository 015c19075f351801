"""What each operation costs: one rule per operation of the trace, and the way to add one.

An operation is a product (headline column ``macs``), elementwise work (``macs_elementwise``) or free for a
stated reason. There is no default: an operation without a rule stops the count, because a network must not
look cheap only because the counter does not know it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.cost.opcall import OpCall
from bench.cost.products import PRODUCTS
from bench.errors import CostError

__all__ = ["Rule", "find_rule", "register_elementwise", "register_free", "register_headline"]

Handler = Callable[[OpCall], int]
#: An operation of the trace: "aten::relu", "mylib::op", or a torch.autograd.Function class.
OpName = str | type[torch.autograd.Function]


@dataclass(frozen=True)
class Rule:
    """macs and elementwise: what one call costs in each column, None for nothing. by_fvcore: elementwise work
    that fvcore's own handler weighs, and that ``macs_fvcore`` contains too. reason: why it costs nothing."""

    macs: Handler | None = None
    elementwise: Handler | None = None
    by_fvcore: bool = False
    reason: str | None = None


def per_output(call: OpCall) -> int:
    """One for each element of the first result; integers and truth values are index arithmetic."""
    return call.size_out() if call.floating else 0


def per_input(call: OpCall) -> int:
    """One for each element of the first argument: pooling and reductions (fvcore's rule for global pooling)."""
    return call.size_in()


def rms_norm(call: OpCall) -> int:
    """A layer norm without a mean to take and subtract: 4 per element with a weight, else 3."""
    return call.size_in() * (3 + (call.inputs[2] is not None))


_PER_OUTPUT = """
add sub rsub mul div true_divide neg abs pow square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p
sin cos erf atan sign floor ceil round trunc frac fmod maximum minimum lerp addcmul addcdiv where masked_fill
sigmoid log_sigmoid tanh relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh
softplus softsign prelu glu threshold clamp clamp_min clamp_max softmax log_softmax cumsum cumprod outer
"""
_PER_INPUT = """
mean sum prod max min amax amin argmax argmin logsumexp var std var_mean std_mean norm linalg_vector_norm
topk sort argsort max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d
adaptive_avg_pool1d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
"""
#: fvcore has its own handler for these, and it is the convention of this column too.
_BY_FVCORE = """
batch_norm group_norm layer_norm instance_norm adaptive_avg_pool2d upsample_nearest2d upsample_bilinear2d
grid_sampler
"""
_FREE = {
    "moves or views data, computes nothing": """
        view view_as reshape reshape_as flatten unflatten ravel permute transpose t numpy_T mT movedim
        moveaxis swapaxes swapdims squeeze unsqueeze select slice narrow diagonal expand expand_as contiguous
        clone copy cat concat stack hstack vstack chunk split split_with_sizes unsafe_chunk unsafe_split
        tensor_split unbind pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d
        replication_pad2d roll flip index index_select index_put gather take_along_dim scatter repeat
        repeat_interleave tile unfold im2col channel_shuffle pixel_shuffle pixel_unshuffle detach alias
        as_strided embedding lift_fresh resolve_conj meshgrid broadcast_tensors broadcast_to tril triu
    """,
    "changes the type or the device only": "to type_as _to_copy float half double bfloat16 requires_grad",
    "makes a constant": """
        zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty
        scalar_tensor tensor arange linspace eye zero fill
    """,
    "arithmetic on shapes, indices and truth values": """
        size sym_size dim len numel Int Bool Float IntImplicit FloatImplicit ScalarImplicit item is_nonzero
        floor_divide remainder eq ne lt gt le ge __and__ __or__ __xor__ __not__ __is__ __isnot__ __getitem__
        logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor nonzero
        any all isnan isinf isfinite one_hot sym_numel
    """,
    "identity in evaluation mode": "dropout feature_dropout alpha_dropout feature_alpha_dropout",
}
#: Bookkeeping of the trace itself. Blocks (prim::If, prim::Loop) are not in it: a scripted module hides work.
_FREE_PRIMS = """
Constant ListConstruct ListUnpack TupleConstruct TupleUnpack TupleIndex DictConstruct NumToTensor GetAttr
device dtype layout ImplicitTensorToNum min max unchecked_cast
"""


def _builtin_rules() -> dict[str, Rule]:
    rules = {name: Rule(*handlers) for name, handlers in PRODUCTS.items()}
    rules |= {f"aten::{name}": Rule(elementwise=per_output) for name in _PER_OUTPUT.split()}
    rules |= {f"aten::{name}": Rule(elementwise=per_input) for name in _PER_INPUT.split()}
    rules |= {f"aten::{name}": Rule(by_fvcore=True) for name in _BY_FVCORE.split()}
    rules["aten::rms_norm"] = Rule(elementwise=rms_norm)
    for reason, names in _FREE.items():
        rules |= {f"aten::{name}": Rule(reason=reason) for name in names.split()}
    rules |= {f"prim::{name}": Rule(reason="bookkeeping of the trace") for name in _FREE_PRIMS.split()}
    return rules


RULES: dict[str, Rule] = _builtin_rules()


def find_rule(name: str) -> Rule | None:
    """The rule of an operation; its in-place form (trailing underscore) shares it."""
    rule = RULES.get(name)
    if rule is None and name.endswith("_") and not name.endswith("__"):
        rule = RULES.get(name[:-1])
    return rule


def register_headline(
    op: OpName, macs: Handler, elementwise: Handler | None = None, *, replace: bool = False
) -> None:
    """Say how many multiply-accumulates an operation costs: a product, as convolutions are.

    op: its name in the trace ("mylib::op"), or a torch.autograd.Function class. macs: from the traced call
    (``call.inputs``, ``call.outputs``: shapes) to an integer. elementwise: what it costs besides.
    The second counter must find the same number: a ``torch.library`` operation needs its formula there too
    (``torch.utils.flop_counter.register_flop_formula``; FLOPs, that is twice the MACs).
    Raises CostError where the operation has a rule and ``replace`` is not set.
    """
    _register(op, Rule(macs, elementwise), replace)


def register_elementwise(op: OpName, cost: Handler | None = None, *, replace: bool = False) -> None:
    """Say what an operation costs that is no product; without ``cost``: one per element of its first result."""
    _register(op, Rule(elementwise=cost or per_output), replace)


def register_free(op: OpName, reason: str, *, replace: bool = False) -> None:
    """Put an operation on the list of those that cost nothing, with the reason."""
    if not reason.strip():
        raise CostError(f"{op}: an operation is free for a reason; give it")
    _register(op, Rule(reason=reason), replace)


def _register(op: OpName, rule: Rule, replace: bool) -> None:
    name = op if isinstance(op, str) else f"prim::PythonOp.{op.__name__}"
    if "::" not in name:
        raise CostError(f"'{name}' is no operation of a trace; give it as 'aten::{name}' or with its own library")
    if name in RULES and not replace:
        raise CostError(f"{name} has a rule already; pass replace=True to put another in its place")
    RULES[name] = rule
