"""Released checkpoint names in and out, and torchvision's weights as a start.

Our names hold the two norms of a mandatory block as ``main`` and ``skip``; torchvision has the first under
the plain name, the released files have the second as ``<norm>_skip``. Everything here is renaming.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.errors import WeightsError
from bench.method import strip_prefix
from methods.adn.network import AdaptiveNetwork

log = logging.getLogger(__name__)

#: What a training checkpoint of the released code holds beside weights.
TRAINING_STATE = frozenset({"model", "model_ema", "optimizer", "lr_scheduler", "epoch", "args", "scaler"})
MAIN, TWIN = ".main.", ".skip."
#: Constants of the architecture. Averaged checkpoints hold them rounded down, with wrong entries.
CONSTANT = "relative_position_index"


def torchvision_names(network: AdaptiveNetwork) -> dict[str, str]:
    """Our state_dict key -> torchvision's at full depth; the second norms under ``<norm>_skip``."""
    names = {}
    for key in network.state_dict():
        part = key
        while part not in network.torchvision_names:
            part = part.rpartition(".")[0]
        name = network.torchvision_names[part] + key[len(part) :]
        names[key] = name.replace(MAIN, ".").replace(TWIN, "_skip.")
    return names


def released_names(network: AdaptiveNetwork, arch: str | None) -> dict[str, str]:
    """Our state_dict key -> the released one. CIFAR ResNets (arch None) were never released; they follow ResNet."""
    rename = {"mobilenet_v2": _released_mobilenet, "swin_t": _released_swin, "swin_v2_t": _released_swin}
    to_released = rename.get(arch or "", str)
    return {key: to_released(name) for key, name in torchvision_names(network).items()}


def _released_mobilenet(name: str) -> str:
    """features.4.conv.0.1_skip.bias -> features.3.0.conv.0.norm_skip.bias"""
    found = re.fullmatch(r"features\.(\d+)\.(.*)", name)
    if not found:
        return name
    index, rest = int(found[1]), found[2]
    if index in (0, 18):
        return f"features.{min(index, 8)}.{_unit(rest)}"
    if index in (1, 17):
        unit, last = ("features.1", 1) if index == 1 else ("features.7", 2)
    else:
        row, first = next((row, first) for row, first in ((6, 14), (5, 11), (4, 7), (3, 4), (2, 2)) if index >= first)
        unit, last = f"features.{row}.{index - first}", 2
    inside = re.fullmatch(r"conv\.(\d+)(.*)", rest)
    assert inside is not None
    place, rest = int(inside[1]), inside[2]
    if place < last:
        return f"{unit}.conv.{place}.{_unit(rest[1:])}"
    return f"{unit}.conv.{last}.{_unit(f'{place - last}{rest}')}"


def _unit(rest: str) -> str:
    """Inside a unit: 0 is the convolution, 1 the norm."""
    return re.sub(r"^1(?=[._])", "norm", re.sub(r"^0(?=\.)", "conv_layer", rest))


def _released_swin(name: str) -> str:
    """features.0.2.bias -> pre.2.bias; features.4.norm_skip.bias -> features.3.norm_skip.bias"""
    found = re.fullmatch(r"features\.(\d+)\.(.*)", name)
    if not found:
        return name
    index = int(found[1])
    return f"features.{index - 1}.{found[2]}" if index else f"pre.{found[2]}"


def unwrap(file: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state_dict inside a released file or a training checkpoint; the averaged weights where it has some.

    Raises WeightsError for an entry that is neither a tensor nor what the released trainer writes.
    """
    if isinstance(file.get("model"), Mapping):
        unknown = sorted(set(file) - TRAINING_STATE)
        if unknown:
            raise WeightsError(f"training checkpoint has unknown entries: {', '.join(unknown)}")
        file = file.get("model_ema") or file["model"]
    tensors = {key: value for key, value in strip_prefix(file).items() if key != "n_averaged"}
    strange = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(f"'{strange[0]}' is no tensor but {type(tensors[strange[0]]).__name__}")
    return tensors


def load_released(network: AdaptiveNetwork, arch: str, file: Mapping[str, Any]) -> None:
    """Load released weights, every key accounted for, else WeightsError in the names of the file."""
    state = unwrap(file)
    names = released_names(network, arch)
    if not any("_skip." in key for key in state) and any("_skip." in name for name in names.values()):
        raise WeightsError(
            f"these weights have no second set of norms; to start from torchvision's {arch}, "
            f"import them as torchvision/{arch}"
        )
    _load(network, state, names, arch)


def load_torchvision(network: AdaptiveNetwork, arch: str, file: Mapping[str, Any]) -> None:
    """Start from torchvision's weights: each norm of a mandatory block also fills its twin."""
    state = strip_prefix(file)
    names = {key: name.replace("_skip.", ".") for key, name in torchvision_names(network).items()}
    _load(network, state, names, f"torchvision's {arch}")


def _load(network: AdaptiveNetwork, state: Mapping[str, Tensor], names: Mapping[str, str], what: str) -> None:
    own = network.state_dict()
    wanted = {name: key for key, name in names.items()}
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    extra = [n for n in state if n not in wanted]
    shapes = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(own[key].shape)}"
        for n, key in wanted.items()
        if n in state and state[n].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {label} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for label, keys in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise WeightsError(f"weights do not fit {what}: " + "; ".join(problems))
    with torch.no_grad():
        for key, name in names.items():
            if name not in state:
                continue
            if key.endswith(CONSTANT):
                wrong = int((own[key] != state[name]).sum())
                if wrong:
                    log.warning("%s: %d entries are wrong in the file; keeping ours", name, wrong)
                continue
            own[key].copy_(state[name])


def released_state(network: AdaptiveNetwork, arch: str | None) -> dict[str, Tensor]:
    """Our weights under the released names, copied."""
    names = released_names(network, arch)
    return {names[key]: value.detach().clone() for key, value in network.state_dict().items()}
