"""Group normalisation (Wu and He 2018): statistics per sample over groups of channels and all positions."""

from __future__ import annotations

from torch import nn

from bench.errors import ConfigError


def make_group_norm(channels: int, gn_num_groups: int = 32, eps: float = 1e-5) -> nn.GroupNorm:
    """``gn_num_groups`` groups in every layer, however many channels it has; affine per channel."""
    if channels % gn_num_groups:
        raise ConfigError(
            f"norm: gn_num_groups {gn_num_groups} does not divide the {channels} channels of a layer; "
            "a network's narrowest layer says what fits (8 for CIFAR ResNets of width 16)"
        )
    return nn.GroupNorm(gn_num_groups, channels, eps=eps)
