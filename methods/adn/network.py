"""The network: a stem, stages that a skip configuration shortens, a head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from methods.adn.blocks import Adaptive
from methods.adn.splits import Skip, Split, all_skips, parse_skip

NCHW, NHWC, TOKENS = (2, 3), (1, 2), (1,)


class AdaptiveStage(nn.Module):
    """One stage: its blocks in order, those marked skippable left out where its flag is set.

    Between blocks stand what else follows the stage's flag (Swin's patch merging, MobileNetV2's first and
    last convolutions); these always run.
    """

    def __init__(self, blocks: Sequence[nn.Module], skippable: Sequence[bool], skip_aware: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.skippable = tuple(skippable)
        self.skip_aware = skip_aware

    def forward(self, x: Tensor, skip: bool = False, start: int = 0) -> Tensor:
        """Run the stage from block ``start`` on."""
        for index in range(start, len(self.skippable)):
            block = self.blocks[index]
            if isinstance(block, Adaptive):
                x = block(x, skip)  # type: ignore[operator]
            elif not (skip and self.skippable[index]):
                x = block(x)
        return x

    def both(self, x: Tensor) -> Iterator[Tensor]:
        """Output of the whole stage, then of the shortened one, in evaluation mode.

        Without a second set of norms both run the same mandatory blocks, which are then run once.
        """
        start = 0
        if not self.skip_aware:
            start = self.skippable.index(True) if True in self.skippable else len(self.skippable)
            for block in self.blocks[:start]:
                x = block(x)
        yield self(x, False, start)
        yield self(x, True, start)


class AdaptiveNetwork(nn.Module):
    """``network(images, skip)`` runs one skip configuration and nothing else.

    stem: what no flag touches. pooled: the dimensions that pool a stage's output to [B, C].
    torchvision_names: our module path -> that of torchvision's network of the same depth.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[AdaptiveStage],
        head: nn.Module,
        *,
        split: Split,
        pooled: tuple[int, ...],
        torchvision_names: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages: Sequence[AdaptiveStage] = nn.ModuleList(stages)  # type: ignore[assignment]
        self.head = head
        self.split = split
        self.pooled = pooled
        self.torchvision_names = dict(torchvision_names)

    def forward(self, images: Tensor, skip: str | Sequence[bool] = "super") -> Tensor:
        """Logits [B, classes] of images [B, C, H, W]. skip: as ``parse_skip`` takes it."""
        x = self.stem(images)
        for stage, flag in zip(self.stages, parse_skip(skip, self.split.flags)):
            x = stage(x, flag)
        return self.head(x)

    def forward_features(
        self, images: Tensor, skip: str | Sequence[bool] = "super", stages: Sequence[int] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the pooled outputs [B, C] of ``stages`` (from 1), in the order of the network."""
        x = self.stem(images)
        features = []
        for number, (stage, flag) in enumerate(zip(self.stages, parse_skip(skip, self.split.flags)), start=1):
            x = stage(x, flag)
            if number in stages:
                features.append(x.mean(self.pooled))
        return self.head(x), features

    def walk(self, images: Tensor) -> Iterator[tuple[Skip, Tensor]]:
        """Logits of every skip configuration, in the order of ``all_skips``, in evaluation mode.

        Configurations that begin alike share what they have in common: a tree, walked depth first, in which
        stage s runs 2^s times (s = 1, 2, ...) instead of 2^n times and at most n + 1 activations are alive.
        """
        yield from self._walk(self.stem(images), ())

    def _walk(self, x: Tensor, above: Skip) -> Iterator[tuple[Skip, Tensor]]:
        if len(above) == self.split.flags:
            yield above, self.head(x)
            return
        for flag, out in zip((False, True), self.stages[len(above)].both(x)):
            yield from self._walk(out, (*above, flag))

    def skips(self) -> list[Skip]:
        """All skip configurations, the super-net first."""
        return all_skips(self.split.flags)
