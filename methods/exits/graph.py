"""A backbone as a graph: where one tensor alone is alive, what has been computed by there, and its parts.

The backbone is traced by torch.fx through its own modules, down to torch's. A *place* is a module after whose last
call nothing but what it returned is needed further on: there the network falls into two.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.cost.copies import copy_with, quietly
from bench.errors import ConfigError

__all__ = ["Backbone", "Place"]


#: Operations that overwrite their first argument, and what does not.
_OVERWRITING: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """After a module. index: of its node in the graph. macs: of an image up to here. shape: of what it returned for
    one image, [1, ...]."""

    name: str
    index: int
    macs: int
    shape: tuple[int, ...]


class _Tracer(fx.Tracer):
    """Remembers what each module returned. What depends on the mode, or cannot be traced, stays whole."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or _looks_at_its_mode(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path, before, stack = self.path_of_module(m), len(self.graph.nodes), self.module_stack.copy()
        try:
            returned = super().call_module(m, forward, args, kwargs)
        except Exception:  # control flow that depends on values, whatever a module of somebody else does
            self.module_stack = stack
            for node in reversed(list(self.graph.nodes)[before:]):
                self.graph.erase_node(node)
            returned = self.create_proxy("call_module", path, args, kwargs)
        if isinstance(returned, fx.Proxy):
            self.returned[path] = returned.node
        return returned


def _looks_at_its_mode(module: nn.Module) -> bool:
    """Whether forward reads ``self.training``, which a trace would freeze."""
    try:
        return "training" in inspect.getsource(type(module).forward)
    except (OSError, TypeError):
        return True


class Backbone:
    """A network, traced in evaluation mode.

    network: stays as it is, apart from activations that would overwrite what a head reads (``split``). side: of its
    square images; a network that refuses them is a ConfigError.
    """

    def __init__(self, network: nn.Module, name: str, side: int, channels: int = 3) -> None:
        self.network, self.name, self.side, self.channels = network, name, side, channels
        tracer, training = _Tracer(), network.training
        network.eval()
        try:
            self.graph = tracer.trace(network)
        except Exception as error:  # whatever the forward of somebody else's network does
            raise ConfigError(f"{name} cannot be cut: torch.fx cannot follow it ({_line(error)})") from None
        finally:
            network.train(training)
        self._returned = tracer.returned
        self.nodes = list(self.graph.nodes)
        self._index = {node: index for index, node in enumerate(self.nodes)}
        self._dependent = self._depend_on_images()
        self._shapes, self._macs = self._dry_pass()

    def _depend_on_images(self) -> set[fx.Node]:
        found: set[fx.Node] = set()
        for node in self.nodes:
            if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
                found.add(node)
        return found

    def _dry_pass(self) -> tuple[dict[fx.Node, tuple[int, ...]], list[int]]:
        """Shapes of tensors for two images, and MACs of one image up to each node, without touching data."""
        bare = copy_with(self.network, lambda tensor: tensor.detach().to("meta")).eval()
        shapes: dict[fx.Node, tuple[int, ...]] = {}
        macs: list[int] = []
        # Not torch's fused attention: on the meta device it hides its products.
        with quietly(), torch.no_grad(), FlopCounterMode(display=False) as counter:

            class Shapes(fx.Interpreter):
                def run_node(self, n: fx.Node) -> Any:
                    result = super().run_node(n)
                    if isinstance(result, Tensor):
                        shapes[n] = tuple(result.shape)
                    macs.append(counter.get_total_flops() // 4)
                    return result

            images = torch.empty(2, self.channels, self.side, self.side, device="meta")
            try:
                Shapes(bare, graph=self.graph).run(images)
            except Exception as error:  # whatever a network says to a size that it does not take
                raise ConfigError(f"{self.name} does not take images of {self.side} pixels: {_line(error)}") from None
        return shapes, macs

    @property
    def macs(self) -> int:
        """Of the whole network, for one image."""
        return self._macs[-1]

    # ---- places -----------------------------------------------------------------------------------
    def alive(self, index: int) -> list[fx.Node]:
        """What has been computed from the images by this node and is needed after it."""
        return [node for node in self.nodes[: index + 1] if node in self._dependent
                and any(self._index[user] > index for user in node.users)]  # fmt: skip

    @cached_property
    def _alone(self) -> set[fx.Node]:
        """Nodes after which nothing but their own tensor, one row an image, is alive."""
        last_use = {node: max((self._index[user] for user in node.users), default=-1) for node in self._dependent}
        found, alive = set(), set[fx.Node]()
        for index, node in enumerate(self.nodes):
            alive = {one for one in alive if last_use[one] > index}
            if node in self._dependent and last_use[node] > index:
                alive.add(node)
            if alive == {node} and self._shapes.get(node, (0,))[0] == 2:
                found.add(node)
        return found

    @cached_property
    def places(self) -> dict[str, Place]:
        """Every place by the module's name, in the order in which they are reached."""
        found = [
            Place(name, self._index[node], self._macs[self._index[node]], (1, *self._shapes[node][1:]))
            for name, node in self._returned.items()
            if name and node in self._alone
        ]
        return {place.name: place for place in sorted(found, key=lambda place: (place.index, len(place.name)))}

    def index_of(self, module: str) -> int | None:
        """Where a module, which may be no place, returned last; None if it is not called."""
        node = self._returned.get(module)
        return None if node is None else self._index[node]

    def reads_first_token(self) -> bool:
        """Whether the network takes the first token of a sequence, a class token, on its way to the answer."""
        return any(
            node.target is operator.getitem and len(self._shapes.get(node.all_input_nodes[0], ())) == 3
            and isinstance(node.args[1], tuple) and node.args[1][:2] == (slice(None), 0)
            for node in self.nodes if node.op == "call_function" and node.all_input_nodes
        )  # fmt: skip

    # ---- parts ------------------------------------------------------------------------------------
    def split(self, places: Sequence[Place]) -> list[fx.GraphModule]:
        """The network between the places, in order: one more part than places. They hold its modules, by its names.

        What comes right after a place no longer overwrites its input, which a head reads too.
        """
        ends = [*(place.index for place in places), len(self.nodes) - 2]
        parts, start, entry = [], 0, next(node for node in self.nodes if node.op == "placeholder")
        for end in ends:
            leave = self.nodes[end] if end < len(self.nodes) - 2 else self.nodes[-1].args[0]
            parts.append(self._part(start, end, entry, leave))  # type: ignore[arg-type]
            start, entry = end + 1, self.nodes[end]
        return parts

    def _part(self, start: int, end: int, entry: fx.Node, leave: fx.Node) -> fx.GraphModule:
        graph = fx.Graph()
        known = {entry: graph.placeholder("x")}

        def find(node: fx.Node) -> fx.Node:
            if node not in known:  # parameters and what is computed from them alone: anew in each part that needs it
                known[node] = graph.node_copy(node, find)
            return known[node]

        for node in self.nodes[start : end + 1]:
            if node in self._dependent and node.op != "placeholder":
                known[node] = graph.node_copy(node, find)
                if entry in node.all_input_nodes and entry.op != "placeholder":
                    self._keep_input(node, known[node])
        graph.output(find(leave))
        graph.lint()
        return fx.GraphModule(self.network, graph, class_name="Part")

    def _keep_input(self, node: fx.Node, copied: fx.Node) -> None:
        if node.op == "call_module":
            module = self.network.get_submodule(str(node.target))
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        elif node.target in _OVERWRITING:
            copied.target = _OVERWRITING[node.target]
        elif "inplace" in node.kwargs:
            copied.kwargs = {**copied.kwargs, "inplace": False}


def _line(error: Exception) -> str:
    """The first line of what torch says; the interpreter appends the node at which it happened."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text[:200]
