"""Evaluation with the skipped blocks really left out.

In evaluation mode this is the dense form: normalisation uses running statistics, gates read every image, and the
recurrent gate is stepped for every image. Only evaluation mode: in training mode batch statistics would come from
other images than the dense form's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from bench.walking import tracing, where
from methods.skipnet.gates import Choose, Embedding, Stepper
from methods.skipnet.network import GatedResNet, Routed, State

#: Gate index and the output of the block before it -> logits [B].
Read = Callable[[int, Tensor], Tensor]


def run_compacted(network: GatedResNet, images: Tensor, choose: Choose) -> Routed:
    """One pass in which each block runs for the images that ``choose``, with bool actions, sends through it.

    Raises ValueError for a network in training mode. No gradient passes: outputs are written in place.
    """
    if network.training:
        raise ValueError("real skipping needs evaluation mode: call network.eval() first")
    with torch.no_grad():
        x = network.stem(images)
        x = network.blocks[0](x, network.shortcut(0, x))
        read = _reader(network, x)
        gate_logits, actions = [], []
        for k, block in enumerate(list(network.blocks)[1:]):
            shortcut = network.shortcut(k + 1, x)
            if not network.gates:
                x = block(x, shortcut)
                continue
            gate_logits.append(read(k, x))
            actions.append(choose(k, gate_logits[-1]))
            # x and the projection belong to this pass alone, so the result may be written over them.
            x = where(actions[-1], block, x, shortcut, otherwise=shortcut, inplace=True)
        nothing = torch.zeros((0, len(images)), dtype=torch.bool, device=x.device)
        return Routed(network.head(x), *(torch.stack(of) if of else nothing for of in (gate_logits, actions)))


def _reader(network: GatedResNet, x: Tensor) -> Read:
    state: State | None = None

    def step(k: int, x: Tensor) -> Tensor:
        nonlocal state
        z, state = network.read_gate(k, x, state)
        return z

    if network.control is None or tracing() or torch.is_autocast_enabled(x.device.type):
        return step
    return Stepper([cast(Embedding, gate) for gate in network.gates], network.control, len(x))
