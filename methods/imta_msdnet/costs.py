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
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.method import Unit
from methods.imta_msdnet.config import IMTAMSDNetConfig
from methods.imta_msdnet.geometry import exit_cells
from methods.imta_msdnet.isc import IMTANet
from methods.imta_msdnet.network import MSDNet, Trunk, scale_sizes

__all__ = ["UnitPlan", "count_official", "plan_units"]


class OfficialCount(NamedTuple):
    """ops: the released counter's number. macs: its convolution and linear part, biases left out."""

    ops: int
    macs: int


class UnitPlan(NamedTuple):
    """units in order; ran: int64 [exits, units], how often each ran by the time an exit has answered."""

    units: list[Unit]
    ran: Tensor


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


def plan_units(
    model: MSDNet | IMTANet, config: IMTAMSDNetConfig, image_size: int, channels: int = 3
) -> UnitPlan:
    """Every cell, every head and every piece of the collaboration as a unit of its own."""
    trunk = model.trunk
    geometry = trunk.geometry
    device = next(trunk.parameters()).device
    examples = _cell_examples(trunk, config, image_size, channels, device)
    units = [
        Unit(f"stem scale {scale + 1}" if index == 0 else f"layer {index} scale {scale + 1}",
             trunk.cell(index, scale), inputs)
        for (index, scale), inputs in examples.items()
    ]  # fmt: skip
    position = {cell: i for i, cell in enumerate(examples)}
    exits = [_exit_pieces(model, k, config, image_size, device) for k in range(config.exits)]
    counts = [count_official(unit.module, unit.inputs) for unit in units]
    ran_rows = torch.zeros((config.exits, len(units) + sum(map(len, exits))), dtype=torch.int64)
    full, lazy = exit_cells(geometry, False), exit_cells(geometry, True)
    in_force = lazy if config.lazy else full
    columns = ("msdnet_ops", "macs_full", "macs_lazy")
    units = [Unit(u.name, u.module, u.inputs, dict.fromkeys(columns, 0.0)) for u in units]
    for k, pieces in enumerate(exits):
        ran_rows[k:, [position[cell] for cell in in_force[k]]] = 1
        ran_rows[k:, len(units) : len(units) + len(pieces)] = 1
        own = [count_official(unit.module, unit.inputs) for unit in pieces]
        block = [counts[position[cell]] for cell in full[k]]
        extra = {
            "msdnet_ops": float(sum(c.ops for c in [*block, *own])),
            "macs_full": float(sum(c.macs for c in [*block, *own])),
            "macs_lazy": float(sum(c.macs for c in [*(counts[position[cell]] for cell in lazy[k]), *own])),
        }
        charges = [dict.fromkeys(columns, 0.0)] * (len(pieces) - 1) + [extra]
        units += [Unit(u.name, u.module, u.inputs, charge) for u, charge in zip(pieces, charges)]
    return UnitPlan(units, ran_rows)


def _cell_examples(
    trunk: Trunk, config: IMTAMSDNetConfig, image_size: int, channels: int, device: torch.device
) -> dict[tuple[int, int], tuple[Tensor, ...]]:
    """For every cell, in the order of computation, zeros of the shapes that it reads."""
    geometry, sizes, factor = trunk.geometry, scale_sizes(config, image_size), config.growth_factor

    def zeros(base: int, scale: int) -> Tensor:
        return torch.zeros(1, base * factor[scale], sizes[scale], sizes[scale], device=device)

    images = torch.zeros(1, channels, image_size, image_size, device=device)
    examples: dict[tuple[int, int], tuple[Tensor, ...]] = {}
    for scale in range(geometry.scales):
        examples[0, scale] = (zeros(config.channels, scale - 1),) if scale else (images,)
    for layer in geometry.layers:
        for scale in geometry.written(layer):
            examples[layer.index, scale] = tuple(
                zeros(layer.base_in, s) for _, s in geometry.reads((layer.index, scale))
            )
    return examples


def _exit_pieces(
    model: MSDNet | IMTANet, k: int, config: IMTAMSDNetConfig, image_size: int, device: torch.device
) -> list[Unit]:
    """What an exit runs besides the cells, in order; the piece that ends in logits last."""
    side = scale_sizes(config, image_size)[-1]
    coarsest = torch.zeros(1, model.trunk.geometry.head_width(k), side, side, device=device)
    if isinstance(model, MSDNet):
        return [Unit(f"head {k + 1}", model.heads[k], (coarsest,))]
    collaboration = model.collaboration
    linear = cast(nn.Linear, collaboration.classify[k])
    pieces = [Unit(f"feature {k + 1}", model.net.head(k).body, (coarsest,))]
    if k:
        logits = torch.zeros(1, linear.out_features, device=device)
        pieces.append(Unit(f"carry {k}", collaboration.carry[k - 1], (logits,)))
    pieces.append(Unit(f"classify {k + 1}", linear, (torch.zeros(1, linear.in_features, device=device),)))
    return pieces
