"""What a method's ``walk`` is written with.

A walk is a generator over one batch: it yields logits [b, C] and is sent an index of the rows that go on. From it
the harness derives units and counts (``bench.tracing``), record and execution (``bench.walker``). A unit is what
the walk calls: each outermost module, named after its place in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

__all__ = ["EVERYBODY", "Tally", "Walk", "as_unit", "everybody", "note", "piece", "telling", "tracing", "where"]

#: Yields logits, is sent the rows that go on.
Walk = Generator[Tensor, Any, None]
#: Sent if all rows go on; as an index it copies nothing.
EVERYBODY = slice(None)

_Module = TypeVar("_Module", bound=nn.Module)


def as_unit(module: _Module, name: str = "", **extra_costs: float) -> _Module:
    """Make a nested module a unit of its own. Whatever holds it is not a unit then, but its other parts are.

    name: default, its place in the network. extra_costs: as in ``Unit``.
    """
    vars(module).update(unit_name=name, unit_costs=extra_costs)
    return module


def piece(name: str, *modules: nn.Module) -> nn.Sequential:
    """Modules in a row as one unit, for a walk through a network that does not hold them as one."""
    return as_unit(nn.Sequential(*modules), name)


def where(rows: Tensor, module: nn.Module, *inputs: Tensor, otherwise: Tensor, inplace: bool = False) -> Tensor:
    """``module(*inputs)`` for the images that ``rows`` (bool [b]) lets in, ``otherwise`` for the others.

    The module sees the open rows only, and whoever counts is told which they were. inplace: the result may
    overwrite ``otherwise``; for a tensor that nothing else reads, outside of autograd.
    """
    tally = _TALLY.get()
    if tally is not None and tally.gate(module, rows):
        return module(*inputs)
    if len(rows) == 1:
        return module(*inputs) if rows.item() else otherwise
    index = rows.nonzero().squeeze(1)  # the one wait for the device
    if len(index) == 0:
        return otherwise
    if len(index) == len(rows):
        return module(*inputs)
    kept = {id(x): x.index_select(0, index) for x in inputs}
    out = module(*(kept[id(x)] for x in inputs)).to(otherwise.dtype)
    return otherwise.index_copy_(0, index, out) if inplace else otherwise.index_copy(0, index, out)


def note(name: str, signal: Callable[[], Tensor]) -> None:
    """Add a signal [b] to the record. It is computed only while a record is made."""
    tally = _TALLY.get()
    if tally is not None and tally.recording:
        tally.signals[name] = signal()


def tracing() -> bool:
    """Whether units are being looked for. Work that a walk does without its modules must go through them then."""
    tally = _TALLY.get()
    return tally is not None and tally.tracing


def everybody(walk: Walk) -> Iterator[Tensor]:
    """All answers of a walk in which every image goes on to the end."""
    try:
        answer = next(walk)
        while True:
            yield answer
            answer = walk.send(EVERYBODY)
    except StopIteration:
        return


@dataclass
class Tally:
    """What a walk tells while it runs.

    gated: each module behind a gate, the rows it ran for (bool [b]), and which of the batch those b rows are (None:
    all of it). rows: of the images still there, set by whoever runs the walk.
    """

    recording: bool = False
    tracing: bool = False
    gated: list[tuple[nn.Module, Tensor, Tensor | None]] = field(default_factory=list)
    signals: dict[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None

    def gate(self, module: nn.Module, rows: Tensor) -> bool:
        """Take note of a gate's decision. Returns whether the module runs for every row all the same."""
        self.gated.append((module, rows, self.rows))
        return False


_TALLY: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextmanager
def telling(tally: Tally) -> Iterator[None]:
    """Walks tell this tally."""
    token = _TALLY.set(tally)
    try:
        yield
    finally:
        _TALLY.reset(token)
