"""One traced operation, as the rules that price it see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from bench.errors import CostError

__all__ = ["OpCall", "Shape"]

Shape = tuple[int, ...]

_FLOATING = ("Float", "Double", "Half", "BFloat16")


class OpCall:
    """An operation of the trace with the shapes that went in and came out.

    name: as in the trace, ``aten::add`` or ``prim::PythonOp.MyFunction``.
    inputs: one entry for each argument, None where the argument is no single tensor.
    outputs: one entry for each tensor that comes out, tuples flattened.
    """

    def __init__(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self.name = name
        self._inputs = list(inputs)
        self.inputs: list[Shape | None] = [_shape(value) for value in inputs]
        self._output_types = [kind for value in outputs for kind in _tensor_types(value.type())]
        self.outputs: list[Shape] = [self._complete(kind.sizes()) for kind in self._output_types]

    @property
    def floating(self) -> bool:
        """Whether the first result holds real numbers; integers and truth values are index arithmetic."""
        return bool(self._output_types) and self._output_types[0].scalarType() in _FLOATING

    def shape(self, index: int) -> Shape:
        """The shape of a tensor argument; CostError where it is none."""
        shape = self.inputs[index] if index < len(self.inputs) else None
        return self._complete(shape)

    def size_in(self) -> int:
        """Elements of the first argument."""
        return prod(self.shape(0))

    def size_out(self) -> int:
        """Elements of the first result."""
        if not self.outputs:
            raise CostError(f"{self.name} returns no tensor, so that nothing says what it costs")
        return prod(self.outputs[0])

    def constant(self, index: int) -> Any:
        """A number, string or truth value among the arguments; a list of integers as a list."""
        value = self._inputs[index]
        if value.node().kind() == "prim::ListConstruct":
            return [item.toIValue() for item in value.node().inputs()]
        return value.toIValue()

    def tensors(self, index: int) -> list[Shape]:
        """The shapes of an argument that is a list of tensors."""
        return [self._complete(_shape(item)) for item in self._inputs[index].node().inputs()]

    def is_tensor_list(self, index: int) -> bool:
        """Whether an argument is a list of tensors."""
        value = self._inputs[index]
        return value.node().kind() == "prim::ListConstruct" and str(value.type()) == "List[Tensor]"

    def _complete(self, shape: Sequence[int] | None) -> Shape:
        if shape is None or any(side is None for side in shape):
            raise CostError(f"{self.name}: the trace does not know a shape that its rule needs")
        return tuple(shape)


def _shape(value: Any) -> Shape | None:
    return tuple(value.type().sizes()) if value.isCompleteTensor() else None


def _tensor_types(kind: Any) -> Iterator[Any]:
    """Tensor types of one result; an autograd function returns its tensors as one tuple."""
    if kind.kind() == "TensorType":
        yield kind
    elif kind.kind() == "TupleType":
        for element in kind.elements():
            yield from _tensor_types(element)
