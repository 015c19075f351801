"""An independent second opinion: plain torchvision networks filled from released names.

Nothing of methods.adn is used here. Split tables, key names and flag routing are written out again from the
published facts, family by family, the other way round (released name -> torchvision name).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import swin_transformer
from torchvision.models.resnet import Bottleneck

#: arch -> (blocks of each stage, mandatory blocks of each stage)
TABLE = {
    "resnet50": ((3, 4, 6, 3), (2, 2, 3, 2)),
    "resnet101": ((3, 4, 23, 3), (2, 2, 12, 2)),
    "resnet50vd": ((3, 4, 6, 3), (2, 2, 3, 2)),
    "resnet101vd": ((3, 4, 23, 3), (2, 2, 12, 2)),
    "mobilenet_v2": ((2, 3, 4, 3, 3), (1, 2, 2, 2, 2)),
    "swin_t": ((2, 2, 6, 2), (1, 1, 3, 1)),
    "swin_v2_t": ((2, 2, 6, 2), (1, 1, 3, 1)),
    "vit_b_16": ((3, 3, 3, 3), (2, 2, 2, 2)),
    "vit_b_32": ((3, 3, 3, 3), (2, 2, 2, 2)),
}
Flags = tuple[bool, ...]
#: released norm (without _skip) -> the flag that drives it, or None where all sub-networks share it
NormTable = dict[str, "int | None"]


def kept(arch: str, flags: Flags) -> list[list[int]]:
    """Original numbers of the blocks that run, per stage."""
    return [list(range(few if flag else n)) for n, few, flag in zip(*TABLE[arch], flags)]


def composed(arch: str, released: Mapping[str, Tensor], flags: Flags, image_size: int) -> nn.Module:
    """torchvision's network with the blocks and norms of one skip configuration, in evaluation mode."""
    with torch.device("meta"):
        network = _empty(arch, [len(stage) for stage in kept(arch, flags)], image_size)
    state = dict(_translate(arch, released, flags))
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def _empty(arch: str, depths: list[int], image_size: int) -> nn.Module:
    if arch.startswith("resnet"):
        network = models.ResNet(Bottleneck, depths)
        if arch.endswith("vd"):
            for layer, (width, wide) in zip(
                (network.layer2, network.layer3, network.layer4), ((256, 512), (512, 1024), (1024, 2048))
            ):
                layer[0].downsample = nn.Sequential(
                    nn.AvgPool2d(kernel_size=2, stride=2, ceil_mode=True),
                    nn.Conv2d(width, wide, 1, bias=False),
                    nn.BatchNorm2d(wide),
                )
        return network
    if arch == "mobilenet_v2":
        a, b, c, d, e = depths
        rows = [[1, 16, 1, 1], [6, 24, a, 2], [6, 32, b, 2], [6, 64, c, 2], [6, 96, d, 1], [6, 160, e, 2]]
        return models.MobileNetV2(inverted_residual_setting=[*rows, [6, 320, 1, 1]])
    if arch == "swin_t":
        return models.SwinTransformer([4, 4], 96, depths, [3, 6, 12, 24], [7, 7])
    if arch == "swin_v2_t":
        return models.SwinTransformer(
            [4, 4], 96, depths, [3, 6, 12, 24], [8, 8],
            block=swin_transformer.SwinTransformerBlockV2,
            downsample_layer=swin_transformer.PatchMergingV2,
        )  # fmt: skip
    patch = 16 if arch == "vit_b_16" else 32
    return models.VisionTransformer(image_size, patch, sum(depths), 12, 768, 3072)


def _translate(arch: str, released: Mapping[str, Tensor], flags: Flags) -> Iterator[tuple[str, Tensor]]:
    """(torchvision key, tensor) of everything that one configuration uses."""
    norms = norm_table(arch)
    rename = _renames(arch, flags)
    for key, tensor in released.items():
        module, _, leaf = key.rpartition(".")
        twin = module.endswith("_skip")
        plain = module.removesuffix("_skip")
        flag = norms.get(plain)
        if flag is not None and twin != flags[flag]:
            continue
        new = rename(f"{plain}.{leaf}".lstrip("."))
        if new is not None:
            yield new, tensor


def _renames(arch: str, flags: Flags) -> Callable[[str], str | None]:
    """Released key -> torchvision key, None where the block does not run."""
    table: dict[str, str | None] = {}
    blocks = TABLE[arch][0]
    runs = kept(arch, flags)
    if arch.startswith("resnet"):
        for s, n in enumerate(blocks):
            for b in range(n):
                table[f"layer{s + 1}.{b}."] = f"layer{s + 1}.{b}." if b in runs[s] else None
    elif arch.startswith("vit"):
        new = 0
        for s in range(4):
            for b in range(3):
                table[f"encoder.layers.encoder_layer_{3 * s + b}."] = (
                    f"encoder.layers.encoder_layer_{new}." if b in runs[s] else None
                )
                new += b in runs[s]
    elif arch.startswith("swin"):
        table["pre.0."], table["pre.2."] = "features.0.0.", "features.0.2."
        for s, n in enumerate(blocks):
            for b in range(n):
                table[f"features.{2 * s}.{b}."] = f"features.{2 * s + 1}.{b}." if b in runs[s] else None
            for part in ("norm", "reduction"):
                table[f"features.{2 * s + 1}.{part}."] = f"features.{2 * s + 2}.{part}."
    else:
        new = 0
        for unit, stage, b in mobilenet_units():
            runs_here = stage is None or b in runs[stage]
            for theirs, ours in _mobilenet_inside(unit).items():
                table[theirs] = f"features.{new}.{ours}" if runs_here else None
            new += runs_here

    def rename(key: str) -> str | None:
        for prefix, replacement in table.items():
            if key.startswith(prefix):
                return None if replacement is None else replacement + key[len(prefix) :]
        return key

    return rename


def mobilenet_units() -> Iterator[tuple[str, int | None, int]]:
    """Released path of each unit in order, with its stage (None: it always runs) and number in the stage."""
    yield "features.0", None, 0
    yield "features.1", None, 0
    for stage, n in enumerate(TABLE["mobilenet_v2"][0]):
        for b in range(n):
            yield f"features.{stage + 2}.{b}", stage, b
    yield "features.7", None, 0
    yield "features.8", None, 0


def _mobilenet_inside(unit: str) -> dict[str, str]:
    """Released path of each convolution and norm of a unit -> its path inside torchvision's unit."""
    if unit in ("features.0", "features.8"):
        return {f"{unit}.conv_layer.": "0.", f"{unit}.norm.": "1."}
    inside = {}
    last = 1 if unit == "features.1" else 2
    for j in range(last):
        inside[f"{unit}.conv.{j}.conv_layer."] = f"conv.{j}.0."
        inside[f"{unit}.conv.{j}.norm."] = f"conv.{j}.1."
    inside[f"{unit}.conv.{last}.conv_layer."] = f"conv.{last}."
    inside[f"{unit}.conv.{last}.norm."] = f"conv.{last + 1}."
    return inside


def norm_table(arch: str) -> NormTable:
    """Which norms have a twin, and the flag that chooses between the two."""
    blocks, mandatory = TABLE[arch]
    table: NormTable = {}
    for s, (n, few) in enumerate(zip(blocks, mandatory)):
        for b in range(n):
            flag = s if b < few else None
            if arch.startswith("resnet"):
                table.update({f"layer{s + 1}.{b}.bn{i}": flag for i in (1, 2, 3)})
            elif arch.startswith("swin"):
                table.update({f"features.{2 * s}.{b}.norm{i}": flag for i in (1, 2)})
            elif arch.startswith("vit"):
                table.update({f"encoder.layers.encoder_layer_{3 * s + b}.ln_{i}": flag for i in (1, 2)})
    if arch.startswith("resnet"):
        table["bn1"] = None
        place = {s: 2 if arch.endswith("vd") and s > 0 else 1 for s in range(4)}
        table.update({f"layer{s + 1}.0.downsample.{place[s]}": None for s in range(4)})
    elif arch.startswith("swin"):
        table["pre.2"] = table["norm"] = None
        # Item i of the row stage, merge, stage, ... follows flag floor((i + 1) / 2).
        table.update({f"features.{i}.norm": (i + 1) // 2 for i in (1, 3, 5)})
    elif arch.startswith("vit"):
        table["encoder.ln"] = None
    else:
        for unit, stage, b in mobilenet_units():
            flag = stage if stage is None or b < mandatory[stage] else None
            if stage is None:
                flag = 0 if unit in ("features.0", "features.1") else 4
            table.update({k[:-1]: flag for k in _mobilenet_inside(unit) if k.endswith("norm.")})
    return table


def fired(arch: str, flags: Flags) -> set[str]:
    """Released names of the norms that run under a configuration."""
    runs = kept(arch, flags)
    table = norm_table(arch)
    names = set()
    for norm, flag in table.items():
        stage, block = _block_of(arch, norm)
        if stage is not None and block not in runs[stage]:
            continue
        names.add(f"{norm}_skip" if flag is not None and flags[flag] else norm)
    return names


def _block_of(arch: str, norm: str) -> tuple[int | None, int]:
    words = norm.split(".")
    if arch.startswith("resnet") and words[0].startswith("layer"):
        return int(words[0][5:]) - 1, int(words[1])
    if arch.startswith("vit") and len(words) == 4:
        number = int(words[2].rsplit("_", 1)[1])
        return number // 3, number % 3
    if arch.startswith("swin") and len(words) == 4:
        return int(words[1]) // 2, int(words[2])
    if arch == "mobilenet_v2":
        for unit, stage, b in mobilenet_units():
            if norm.startswith(unit + ".") and stage is not None:
                return stage, b
    return None, 0


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Other values for all norms, biases and statistics, so that using the wrong one shows; and for heads."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.copy_(0.8 + 0.4 * torch.rand(tensor.shape, generator=generator))
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.copy_(0.9 + 0.2 * torch.rand(tensor.shape, generator=generator))
            elif tensor.ndim == 1:
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif tensor.ndim == 2 and not tensor.any():
                tensor.copy_(0.02 * torch.randn(tensor.shape, generator=generator))
