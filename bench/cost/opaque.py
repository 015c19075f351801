"""Modules that say themselves what they cost, because their trace is opaque or not what they would run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.cost.copies import tensors_in
from bench.cost.table import COLUMNS
from bench.errors import CostError

__all__ = ["ModuleCosts", "register_module_cost"]

ModuleCost = Callable[[Any, tuple[Any, ...], Any], Mapping[str, int]]
_F = TypeVar("_F", bound=ModuleCost)
MODULE_COSTS: dict[type[nn.Module], ModuleCost] = {}


def register_module_cost(kind: type[nn.Module]) -> Callable[[_F], _F]:
    """Decorator: the function says what one call of such a module costs, and its inside is not looked at.

    The function gets (module, inputs, output) of the call in evaluation mode and returns integers for some
    of the columns ``macs``, ``macs_elementwise``, ``macs_fvcore``. A missing column is 0, but a missing
    ``macs_fvcore`` is ``macs``. Subclasses share the rule of their nearest registered parent. The second
    counter skips these modules, so what is said here is taken on trust: test it.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise CostError(f"register_module_cost takes a module class, not {kind!r}")

    def register(function: _F) -> _F:
        MODULE_COSTS[kind] = function
        return function

    return register


class _Opaque(torch.autograd.Function):
    """Runs a closure that the tracer sees as one operation from its tensors to its results."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], Any], *tensors: Tensor) -> Any:
        return run()


@dataclass
class ModuleCosts:
    """What registered modules said while a network ran, and what a second counter saw inside them."""

    said: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    hidden_flops: int = 0
    counter: FlopCounterMode | None = None
    inside: bool = False

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[ModuleCosts]:
        """While this is open, registered modules inside ``network`` report instead of being traced."""
        watched = [(module, rule) for module in network.modules() if (rule := _rule_for(module))]
        for module, rule in watched:
            module.forward = self._wrap(module, rule)  # type: ignore[method-assign]
        try:
            yield self
        finally:
            for module, _ in watched:
                del module.forward

    def _wrap(self, module: nn.Module, rule: ModuleCost) -> Callable[..., Any]:
        forward = module.forward

        def report(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return forward(*args, **kwargs)

            def run() -> Any:
                before = self._flops()
                self.inside = True
                try:
                    with _untraced():
                        output = forward(*args, **kwargs)
                        self._add(module, rule(module, args, output))
                        # a function may not hand its argument through
                        return _map_tensors(output, torch.clone)
                finally:
                    self.inside = False
                    self.hidden_flops += self._flops() - before

            return _Opaque.apply(run, *tensors_in((args, kwargs)))

        return report

    def _flops(self) -> int:
        return self.counter.get_total_flops() if self.counter is not None else 0

    def _add(self, module: nn.Module, cost: Mapping[str, int]) -> None:
        unknown = set(cost) - set(COLUMNS)
        bad = [column for column, value in cost.items() if not isinstance(value, int) or value < 0]
        if unknown or bad:
            raise CostError(
                f"the cost rule of {type(module).__name__} returned {dict(cost)}; it returns non-negative "
                f"integers for some of {', '.join(COLUMNS)}"
            )
        for column in COLUMNS:
            default = cost.get("macs", 0) if column == "macs_fvcore" else 0
            self.said[column] += cost.get(column, default)


@contextmanager
def _untraced() -> Iterator[None]:
    """While a trace is taken, sizes are tensors; inside of a registered module they are numbers again."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def _rule_for(module: nn.Module) -> ModuleCost | None:
    return next((MODULE_COSTS[kind] for kind in type(module).__mro__ if kind in MODULE_COSTS), None)


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return tuple(_map_tensors(item, function) for item in value)
    raise CostError(f"a module with a registered cost returns tensors, not {type(value).__name__}")
