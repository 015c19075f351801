"""Which units a walk runs, and how often: seen by hooks while it is walked with one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from bench.errors import CostError
from bench.nouns import Unit
from bench.walking import Tally, Walk, everybody, telling

__all__ = ["Tracer", "evaluating", "like"]

class Tracer(Tally):
    """Sees the outermost modules that walks through ``network`` call, what with and how often.

    shape: of an image. Walks get a blank one, in evaluation mode, on the network's own device, which may be meta. (A
    copy on meta tensors would touch no data, but their batch norm is written in Python: a ResNet-110 takes 15 times
    as long, a ResNet-50 for 224 pixels no less.)
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__(tracing=True)
        self._network = network
        self._shape = shape
        self._counts: Counter[str] = Counter()
        self._called: dict[str, tuple[nn.Module, list[Tensor]]] = {}
        self._names = {module: name or "network" for name, module in network.named_modules()}
        self._outermost: nn.Module | None = None
        self._behind_gate: nn.Module | None = None

    def follow(self, start: Callable[[Tensor], Walk]) -> list[Counter[str]]:
        """Walk once. Returns how often each unit had run by each answer; what runs behind gates is left out."""
        example = like(self._network)
        device = "cpu" if example.is_meta else example.device.type
        self._counts.clear()
        # Whoever asks first may be under autocast or in inference mode; examples of inputs are to be ordinary tensors.
        with (evaluating(self._network), torch.inference_mode(False), torch.no_grad(),
              torch.autocast(device, enabled=False), self._watch()):  # fmt: skip
            image = torch.zeros(1, *self._shape, dtype=example.dtype, device=example.device)
            return [Counter(self._counts) for _ in everybody(start(image))]

    def gate(self, module: nn.Module, rows: Tensor) -> bool:
        self._behind_gate = module
        return True

    @contextmanager
    def _watch(self) -> Iterator[None]:
        hooks = register_module_forward_pre_hook(self._before), register_module_forward_hook(self._after)
        try:
            with telling(self):
                yield
        finally:
            self._outermost = None
            for hook in hooks:
                hook.remove()

    def units(self) -> list[Unit]:
        """What was called, in the order in which the network holds it."""

        def order(called: tuple[nn.Module, list[Tensor]]) -> int:
            return min((place[part] for part in called[0].modules() if part in place), default=len(place))

        place = {module: number for number, module in enumerate(self._names)}
        return [
            Unit(self._name(module), module, tuple(inputs), vars(module).get("unit_costs", {}))
            for module, inputs in sorted(self._called.values(), key=order)
        ]

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._outermost is not None or isinstance(module, nn.Identity) or _holds_units(module):
            return
        self._outermost = module
        name, tensors = self._name(module), [torch.zeros_like(x) for x in inputs if isinstance(x, Tensor)]
        known = self._called.setdefault(name, (module, tensors))[1]
        if [x.shape for x in tensors] != [x.shape for x in known]:
            raise CostError(f"unit '{name}' is called with inputs of different shapes, which differ in cost")
        if module is not self._behind_gate:  # decisions tell how often that one runs
            self._counts[name] += 1
        self._behind_gate = None

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module is self._outermost:
            self._outermost = None

    def _name(self, module: nn.Module) -> str:
        name = vars(module).get("unit_name") or self._names.get(module)
        if name is None:
            raise CostError(f"walk calls a {type(module).__name__} that is not part of the network; give it a name: "
                            "bench.walking.piece(NAME, module)")  # fmt: skip
        return name


def _holds_units(module: nn.Module) -> bool:
    return any("unit_name" in vars(part) for part in module.modules() if part is not module)


def like(model: nn.Module) -> Tensor:
    """A tensor of the network's kind and place."""
    return next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode; the mode of every module is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
