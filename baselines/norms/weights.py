"""Released online-normalisation weights in, batch-norm weights converted.

Our layers use the names of the released package (``X.weight``, ``X.bias``, ``X.norm.m``, ``.var``, ``.u``,
``.v``), so exporting needs nothing. Importing takes in the older layouts too:

- the first release called the sub-module ``ctrl_norm``;
- its batched variant, which trained the published results, kept the last N states of every stream, [N, C],
  and helpers of its recurrences; ``u`` was an average, (1 - abkw) times ours. The newest row is the state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from bench.errors import WeightsError
from bench.method import strip_prefix

__all__ = ["batch_to_online", "import_online_norm"]

_STATES = ("m", "var", "u", "v")
#: Buffers of the batched variant: what the newest row of each is, None for what only continues its own
#: recurrences (the inputs of the batch before).
_BATCHED = {"m": "m", "var": "var", "u": "u", "v_p": "v",
            "m_p": None, "var_p": None, "u_p": None, "alpha_p": None, "beta_p": None}  # fmt: skip
_BUFFER = re.compile(r"(?P<layer>.+)\.(?:norm|ctrl_norm)\.(?P<name>[a-z]+(?:_p)?)")
_PACKAGE = ("m", "var", "u", "v", "m_p", "var_p", "u_p", "v_p", "alpha_p", "beta_p")


def import_online_norm(state_dict: Mapping[str, Tensor], abkw: float | None = None) -> dict[str, Tensor]:
    """A released state_dict in our layout; every key is carried over, converted or left out by name.

    abkw: the backward decay it was trained with, needed for the batched layout only. Raises WeightsError for
    a layer whose buffers are incomplete or of a layout that no release had.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    imported: dict[str, Tensor] = {}
    for key, value in strip_prefix(state_dict).items():
        match = _BUFFER.fullmatch(key)
        if match is None or match["name"] not in _PACKAGE:
            imported[key] = value.detach().clone()
            continue
        buffers = layers.setdefault(match["layer"], {})
        if match["name"] in buffers:
            raise WeightsError(f"two keys stand for {match['layer']}.norm.{match['name']}")
        buffers[match["name"]] = value
    if not layers:
        raise WeightsError("no online normalisation in these weights: no key ends in .norm.m, .norm.var, ...")
    for layer, buffers in layers.items():
        for name, value in _states(layer, buffers, abkw).items():
            imported[f"{layer}.norm.{name}"] = value
    return imported


def batch_to_online(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch-norm network's state_dict for the same network with online norm.

    Running mean and variance become the stream's; nothing is there to compensate yet, so u = v = 0. In
    evaluation without error compensation (ecm none, or ac as long as nothing is clamped) the converted network
    computes what the original did; layer scaling rescales every sample and needs training. eps stays an option
    of the network. Raises WeightsError where there is no batch norm, or one without running statistics.
    """
    source = strip_prefix(state_dict)
    layers = [key.removesuffix(".running_mean") for key in source if key.endswith(".running_mean")]
    if not layers:
        raise WeightsError("no batch norm in these weights: no key ends in .running_mean")
    converted: dict[str, Tensor] = {}
    for key, value in source.items():
        if not key.endswith((".running_mean", ".running_var", ".num_batches_tracked")):
            converted[key] = value.detach().clone()
    for layer in layers:
        if f"{layer}.running_var" not in source:
            raise WeightsError(f"{layer}.running_var is missing")
        mean = source[f"{layer}.running_mean"].detach()
        converted[f"{layer}.norm.m"] = mean.clone()
        converted[f"{layer}.norm.var"] = source[f"{layer}.running_var"].detach().clone()
        converted[f"{layer}.norm.u"] = torch.zeros_like(mean)
        converted[f"{layer}.norm.v"] = torch.zeros_like(mean)
    return converted


def _states(layer: str, buffers: Mapping[str, Tensor], abkw: float | None) -> dict[str, Tensor]:
    """The four states of a layer, [C] each, from the buffers of either layout."""
    if set(buffers) == set(_STATES):
        wrong = [name for name, value in buffers.items() if value.dim() != 1]
        if wrong:
            raise WeightsError(f"{layer}.norm.{wrong[0]} has shape {tuple(buffers[wrong[0]].shape)}, not [C]")
        return {name: buffers[name].detach().clone() for name in _STATES}
    if set(buffers) != set(_BATCHED):
        expected = set(_BATCHED if "v_p" in buffers else _STATES)
        differences = {"missing": expected - set(buffers), "left over": set(buffers) - expected}
        found = "; ".join(f"{what} {', '.join(sorted(names))}" for what, names in differences.items() if names)
        raise WeightsError(f"{layer}.norm: {found}")
    wrong = [name for name, value in buffers.items() if value.dim() != 2]
    if wrong:
        raise WeightsError(f"{layer}.norm.{wrong[0]} has shape {tuple(buffers[wrong[0]].shape)}, not [N, C]")
    if abkw is None:
        raise WeightsError(
            f"{layer}.norm is of the batched variant, whose u is scaled; pass abkw, the backward decay it was "
            "trained with (127/128 on CIFAR-10, 15/16 on CIFAR-100, 0.99 on ImageNet)"
        )
    if not 0 <= abkw < 1:
        raise WeightsError(f"abkw must lie in [0, 1), not {abkw}")
    states = {ours: buffers[name][-1].detach().clone() for name, ours in _BATCHED.items() if ours is not None}
    states["u"] /= 1 - abkw
    return states
