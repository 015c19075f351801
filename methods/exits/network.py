"""A backbone in parts with a head after each of them but the last, which ends in the backbone's own classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn

from bench.errors import ConfigError
from methods.exits.places import channels_last, width
from methods.techniques.ge import GradientEquilibrium

__all__ = ["Boost", "ExitNet", "make_head"]


class _ChannelsFirst(nn.Module):
    """[B, H, W, C] -> [B, C, H, W]"""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class _Token(nn.Module):
    """Tokens [B, N, C] -> the first of them, or their mean. [B, C]"""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] if self.first else x.mean(1)


class Boost(nn.Module):
    """What a head says on top of a share of what was said before it; no gradient into that. Both [B, classes]."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, own: Tensor, before: Tensor) -> Tensor:
        return own + self.share * before.detach()


def make_head(shape: tuple[int, ...], num_classes: int, kind: str, first_token: bool, where: str) -> nn.Sequential:
    """A classifier of what a place has for one image: a map [1, C, H, W] or [1, H, W, C], tokens [1, N, C] or a vector
    [1, C]. kind: "linear" or "conv". where: what an error calls the place."""
    features = width(shape)
    linear = nn.Linear(features, num_classes)
    if len(shape) == 4:
        conv = [nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU()]
        return nn.Sequential(
            *([_ChannelsFirst()] if channels_last(shape) else []), *(conv if kind == "conv" else []),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(1), linear,
        )  # fmt: skip
    if kind == "conv":
        raise ConfigError(f"head: conv needs maps, but {where} has {list(shape[1:])} for an image; set head: linear")
    if len(shape) == 3:
        return nn.Sequential(_Token(first_token), nn.LayerNorm(features), linear)
    if len(shape) == 2:
        return nn.Sequential(linear)
    raise ConfigError(f"exits: {where} has {list(shape[1:])} for an image, which is no map, tokens or a vector")


class ExitNet(nn.Module):
    """images [B, C, H, W] -> logits [B, classes] of every exit, the first one first.

    parts: of the backbone, each from what the one before it returned; the last one returns logits. heads: one for
    each part but the last. boost: 0 for none.
    """

    def __init__(
        self, parts: Sequence[fx.GraphModule], heads: Sequence[nn.Module], boost: float = 0.0,
        equilibrium: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.heads = nn.ModuleList(heads)
        self.boost = Boost(boost) if boost else None
        self.equilibrium = GradientEquilibrium(len(parts)) if equilibrium else None

    def forward(self, images: Tensor) -> list[Tensor]:
        x, said = images, list[Tensor]()
        for k, part in enumerate(self.parts):
            x = part(x)
            if self.equilibrium is not None:
                x = cast(Tensor, self.equilibrium.before_head(k, [x])[0])
            said.append(self.answer(k, x, said[-1] if said else None))
            if self.equilibrium is not None and k + 1 < len(self.parts):
                x = cast(Tensor, self.equilibrium.after_head(k, [x])[0])
        return said

    def answer(self, k: int, x: Tensor, before: Tensor | None) -> Tensor:
        """What exit k says of what part k returned, and of what the exit before it said."""
        own = self.heads[k](x) if k < len(self.heads) else x
        return own if self.boost is None or before is None else self.boost(own, before)

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights of the whole backbone, by its own names. Every key of ours is filled."""
        with torch.no_grad():
            for name, tensor in self._named():
                tensor.copy_(state[name])

    def backbone_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the backbone by its own names."""
        return {name: tensor.detach() for name, tensor in self._named()}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for part in self.parts:
            yield from part.state_dict(keep_vars=True).items()
