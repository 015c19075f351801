"""What several test files of this folder need."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.method import Batch
from methods.imta_msdnet.archs import ARCHS, imta_config, plain_config
from methods.imta_msdnet.config import IMTAMSDNetConfig
from methods.imta_msdnet.isc import IMTANet
from methods.imta_msdnet.method import IMTAMSDNet
from methods.imta_msdnet.network import MSDNet

GOLDEN = Path(__file__).parent / "golden"
NUMBERS: dict[str, Any] = json.loads((GOLDEN / "numbers.json").read_text())
SMALL = DataSpec("small", 10, 32)


def config(**options: Any) -> IMTAMSDNetConfig:
    return IMTAMSDNetConfig.model_validate(options)


def small_options(**options: Any) -> dict[str, Any]:
    """A network of three scales and four exits that takes milliseconds."""
    return {"exits": 4, "base": 1, "step": 1, "channels": 4, "growth": 4, "head_channels": 8, **options}


def built(data: DataSpec = SMALL, stage: int = -1, seed: int = 0, **options: Any) -> tuple[IMTAMSDNet, Any]:
    """A method and the network of one of its stages, with running statistics that are not the initial ones."""
    method = IMTAMSDNet(config(**options), data)
    torch.manual_seed(seed)
    model = method.build(method.stages()[stage])
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return method, model


def published(arch: str, *, imta: bool = False) -> tuple[IMTAMSDNet, MSDNet | IMTANet]:
    network, data = ARCHS[arch]
    method = IMTAMSDNet((imta_config if imta else plain_config)(network), data)
    return method, method.build(method.stages()[-1])


def published_shapes(*, imta: bool) -> dict[str, list[int]]:
    """The released C100-lg5 tensors, spelled out from the compact list."""
    shapes: dict[str, list[int]] = {}
    prefix = "net." if imta else ""
    for line in (GOLDEN / "keys_c100_lg5.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        if line == "---":
            if not imta:
                break
            prefix = ""
            continue
        kind, stem, *numbers = line.split()
        stem, widths = prefix + stem, [int(n) for n in numbers]
        if kind == "conv":
            inputs, outputs, kernel = widths
            shapes[f"{stem}.weight"] = [outputs, inputs, kernel, kernel]
        elif kind == "linear":
            shapes[f"{stem}.weight"], shapes[f"{stem}.bias"] = [widths[1], widths[0]], [widths[1]]
        else:
            shapes.update({f"{stem}.{name}": widths for name in ("weight", "bias", "running_mean", "running_var")})
            shapes[f"{stem}.num_batches_tracked"] = []
    return shapes


def sine_fill(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights from their published names and shapes alone."""
    filled = {}
    for i, key in enumerate(sorted(state)):
        value = state[key]
        if key.endswith("num_batches_tracked"):
            filled[key] = value
            continue
        t = torch.sin(0.37 * torch.arange(value.numel(), dtype=torch.float64) + 0.11 * i).reshape(value.shape)
        if key.endswith("running_var") or (value.dim() == 1 and key.endswith("weight")):
            t = 1 + 0.1 * t
        elif value.dim() > 1:
            t = 1.4 * t / math.sqrt(value[0].numel())
        else:
            t = 0.05 * t
        filled[key] = t.float()
    return filled


def sine_images(side: int) -> Tensor:
    return torch.sin(0.013 * torch.arange(6 * side * side, dtype=torch.float64)).reshape(2, 3, side, side).float()


def exit_order(method: IMTAMSDNet, model: nn.Module) -> list[int]:
    """Positions of the points that bring a record into the order of the exits."""
    exits = [point.settings["exit"] for point in method.points(model)]
    return sorted(range(len(exits)), key=exits.__getitem__)


def random_batch(size: int = 6, classes: int = 10, side: int = 32, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(size, 3, side, side, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (size,), generator=generator)
    return Batch(images, labels, labels, images)


def parameters_of(model: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if name.startswith(prefix))


def by_exit(method: IMTAMSDNet, model: nn.Module) -> Tensor:
    """How often each unit has run by the time each exit has answered, the first exit first."""
    return method.walker(model).counts().roll(-1, 0)
