"""One exit as a network of its own: what lies before it, and nothing that decides."""

from __future__ import annotations

import copy
import json

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from methods.imta_msdnet.config import IMTAMSDNetConfig
from methods.imta_msdnet.isc import Collaboration, IMTANet
from methods.imta_msdnet.network import MSDNet

__all__ = ["ExitNet", "exit_constructor", "export_exit"]


class ExitNet(nn.Module):
    """The network up to exit ``last`` (from 0): images [B, C, H, W] -> logits [B, classes].

    Without collaborating classifiers the heads before the last one are left out; with them (``collaborate``)
    their features are needed and their own linear layers are not.
    """

    def __init__(self, config: IMTAMSDNetConfig, data: DataSpec, last: int, collaborate: bool) -> None:
        super().__init__()
        net = MSDNet(config, data.num_classes, data.image_size, data.channels)
        self.trunk = net.trunk
        self.trunk.blocks = self.trunk.blocks[: last + 1]
        self.trunk.equilibrium = None  # gradients only
        self.collaboration: Collaboration | None = None
        if collaborate:
            self.heads = nn.ModuleDict({str(k): net.head(k).body for k in range(last + 1)})
            self.collaboration = Collaboration(net.widths[: last + 1], data.num_classes)
        else:
            self.heads = nn.ModuleDict({str(last): net.heads[last]})

    def forward(self, images: Tensor) -> Tensor:
        maps = self.trunk(images)
        outputs = [head(maps[int(k)]) for k, head in self.heads.items()]
        return outputs[-1] if self.collaboration is None else self.collaboration(outputs)[-1]


def export_exit(
    model: MSDNet | IMTANet, config: IMTAMSDNetConfig, data: DataSpec, last: int
) -> ExitNet:
    """A copy of the part of a trained network that exit ``last`` needs, on the CPU, in evaluation mode."""
    collaborate = isinstance(model, IMTANet)
    with torch.random.fork_rng(devices=[]):
        plain = ExitNet(config, data, last, collaborate)
    source = model.net if isinstance(model, IMTANet) else model
    parts: list[tuple[nn.Module, nn.Module]] = [
        (plain.trunk.stem, source.trunk.stem),
        (plain.trunk.blocks, source.trunk.blocks[: last + 1]),
        *((own, source.head(int(k)).body if collaborate else source.head(int(k))) for k, own in plain.heads.items()),
    ]
    if isinstance(model, IMTANet) and plain.collaboration is not None:
        parts.append((plain.collaboration.classify, model.collaboration.classify[: last + 1]))
        parts.append((plain.collaboration.carry, model.collaboration.carry[:last]))
    for own, theirs in parts:
        own.load_state_dict(copy.deepcopy(theirs).cpu().state_dict())
    return plain.eval()


def exit_constructor(config: IMTAMSDNetConfig, data: DataSpec, last: int, collaborate: bool) -> str:
    """A Python expression, with full module names, for an empty network of that shape."""
    options = config.model_dump(mode="json", exclude_defaults=True)
    return (
        f"methods.imta_msdnet.export.ExitNet(methods.imta_msdnet.config.IMTAMSDNetConfig.model_validate_json("
        f"{json.dumps(options)!r}), bench.config.data.{data}, {last}, {collaborate})"
    )
