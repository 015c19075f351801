"""Exit by exit, with the work that is left out really left out.

After an exit the samples that leave are taken out of every map that a later exit still reads, so the batch
shrinks. Lazily, a cell is computed when the first exit that depends on it is reached, and only for the
samples that are still there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from methods.imta_msdnet.geometry import Cell, exit_cells, kept_after
from methods.imta_msdnet.network import Trunk

__all__ = ["ExitNetwork", "run_exits"]


class ExitNetwork(Protocol):
    """What MSDNet and IMTANet share: the trunk, and logits of one exit after another."""

    @property
    def trunk(self) -> Trunk: ...

    def classify(self, k: int, coarsest: Tensor, previous: Tensor | None = None) -> Tensor: ...


def run_exits(
    model: ExitNetwork,
    images: Tensor,
    *,
    last: int,
    decide: Callable[[int, Tensor], Tensor] | None = None,
    lazy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run exits 0..last. Returns logits [B, C] and the exit int64 [B] at which each sample stopped.

    decide: after exit k < last, logits [b, C] of the samples still running -> bool [b], True for those that
    go on; None sends everyone to ``last``. Evaluation mode and no_grad are the caller's.
    """
    geometry = model.trunk.geometry
    added, kept = exit_cells(geometry, lazy), kept_after(geometry, lazy)
    maps: dict[Cell, Tensor] = {}
    rows = torch.arange(len(images), device=images.device)
    taken = torch.full((len(images),), last, dtype=torch.int64, device=images.device)
    logits: Tensor | None = None
    result: Tensor | None = None
    for k in range(last + 1):
        for index, scale in added[k]:
            inputs = [maps[read] for read in geometry.reads((index, scale))] or [images]
            maps[index, scale] = model.trunk.cell(index, scale)(*inputs)
        logits = model.classify(k, maps[geometry.coarsest(k)], logits)
        if k == last:
            stay = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        elif decide is None:
            stay = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        else:
            stay = decide(k, logits).to(device=rows.device, dtype=torch.bool)
        if result is None:
            result = logits.new_zeros((len(images), logits.shape[1]))
        leaving = rows[~stay]
        result[leaving] = logits[~stay]
        taken[leaving] = k
        rows = rows[stay]
        if not len(rows):
            break
        maps = {cell: maps[cell] for cell in kept[k]}
        if len(leaving):
            maps = {cell: m[stay] for cell, m in maps.items()}
            logits = logits[stay]
    assert result is not None
    return result, taken
