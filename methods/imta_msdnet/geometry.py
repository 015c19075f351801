"""Which layers, scales and channels an MSDNet has, and which of them an exit needs. Torch-free.

Sources: Huang et al. 2018 (arXiv 1703.09844), sections 3 and 4, and the released PyTorch configuration rules.
A *cell* is one scale of one layer: ``(layer, scale)`` with layer 0 the stem and scale 0 the finest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Cell = tuple[int, int]


def cell_name(cell: Cell) -> str:
    """What units call it: 'stem scale 1', 'layer 3 scale 2', counted from 1."""
    index, scale = cell
    return f"layer {index} scale {scale + 1}" if index else f"stem scale {scale + 1}"


#: Far above every published network (the deepest has 36); a slip in a file should not fill the memory.
MAX_LAYERS = 1000


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    index: 1-based over the whole network. block: 0-based. in_scales, out_scales: how many of the coarsest
    scales it reads and writes. base_in: channels it reads at a scale of growth factor 1. base_out: the same
    after it and after the transition, where it ends in one.
    """

    index: int
    block: int
    in_scales: int
    out_scales: int
    base_in: int
    base_out: int
    transition: bool


@dataclass(frozen=True)
class Geometry:
    """The layers of a network, finest scale first, and the factors that turn base channels into channels."""

    scales: int
    channels: int
    growth: int
    growth_factor: tuple[int, ...]
    layers: tuple[Layer, ...]
    exits: int

    def block(self, index: int) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.block == index)

    def head_width(self, exit_index: int) -> int:
        """Channels of the coarsest map that this exit's head reads."""
        return self.block(exit_index)[-1].base_out * self.growth_factor[-1]

    def reads(self, cell: Cell) -> tuple[Cell, ...]:
        """The cells that a cell reads: the same scale first, then the finer one where it reads one."""
        index, scale = cell
        if index == 0:
            return ((0, scale - 1),) if scale else ()
        if self.reads_finer(self.layers[index - 1], scale):
            return ((index - 1, scale), (index - 1, scale - 1))
        return ((index - 1, scale),)

    def reads_finer(self, layer: Layer, scale: int) -> bool:
        """A cell has a strided branch where the next finer scale still exists before its layer. So the finest
        scale that a dropping layer keeps is fed by the scale that ends there."""
        return scale - 1 >= self.scales - layer.in_scales

    def written(self, layer: Layer) -> range:
        """The scales that a layer writes."""
        return range(self.scales - layer.out_scales, self.scales)

    def coarsest(self, exit_index: int) -> Cell:
        """The cell that an exit's head reads."""
        return (self.block(exit_index)[-1].index, self.scales - 1)


def plan_geometry(
    *,
    exits: int,
    step_mode: Literal["even", "lin_grow"],
    base: int,
    step: int,
    channels: int,
    growth: int,
    growth_factor: tuple[int, ...],
    prune: Literal["max", "min"],
    reduction: float,
) -> Geometry:
    """Lay the network out. Raises ValueError where no network with these numbers exists."""
    sizes = [base] + [step if step_mode == "even" else step * k + 1 for k in range(1, exits)]
    depth, scales = sum(sizes), len(growth_factor)
    if depth > MAX_LAYERS:
        raise ValueError(f"{depth} layers are more than {MAX_LAYERS}; lower exits, base or step")
    if prune == "min" and depth + 1 < scales:
        raise ValueError(f"prune: min needs at least {scales - 1} layers for {scales} scales, not {depth}")
    interval = -(-depth // scales)
    layers: list[Layer] = []
    current = channels
    block_of = [k for k, size in enumerate(sizes) for _ in range(size)]
    for index in range(1, depth + 1):
        if prune == "max":
            in_scales = scales - max(0, index - 2) // interval
            out_scales = scales - (index - 1) // interval
            transition = in_scales > out_scales
        else:
            in_scales = min(scales, depth - index + 2)
            out_scales = min(scales, depth - index + 1)
            transition = index in (depth // 3, 2 * depth // 3)
        transition = transition and reduction > 0
        after = current + growth
        if transition:
            after = int(reduction * after)
            if after < 1:
                raise ValueError(f"reduction {reduction} leaves no channels after layer {index}")
        layers.append(Layer(index, block_of[index - 1], in_scales, out_scales, current, after, transition))
        current = after
    return Geometry(scales, channels, growth, growth_factor, tuple(layers), exits)


@lru_cache(maxsize=64)
def exit_cells(geometry: Geometry, lazy: bool) -> tuple[tuple[Cell, ...], ...]:
    """For each exit, the cells that it adds to those of earlier exits, in an order that can be computed.

    lazy False: every cell of the exit's block. lazy True: only cells that the exit's head depends on; a finer
    scale that only later exits depend on is left to them.
    """
    order = [(0, scale) for scale in range(geometry.scales)]
    order += [(layer.index, scale) for layer in geometry.layers for scale in geometry.written(layer)]
    if not lazy:
        block = {layer.index: layer.block for layer in geometry.layers} | {0: 0}
        return tuple(tuple(c for c in order if block[c[0]] == k) for k in range(geometry.exits))
    added: list[tuple[Cell, ...]] = []
    known: set[Cell] = set()
    for k in range(geometry.exits):
        needed: set[Cell] = set()
        open_cells = [geometry.coarsest(k)]
        while open_cells:
            cell = open_cells.pop()
            if cell not in needed and cell not in known:
                needed.add(cell)
                open_cells.extend(geometry.reads(cell))
        added.append(tuple(c for c in order if c in needed))
        known |= needed
    return tuple(added)


@lru_cache(maxsize=64)
def kept_after(geometry: Geometry, lazy: bool) -> tuple[frozenset[Cell], ...]:
    """For each exit, the cells whose maps a later exit still reads."""
    added = exit_cells(geometry, lazy)
    kept = []
    for k in range(geometry.exits):
        done = {cell for cells in added[: k + 1] for cell in cells}
        later = {read for cells in added[k + 1 :] for cell in cells for read in geometry.reads(cell)}
        kept.append(frozenset(done & later))
    return tuple(kept)
