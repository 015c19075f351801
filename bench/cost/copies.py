"""Copies of a module whose tensors lie somewhere else, without copying data that is not needed."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from bench.errors import CostError

__all__ = ["copy_with", "quietly", "tensors_in"]

_Module = TypeVar("_Module", bound=nn.Module)


def copy_with(module: _Module, place: Callable[[Tensor], Tensor]) -> _Module:
    """A copy of the module with ``place(tensor)`` for every tensor that it holds; ties stay ties.

    place gets parameters, buffers and plain tensors in attributes, and may return the tensor itself to share
    it. What it returns for a parameter becomes a parameter.
    """
    placed: dict[int, Any] = {}
    for part in module.modules():
        for tensor in tensors_in(list(vars(part).values())):
            if id(tensor) in placed:
                continue
            if nn.parameter.is_lazy(tensor):
                raise CostError("has lazy parameters that no data has reached yet; run it once before counting")
            there = place(tensor)
            if isinstance(tensor, nn.Parameter) and there is not tensor:
                there = nn.Parameter(there, requires_grad=tensor.requires_grad)
            placed[id(tensor)] = there
    return copy.deepcopy(module, placed)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor inside nested lists, tuples, dicts and plain objects with fields, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        for name in value.__dataclass_fields__:
            yield from tensors_in(getattr(value, name))


@contextmanager
def quietly(*loggers: str) -> Iterator[None]:
    """No warnings, and nothing from these loggers: what goes wrong here is raised."""
    talking = [(logger := logging.getLogger(name), logger.disabled) for name in loggers]
    for logger, _ in talking:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in talking:
            logger.disabled = disabled
