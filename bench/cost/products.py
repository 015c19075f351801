"""Multiply-accumulates of the operations that are products: the headline column.

Every function takes the traced call and returns an exact integer. The addition that belongs to a product
(the bias of a convolution or linear layer, the first argument of addmm) costs nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from bench.cost.opcall import OpCall, Shape
from bench.errors import CostError

__all__ = ["PRODUCTS"]

Handler = Callable[[OpCall], int]


def convolution(call: OpCall) -> int:
    """Every weight meets every output pixel once; transposed: every input pixel."""
    kernel = call.shape(1)
    transposed = call.name == "aten::_convolution" and bool(call.constant(6))
    image = call.shape(0) if transposed else call.outputs[0]
    sides = len(kernel) - 2
    return prod(image[: -sides - 1]) * prod(kernel) * prod(image[-sides:])


def linear(call: OpCall) -> int:
    rows = prod(call.shape(0)[:-1])
    return rows * prod(call.shape(1))


def matmul(call: OpCall) -> int:
    """mm, bmm, mv, dot, matmul with broadcasting: each output element is a sum over the shared side."""
    return call.size_out() * call.shape(0)[-1]


def add_matmul(call: OpCall) -> int:
    """addmm, baddbmm, addmv: the second and third argument are multiplied."""
    return call.size_out() * call.shape(1)[-1]


def add_sum_of_products(call: OpCall) -> int:
    """addbmm: a batch of products, summed."""
    return prod(call.shape(1)) * call.shape(2)[-1]


def tensordot(call: OpCall) -> int:
    left, right = call.shape(0), call.shape(1)
    return prod(left) * prod(right) // prod(left[axis] for axis in call.constant(2))


def einsum(call: OpCall) -> int:
    """The contractions, two operands at a time in the order that torch takes them."""
    return _contract(call)[0]


def einsum_elementwise(call: OpCall) -> int:
    """Steps that multiply two operands without summing over anything."""
    return _contract(call)[1]


def _contract(call: OpCall) -> tuple[int, int]:
    """Multiply-accumulates of the steps that sum, and multiplications of those that do not.

    torch works from left to right, or along a path that it was given (opt_einsum), where a result goes to the
    end of the list. What only one operand has and nobody needs is summed out before the product.
    """
    shapes = call.tensors(1)
    terms, result = _labels(call.constant(0), shapes)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes):
        for label, side in zip(term, shape):
            sizes[label] = max(sizes.get(label, 1), side)
    path = call.constant(2) if len(call.inputs) > 2 else None
    steps = list(zip(path[::2], path[1::2])) if path else [(0, 1)] * (len(terms) - 1)
    summing = multiplying = 0
    for i, j in steps:
        left, right = set(terms[i]), set(terms[j])
        terms = [term for k, term in enumerate(terms) if k not in (i, j)]
        needed = set(result).union(*terms)
        shared = (left & right) - needed
        kept = (left | right) & needed
        size = prod(sizes[label] for label in kept | shared)
        summing, multiplying = summing + size * bool(shared), multiplying + size * (not shared)
        terms.insert(len(terms) if path else 0, "".join(sorted(kept)))
    return summing, multiplying


def _labels(equation: str, shapes: list[Shape]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, with ``...`` spelt out as private-use characters."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise CostError(f"einsum equation '{equation}' has {len(terms)} operands, not {len(shapes)}")
    hidden = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes)]
    most = max((n for term, n in zip(terms, hidden) if "..." in term), default=0)
    extra = "".join(chr(0xE000 + k) for k in range(most))
    spelt = [term.replace("...", extra[most - n :] if n else "") for term, n in zip(terms, hidden)]
    if not arrow:
        flat = "".join(terms).replace("...", "")
        result = ("..." if most else "") + "".join(sorted(c for c in set(flat) if flat.count(c) == 1))
    return spelt, result.replace("...", extra)


def attention(call: OpCall) -> int:
    """Query times key, and weights times value."""
    return _scores(call) * (call.shape(0)[-1] + call.shape(2)[-1])


def attention_elementwise(call: OpCall) -> int:
    """Scaling of the query, softmax, and the mask where there is one: each one per element."""
    masked = call.inputs[3] is not None or bool(call.constant(5))
    return prod(call.shape(0)) + _scores(call) * (2 if masked else 1)


def _scores(call: OpCall) -> int:
    return prod(call.outputs[0][:-1]) * call.shape(1)[-2]


def recurrent(call: OpCall) -> int:
    """lstm, gru, rnn: every weight matrix of every layer and direction meets every step of every sample."""
    return _steps(call) * sum(prod(shape) for shape in _weights(call) if len(shape) == 2)


def recurrent_elementwise(per_unit: int, gates: int) -> Handler:
    """per_unit: operations per hidden unit and step, as the cell spells them out in plain operations."""

    def handler(call: OpCall) -> int:
        weights = _weights(call)
        rows = weights[0][0]
        # input and hidden weights both have a row for each gate of each unit; a projection has fewer
        cells = sum(len(shape) == 2 and shape[0] == rows for shape in weights) // 2
        return _steps(call) * cells * per_unit * (rows // gates)

    return handler


def _steps(call: OpCall) -> int:
    """Time steps times samples; a packed sequence comes with both in one axis."""
    return prod(call.shape(0)[:-1])


def _weights(call: OpCall) -> list[Shape]:
    for index in range(1, len(call.inputs)):
        if call.is_tensor_list(index) and any(len(shape) == 2 for shape in call.tensors(index)):
            return call.tensors(index)
    raise CostError(f"{call.name}: no list of weights among its arguments")


#: operation -> (multiply-accumulates, elementwise work besides them or None).
#: An LSTM cell adds its two products (4 per unit), takes four gates and one tanh (5), multiplies three
#: times and adds once (4); a GRU: 3 gates, 2 + 2 + 3 other; a plain cell: one addition, one activation.
PRODUCTS: dict[str, tuple[Handler, Handler | None]] = {
    "aten::_convolution": (convolution, None),
    "aten::_convolution_mode": (convolution, None),
    "aten::linear": (linear, None),
    "aten::mm": (matmul, None),
    "aten::bmm": (matmul, None),
    "aten::matmul": (matmul, None),
    "aten::mv": (matmul, None),
    "aten::dot": (matmul, None),
    "aten::addmm": (add_matmul, None),
    "aten::baddbmm": (add_matmul, None),
    "aten::addmv": (add_matmul, None),
    "aten::addbmm": (add_sum_of_products, None),
    "aten::tensordot": (tensordot, None),
    "aten::einsum": (einsum, einsum_elementwise),
    "aten::scaled_dot_product_attention": (attention, attention_elementwise),
    "aten::lstm": (recurrent, recurrent_elementwise(13, gates=4)),
    "aten::gru": (recurrent, recurrent_elementwise(10, gates=3)),
    "aten::rnn_tanh": (recurrent, recurrent_elementwise(2, gates=1)),
    "aten::rnn_relu": (recurrent, recurrent_elementwise(2, gates=1)),
}
