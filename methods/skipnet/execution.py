"""Evaluation with the skipped blocks really left out.

Per gate, the images whose block runs are gathered, the block runs on them alone, and its output is written
back over the shortcut. In evaluation mode this is the dense form: normalisation uses running statistics,
gates read every image, and the recurrent gate is stepped for every image. Only evaluation mode: in training
mode batch statistics would come from other images than the dense form's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.skipnet.gates import Choose
from methods.skipnet.network import GatedResNet, State


def run_compacted(network: GatedResNet, images: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
    """Logits [B, classes] and which gated blocks ran, bool [T, B].

    choose must give bool actions. Raises ValueError for a network in training mode. Gradients are not
    recorded: outputs are written in place.
    """
    if network.training:
        raise ValueError("real skipping needs evaluation mode: call network.eval() first")
    with torch.no_grad():
        return _run(network, images, choose)


def _run(network: GatedResNet, images: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
    x = network.stem(images)
    x = network.blocks[0](x, network.shortcut(0, x))
    actions: list[Tensor] = []
    state: State | None = None
    for k, block in enumerate(list(network.blocks)[1:]):
        if network.gates:
            z, state = network.read_gate(k, x, state)
            actions.append(choose(k, z))
            x = _run_block(block, x, network.shortcut(k + 1, x), actions[-1])
        else:
            x = block(x, network.shortcut(k + 1, x))
    nothing = torch.zeros((0, len(images)), dtype=torch.bool, device=x.device)
    return network.head(x), torch.stack(actions) if actions else nothing


def _run_block(block: nn.Module, x: Tensor, shortcut: Tensor, action: Tensor) -> Tensor:
    """The output of one block for all images."""
    rows = action.nonzero().squeeze(1)  # the one wait for the device
    if len(rows) == 0:
        return shortcut
    if len(rows) == len(x):
        return block(x, shortcut)
    kept = x.index_select(0, rows)
    kept_shortcut = kept if shortcut is x else shortcut.index_select(0, rows)
    # x and the projection belong to this pass alone, so the result may be written over them.
    return shortcut.index_copy_(0, rows, block(kept, kept_shortcut).to(shortcut.dtype))
