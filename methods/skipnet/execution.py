"""Evaluation with the skipped blocks really left out.

Per gate, the images whose block runs are gathered, the block runs on them alone, and its output is written
back over the shortcut. In evaluation mode this is the dense form: normalisation uses running statistics,
gates read every image, and the recurrent gate is stepped for every image. Only evaluation mode: in training
mode batch statistics would come from other images than the dense form's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.skipnet.gates import Choose
from methods.skipnet.network import GatedResNet, State


def run_compacted(network: GatedResNet, images: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
    """Logits [B, classes] and which gated blocks ran, bool [T, B] on the CPU.

    choose must give bool actions. Raises ValueError for a network in training mode. Gradients are not
    recorded: outputs are written in place.
    """
    if network.training:
        raise ValueError("real skipping needs evaluation mode: call network.eval() first")
    if torch.is_grad_enabled():
        with torch.no_grad():
            return run_compacted(network, images, choose)
    ran = torch.ones((len(network.gates), len(images)), dtype=torch.bool)
    x = network.stem(images)
    x = network.blocks[0](x, network.shortcut(0, x))
    state: State | None = None
    for k in range(len(network.blocks) - 1):
        if network.gates:
            z, state = network.read_gate(k, x, state)
            x, ran[k] = _run_block(network, k + 1, x, choose(k, z))
        else:
            x = network.blocks[k + 1](x, network.shortcut(k + 1, x))
    return network.head(x), ran


def _run_block(network: GatedResNet, index: int, x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """The output of one block for all images, and the action on the CPU (the only wait for the device)."""
    block = network.blocks[index]
    shortcut = network.shortcut(index, x)
    on_host = action.cpu()
    count = int(on_host.sum())
    if count == 0:
        return shortcut, on_host
    if count == len(x):
        return block(x, shortcut), on_host
    rows = on_host.nonzero().squeeze(1).to(x.device, non_blocking=True)
    kept = x.index_select(0, rows)
    kept_shortcut = kept if shortcut is x else shortcut.index_select(0, rows)
    # x and the projection belong to this pass alone, so the result may be written over them.
    return shortcut.index_copy_(0, rows, block(kept, kept_shortcut).to(shortcut.dtype)), on_host
