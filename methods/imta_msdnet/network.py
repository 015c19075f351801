"""MSDNet: a two-dimensional grid of scales and layers with an exit after every block.

Huang et al. 2018 (arXiv 1703.09844). Every cell (layer x scale) reads its own scale and, while it exists, the
next finer one, and appends what it computes to its input, so the coarsest scale is good for classifying from
the first block on. Each convolution is followed by a norm and a ReLU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import cast

from torch import Tensor, cat, nn

from baselines.norms.factory import NormLayer, norm_layer
from bench.walking import as_unit
from methods.imta_msdnet.config import IMTAMSDNetConfig
from methods.imta_msdnet.geometry import Geometry, Layer, cell_name
from methods.techniques.ge import GradientEquilibrium

__all__ = ["MSDNet", "Trunk", "half", "scale_sizes", "stem_kind"]


def conv_norm(
    inputs: int, outputs: int, norm: NormLayer, kernel: int = 3, stride: int = 1
) -> list[nn.Module]:
    """Convolution without bias, norm, ReLU; padded so that stride 1 keeps the size."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, norm(outputs), nn.ReLU(inplace=True)]


def branch(inputs: int, outputs: int, norm: NormLayer, width: int | None, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, behind a 1x1 bottleneck of at most ``width`` channels unless that is None."""
    if width is None:
        return nn.Sequential(*conv_norm(inputs, outputs, norm, stride=stride))
    middle = min(inputs, width)
    return nn.Sequential(
        *conv_norm(inputs, middle, norm, kernel=1), *conv_norm(middle, outputs, norm, stride=stride)
    )


class Cell(nn.Module):
    """One scale of one layer: x and, where there is a strided branch, the finer map -> x with new channels
    appended (strided ones first), then the transition where the layer ends in one."""

    def __init__(
        self, config: IMTAMSDNetConfig, layer: Layer, scale: int, finer: bool, norm: NormLayer
    ) -> None:
        super().__init__()
        factor = config.growth_factor
        inputs, grown = layer.base_in * factor[scale], config.growth * factor[scale]
        each = grown // 2 if finer else grown

        def width(source: int) -> int | None:
            return config.bottleneck_factor[source] * each if config.bottleneck else None

        self.down: nn.Sequential | None = None
        if finer:
            self.down = branch(layer.base_in * factor[scale - 1], each, norm, width(scale - 1), stride=2)
        self.normal = branch(inputs, each, norm, width(scale))
        self.transition: nn.Sequential | None = None
        if layer.transition:
            self.transition = nn.Sequential(
                *conv_norm(inputs + grown, layer.base_out * factor[scale], norm, kernel=1)
            )

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        new = [x, self.normal(x)] if self.down is None else [x, self.down(finer), self.normal(x)]
        x = cat(new, dim=1)
        return x if self.transition is None else self.transition(x)


class ScaleLayer(nn.Module):
    """All scales of one layer. maps: one entry a scale, finest first, None for a scale that has ended."""

    def __init__(self, config: IMTAMSDNetConfig, geometry: Geometry, layer: Layer, norm: NormLayer) -> None:
        super().__init__()
        written = geometry.written(layer)
        self.first = written.start
        self.cells = nn.ModuleList(
            Cell(config, layer, scale, geometry.reads_finer(layer, scale), norm) for scale in written
        )

    def forward(self, maps: list[Tensor | None]) -> list[Tensor | None]:
        written: list[Tensor | None] = [None] * self.first
        for scale, cell in enumerate(self.cells, start=self.first):
            written.append(cell(maps[scale]) if cell.down is None else cell(maps[scale], maps[scale - 1]))
        return written


class Trunk(nn.Module):
    """Stem and blocks. images [B, 3, H, W] -> the coarsest map after every block, [B, d_k, h, w] each."""

    def __init__(self, config: IMTAMSDNetConfig, image_size: int, image_channels: int = 3) -> None:
        super().__init__()
        norm = norm_layer(config.norm)
        self.geometry = config.geometry()
        self.equilibrium = None if config.ge == "none" else GradientEquilibrium(config.exits, config.ge)
        widths = [config.channels * factor for factor in config.growth_factor]
        if stem_kind(config, image_size) == "imagenet":
            first = nn.Sequential(
                nn.Conv2d(image_channels, widths[0], 7, stride=2, padding=3),
                norm(widths[0]),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
        else:
            first = nn.Sequential(*conv_norm(image_channels, widths[0], norm))
        strided = [nn.Sequential(*conv_norm(a, b, norm, stride=2)) for a, b in pairwise(widths)]
        self.stem = nn.ModuleList([first, *strided])
        self.blocks = nn.ModuleList(
            nn.ModuleList(ScaleLayer(config, self.geometry, layer, norm) for layer in self.geometry.block(k))
            for k in range(config.exits)
        )
        for place, module in self.cells():
            as_unit(module, cell_name(place))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor | None] = []
        x = images
        for scale in self.stem:
            x = scale(x)
            maps.append(x)
        coarsest: list[Tensor] = []
        for k in range(len(self.blocks)):
            for layer in self.block(k):
                maps = layer(maps)
            if self.equilibrium is not None:
                maps = self.equilibrium.before_head(k, maps)
            coarsest.append(maps[-1])  # type: ignore[arg-type]  # the coarsest scale never ends
            if self.equilibrium is not None and k + 1 < len(self.blocks):
                maps = self.equilibrium.after_head(k, maps)
        return coarsest

    def cells(self) -> Iterator[tuple[tuple[int, int], nn.Module]]:
        """Every cell (layer index, scale) with its module; index 0 is the stem."""
        yield from (((0, scale), module) for scale, module in enumerate(self.stem))
        layers = (layer for k in range(len(self.blocks)) for layer in self.block(k))
        for planned, layer in zip(self.geometry.layers, layers):
            yield from (((planned.index, scale), cell) for scale, cell in enumerate(layer.cells, start=layer.first))

    def block(self, k: int) -> list[ScaleLayer]:
        """The layers of block k."""
        return list(cast("Iterable[ScaleLayer]", self.blocks[k]))


class Head(nn.Module):
    """Two strided convolutions and pooling (``body``, [B, d, h, w] -> feature [B, f]), then ``linear``."""

    def __init__(self, inputs: int, width: int, classes: int, pool: str, norm: NormLayer) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(*conv_norm(inputs, width, norm, stride=2)),
            nn.Sequential(*conv_norm(width, width, norm, stride=2)),
            nn.AvgPool2d(2) if pool == "fixed" else nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.body(x))


class MSDNet(nn.Module):
    """The whole network. images [B, 3, H, W] -> logits [B, C] of every exit, the first exit first."""

    def __init__(
        self, config: IMTAMSDNetConfig, num_classes: int, image_size: int, image_channels: int = 3
    ) -> None:
        super().__init__()
        self.trunk = Trunk(config, image_size, image_channels)
        self.widths = feature_widths(config, image_size)
        geometry, norm = self.trunk.geometry, norm_layer(config.norm)
        self.heads = nn.ModuleList(
            Head(geometry.head_width(k), width, num_classes, config.head_pool, norm)
            for k, width in enumerate(self.widths)
        )
        for k, head in enumerate(self.heads):
            as_unit(head, f"head {k + 1}")
        if config.init == "he":
            init_he(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [head(x) for head, x in zip(self.heads, self.trunk(images))]

    def classify(self, k: int, coarsest: Tensor, previous: Tensor | None = None) -> Tensor:
        """Logits [B, C] of exit k from its map. Exits do not see one another: ``previous`` is not read."""
        return self.heads[k](coarsest)

    def head(self, k: int) -> Head:
        """Head k, by its own type."""
        return cast(Head, self.heads[k])


def feature_widths(config: IMTAMSDNetConfig, image_size: int) -> tuple[int, ...]:
    """Width of each exit's pooled feature."""
    geometry = config.geometry()
    fixed = config.head_channels or (128 if stem_kind(config, image_size) == "cifar" else None)
    return tuple(fixed or geometry.head_width(k) for k in range(config.exits))


def stem_kind(config: IMTAMSDNetConfig, image_size: int) -> str:
    """The stem in force: "cifar" or "imagenet"."""
    if config.stem != "auto":
        return config.stem
    return "imagenet" if image_size > 64 else "cifar"


def half(size: int) -> int:
    """Side of a map after a padded stride of 2."""
    return (size - 1) // 2 + 1


def scale_sizes(config: IMTAMSDNetConfig, image_size: int) -> tuple[int, ...]:
    """Side of the maps of every scale, finest first, for images of this side."""
    sizes = [half(half(image_size)) if stem_kind(config, image_size) == "imagenet" else image_size]
    for _ in config.growth_factor[1:]:
        sizes.append(half(sizes[-1]))
    return tuple(sizes)


def init_he(network: nn.Module) -> None:
    """As in the Lua release: convolutions normal with variance 2 / (k k outputs), linear biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
