"""Norm option -> the ``norm_layer`` callable that torchvision's networks and ours take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from baselines.norms.config import NormConfig

NormLayer = Callable[[int], nn.Module]


def norm_layer(config: NormConfig) -> NormLayer:
    """A callable ``channels -> module`` that normalises [B, channels, H, W]."""
    return _KINDS[config.kind](config)


def _batch(config: NormConfig) -> NormLayer:
    return partial(nn.BatchNorm2d, eps=config.eps, momentum=config.momentum)


_KINDS: dict[str, Callable[[NormConfig], NormLayer]] = {"batch": _batch}
