"""How each backbone is split, and skip configurations: torch-free, so that options are checked at once.

A network is a row of stages. The first blocks of a stage are *mandatory*, the last ones are *skippable*
(Kang and Lee 2024, section 3.1). A skip configuration has one flag per stage, written as one letter: T skips
the skippable blocks of that stage and switches its mandatory blocks to their second set of norms, F runs
everything. All F is the super-net, all T the base-net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from bench.errors import ConfigError

#: One flag per stage, True where the stage's skippable blocks are left out.
Skip = tuple[bool, ...]

NAMES = {"super": False, "base": True}


@dataclass(frozen=True)
class Split:
    """Residual blocks of each stage, and how many of them, from the first, are mandatory."""

    blocks: tuple[int, ...]
    mandatory: tuple[int, ...]

    @property
    def flags(self) -> int:
        """Length of a skip configuration."""
        return len(self.blocks)

    def depths(self, skip: Skip) -> tuple[int, ...]:
        """Blocks that run in each stage under a skip configuration."""
        return tuple(m if flag else n for n, m, flag in zip(self.blocks, self.mandatory, skip))


#: ImageNet backbones by name -> blocks of each stage. MobileNetV2's single-block stages and Swin's patch
#: merging belong to the stage beside them; ViT's twelve blocks are four groups of three.
BACKBONES: dict[str, tuple[int, ...]] = {
    "mobilenet_v2": (2, 3, 4, 3, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet50vd": (3, 4, 6, 3),
    "resnet101vd": (3, 4, 23, 3),
    "swin_t": (2, 2, 6, 2),
    "swin_v2_t": (2, 2, 6, 2),
    "vit_b_16": (3, 3, 3, 3),
    "vit_b_32": (3, 3, 3, 3),
}


def split_of(blocks: tuple[int, ...], mandatory: tuple[int, ...] | None = None) -> Split:
    """The released rule, half of each stage rounded up but never all of it; or ``mandatory`` as given."""
    return Split(blocks, mandatory or tuple(min(n - 1, (n + 1) // 2) for n in blocks))


def all_skips(flags: int) -> list[Skip]:
    """All 2^flags skip configurations, the super-net first, the last flag changing fastest."""
    return list(product((False, True), repeat=flags))


def skip_name(skip: Skip) -> str:
    """(False, True, False, False) -> 'FTFF'."""
    return "".join("T" if flag else "F" for flag in skip)


def parse_skip(value: str | Sequence[bool], flags: int, *, where: str | None = None) -> Skip:
    """A skip configuration from letters ('FTFF'), a name ('super', 'base') or a sequence of bools.

    Raises ConfigError for a wrong length, another letter, or anything but bools in a sequence.
    """
    what = f"skip configuration {value!r}"
    if isinstance(value, str):
        if value in NAMES:
            return (NAMES[value],) * flags
        for place, letter in enumerate(value, start=1):
            if letter not in "TF":
                raise ConfigError(
                    f"{what}: {letter!r} at place {place} is neither T (skip) nor F (run); "
                    f"write {flags} letters, or super or base",
                    where=where,
                )
        skip = tuple(letter == "T" for letter in value)
    else:
        if not isinstance(value, (list, tuple)) or any(not isinstance(flag, bool) for flag in value):
            raise ConfigError(
                f"{what}: must be letters such as {'F' * flags!r}, super, base, or {flags} bools", where=where
            )
        skip = tuple(value)
    if len(skip) != flags:
        raise ConfigError(f"{what}: has {len(skip)} flags, this backbone takes {flags}", where=where)
    return skip
