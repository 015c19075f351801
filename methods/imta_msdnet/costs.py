"""The units of the network, and its cost in the conventions that papers on it use.

Three columns besides the harness's own, all charged to the last piece of an exit (its classifier), because
each is a sum over everything that has run by the time an exit has answered:

- ``msdnet_ops``: the released counter. Multiply-adds of convolutions (no bias), weights and bias of linear
  layers, one for each element a ReLU sees, k*k for each element a pooling layer writes, norms nothing; every
  scale of every block up to the exit, and all heads up to it.
- ``macs_full``: multiply-adds of convolutions and linear layers, every scale of every block up to the exit.
- ``macs_lazy``: the same without the cells that no exit so far depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.method import Unit
from methods.imta_msdnet.geometry import Geometry, cell_name, exit_cells

__all__ = ["count_official", "with_published_costs"]

COLUMNS = ("msdnet_ops", "macs_full", "macs_lazy")


class OfficialCount(NamedTuple):
    """ops: the released counter's number. macs: its convolution and linear part, biases left out."""

    ops: int
    macs: int


def count_official(module: nn.Module, inputs: Sequence[Tensor]) -> OfficialCount:
    """Count one run of a module by the rules of the released counter, without computing anything."""
    ops = macs = 0

    def count(leaf: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal ops, macs
        if isinstance(leaf, nn.Conv2d):
            kernel = leaf.kernel_size[0] * leaf.kernel_size[1]
            work = output.numel() * (leaf.in_channels // leaf.groups) * kernel
            ops, macs = ops + work, macs + work
        elif isinstance(leaf, nn.Linear):
            rows = output.numel() // leaf.out_features
            macs += rows * leaf.weight.numel()
            ops += rows * (leaf.weight.numel() + (0 if leaf.bias is None else leaf.bias.numel()))
        elif isinstance(leaf, nn.ReLU):
            ops += output.numel()
        elif isinstance(leaf, (nn.MaxPool2d, nn.AvgPool2d)):
            kernel = leaf.kernel_size if isinstance(leaf.kernel_size, int) else leaf.kernel_size[0]
            ops += output.numel() * kernel * kernel
        elif isinstance(leaf, nn.AdaptiveAvgPool2d):
            ops += args[0].numel()

    leaves = [m for m in module.modules() if not list(m.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    training = module.training
    state = {name: t.to("meta") for name, t in [*module.named_parameters(), *module.named_buffers()]}
    try:
        module.eval()
        with torch.no_grad():
            functional_call(module, state, tuple(x.to("meta") for x in inputs))
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return OfficialCount(ops, macs)


def with_published_costs(units: Sequence[Unit], geometry: Geometry) -> list[Unit]:
    """The units, cells first and then exit by exit, with the columns above."""
    cells = {cell_name(cell): cell for cells in exit_cells(geometry, False) for cell in cells}
    counts = {cells.get(unit.name, unit.name): count_official(unit.module, unit.inputs) for unit in units}
    pieces = [[unit for unit in units if unit.name in piece_names(k)] for k in range(geometry.exits)]
    priced = [replace(unit, extra_costs=dict.fromkeys(COLUMNS, 0.0)) for unit in units if unit.name in cells]
    full, needed = exit_cells(geometry, False), exit_cells(geometry, True)
    for k, (of_all, of_lazy) in enumerate(zip(full, needed)):
        own = sorted(pieces[k], key=lambda unit: piece_names(k).index(unit.name))
        heads = [counts[unit.name] for unit in own]
        block, late = ([counts[cell] for cell in of] + heads for of in (of_all, of_lazy))
        charge = (sum(c.ops for c in block), sum(c.macs for c in block), sum(c.macs for c in late))
        priced += [replace(unit, extra_costs=dict.fromkeys(COLUMNS, 0.0)) for unit in own[:-1]]
        priced.append(replace(own[-1], extra_costs=dict(zip(COLUMNS, map(float, charge)))))
    return priced


def piece_names(k: int) -> list[str]:
    """What an exit may run besides the cells, in order; the piece that ends in logits last."""
    return [f"feature {k + 1}", f"carry {k}", f"classify {k + 1}", f"head {k + 1}"]
