"""Norm option -> the ``norm_layer`` callable that torchvision's networks and ours take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

import baselines.norms.cost  # noqa: F401  (its registration)
from baselines.norms.config import NormConfig
from baselines.norms.group import make_group_norm
from baselines.norms.instance import InstanceNorm2d
from baselines.norms.layer import LayerNorm2d
from baselines.norms.none import NoNorm
from baselines.norms.online import OnlineNorm2d

NormLayer = Callable[[int], nn.Module]

_KINDS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": make_group_norm,
    "layer": LayerNorm2d,
    "instance": InstanceNorm2d,
    "online": OnlineNorm2d,
    "none": NoNorm,
}


def norm_layer(config: NormConfig) -> NormLayer:
    """A callable ``channels -> module`` that normalises [B, channels, H, W].

    Every module has its parameters from the start, one scale and one shift per channel at most, so that it
    takes images of any size. The callable raises ConfigError where a layer's channels do not fit the option.
    """
    return partial(_KINDS[config.kind], **config.parameters())
