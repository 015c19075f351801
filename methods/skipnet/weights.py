"""The released names of SkipNet's weights, in and out.

Released gated networks hold every projection twice (``group2_ds0`` is the same module as
``group2_layer0.downsample``), keep a gate behind the last block that decides nothing, and write linear
layers of gates as 1x1 convolutions. Ungated ones use torchvision's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.errors import WeightsError
from bench.method import strip_prefix
from methods.skipnet.network import GatedResNet, Place, make_gate

_LSTM = {name: f"control.rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
_UNCOUNTED = "num_batches_tracked"


def to_released(network: GatedResNet) -> dict[str, Tensor]:
    """A state_dict that the released code loads strictly: aliases too, zeros for the gate without a block."""
    own = network.state_dict()
    released: dict[str, Tensor] = {}
    for key, value in own.items():
        for number, name in enumerate(released_names(network, key)):
            tensor = value.detach().reshape(_released_shape(network, name, value))
            released[name] = tensor.clone() if number == 0 else released[released_names(network, key)[0]]
    released.update(_dead_gate(network))
    return released


def from_released(network: GatedResNet, state_dict: Mapping[str, Any], *, what: str) -> dict[str, Tensor]:
    """Released names -> the network's own, every key accounted for.

    Accepts a whole released checkpoint (its ``state_dict`` entry is taken), names with or without
    ``module.``, one or both names of a projection, any or none of the last gate's keys, missing
    ``num_batches_tracked``. Raises WeightsError naming what is missing, left over or of another shape.
    """
    inner = state_dict.get("state_dict", state_dict)
    given = strip_prefix(inner if isinstance(inner, Mapping) else state_dict)
    foreign = [str(key) for key, value in given.items() if not isinstance(value, Tensor)]
    if foreign:
        raise WeightsError(f"weights do not fit {what}: '{foreign[0]}' is no tensor; give a state_dict")
    problems: list[str] = []
    own: dict[str, Tensor] = {}
    used: set[str] = set()
    for key, value in network.state_dict().items():
        names = released_names(network, key)
        found = [name for name in names if name in given]
        used.update(found)
        if not found:
            if not key.endswith(_UNCOUNTED):
                problems.append(f"missing {names[0]}")
            continue
        first = given[found[0]]
        wanted = _released_shape(network, found[0], value)
        if tuple(first.shape) not in (wanted, *_equivalent_shapes(key, value)):
            problems.append(f"{found[0]} has shape {tuple(first.shape)} instead of {wanted}")
        elif len(found) == 2 and not torch.equal(first, given[found[1]]):
            problems.append(f"{found[0]} and its alias {found[1]} differ")
        else:
            own[key] = first.reshape(value.shape)
    dropped = {name: value.shape for name, value in _dead_gate(network).items()}
    for name in given:
        if name in used:
            continue
        if name not in dropped:
            problems.append(f"left over {name}")
        elif given[name].numel() != dropped[name].numel():
            problems.append(f"{name} has shape {tuple(given[name].shape)} instead of {tuple(dropped[name])}")
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise WeightsError(f"weights do not fit {what}: " + "; ".join(problems[:4]) + more)
    return own


def released_names(network: GatedResNet, key: str) -> list[str]:
    """The released name of one of our keys; for projections of gated networks the alias as well."""
    part, _, rest = key.partition(".")
    if part in ("stem", "head"):
        return [rest]
    if part == "control":
        layer, _, name = rest.partition(".")
        return [_LSTM[name] if layer == "cell" else key]
    index, _, rest = rest.partition(".")
    place = network.places[int(index)]
    if part == "blocks":
        return [f"{_block_name(network, place)}.{rest.removeprefix('branch.')}"]
    if part == "projections":
        names = [f"{_block_name(network, place)}.downsample.{rest}"]
        return [*names, f"group{place.group}_ds{place.index}.{rest}"] if network.gates else names
    gate = f"group{place.group}_gate{place.index}"
    if network.control is not None:
        return [f"{gate}.1.{rest.removeprefix('linear.')}"]
    if rest.startswith("linear."):
        return [f"{gate}.linear_layer.{rest.removeprefix('linear.')}"]
    return [f"{gate}.{rest.removeprefix('features.')}"]


def _block_name(network: GatedResNet, place: Place) -> str:
    return f"group{place.group}_layer{place.index}" if network.gates else f"layer{place.group}.{place.index}"


def _released_shape(network: GatedResNet, name: str, value: Tensor) -> tuple[int, ...]:
    """Linear layers of gates are 1x1 convolutions there (the control's projection on ImageNet only)."""
    gate_layer = "_gate" in name and name.endswith(".weight") and value.ndim == 2
    if gate_layer or (network.config.arch is not None and name == "control.proj.weight"):
        return (*value.shape, 1, 1)
    return tuple(value.shape)


def _equivalent_shapes(key: str, value: Tensor) -> list[tuple[int, ...]]:
    """A gate's linear layer may be a linear layer or a 1x1 convolution, whichever family it comes from."""
    shape = tuple(value.shape)
    return [shape, (*shape, 1, 1)] if key.startswith(("gates.", "control.")) else [shape]


def _dead_gate(network: GatedResNet) -> dict[str, Tensor]:
    """The gate behind the last block, as the released networks have it: zeros, and ones for variances."""
    if not network.gates:
        return {}
    with torch.device("meta"):
        gate = make_gate(network.config, network.places[-1].out_channels)
    dead: dict[str, Tensor] = {}
    for key, value in gate.state_dict().items():
        name = released_names(network, f"gates.{len(network.gates)}.{key}")[0]
        filled = torch.ones if name.endswith("running_var") else torch.zeros
        dead[name] = filled(_released_shape(network, name, value), dtype=value.dtype)
    return dead
