"""Which places exits stand at: those that are named, or so many, evenly by MACs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from itertools import pairwise
from math import prod

from bench.errors import ConfigError
from methods.exits.graph import Backbone, Place

__all__ = ["choose_places"]


def choose_places(backbone: Backbone, exits: Sequence[str] | int, num_classes: int) -> list[Place]:
    """In the order in which they are reached. Raises ConfigError where there is no such place."""
    if isinstance(exits, int):
        return _evenly(backbone, exits, num_classes)
    places = sorted((_named(backbone, name, num_classes) for name in exits), key=lambda place: place.index)
    for one, other in pairwise(places):
        if one.index == other.index:
            raise ConfigError(f"exits: '{one.name}' and '{other.name}' of {backbone.name} are one place; name one of "
                              "them")  # fmt: skip
    return places


def _named(backbone: Backbone, name: str, num_classes: int) -> Place:
    useful = [place for place in backbone.places.values() if _saves(backbone, place, num_classes)]
    place = backbone.places.get(name)
    if place is not None and _saves(backbone, place, num_classes):
        return place
    index = backbone.index_of(name)
    if place is not None or (index is not None and index >= useful[-1].index):
        raise ConfigError(f"exits: after '{name}' of {backbone.name} there is nothing but its own classifier, which is "
                          f"the last exit anyway; the last place before it: '{_outermost(useful[-1], useful)}'")
    if index is None:
        near = difflib.get_close_matches(name, [place.name for place in useful], n=3, cutoff=0.0)
        raise ConfigError(f"exits: {backbone.name} runs no layer '{name}'; the most alike: {_quoted(near)}")
    before = [place for place in useful if place.index < index][-1:]
    after = [place for place in useful if place.index > index][:1]
    near = [_outermost(place, useful) for place in (*before, *after)]
    alive = len(backbone.alive(index))
    why = f"{alive} tensors are alive" if alive > 1 else "what is alive is not one row an image of what it returns"
    raise ConfigError(f"exits: after '{name}' of {backbone.name} {why}; the nearest places: {_quoted(near)}")


def _evenly(backbone: Backbone, number: int, num_classes: int) -> list[Place]:
    """The places nearest to k/(number+1) of the MACs. Of those after the same MACs the last one: its map is normalised
    and activated."""
    by_macs: dict[int, Place] = {}
    for place in backbone.places.values():
        if place.macs and len(place.shape) > 2 and _saves(backbone, place, num_classes):
            known = by_macs.get(place.macs)
            by_macs[place.macs] = place if known is None or place.index > known.index else known
    found = sorted(by_macs.values(), key=lambda place: place.index)
    if number > len(found):
        raise ConfigError(f"exits: {number}, but {backbone.name} has {len(found)} places; ask for at most {len(found)}")
    chosen: list[Place] = []
    first = 0
    for k in range(number):
        target = backbone.macs * (k + 1) / (number + 1)
        left = found[first : len(found) - (number - k - 1)]
        nearest = min(left, key=lambda place: abs(place.macs - target))
        first = found.index(nearest) + 1
        chosen.append(nearest)
    return chosen


def _saves(backbone: Backbone, place: Place, num_classes: int) -> bool:
    """Whether more is left after the place than a linear classifier on what is there."""
    return backbone.macs - place.macs > width(place.shape) * num_classes


def width(shape: tuple[int, ...]) -> int:
    """Features of a pooled map [1, C, H, W] or [1, H, W, C], of tokens [1, N, C], of a vector [1, C]."""
    if len(shape) == 4:
        return shape[3] if channels_last(shape) else shape[1]
    return shape[-1] if len(shape) in (2, 3) else prod(shape[1:])


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a map of a square image has its channels at the end, told by which sides are equal."""
    return shape[1] == shape[2] != shape[3]


def _outermost(place: Place, places: Sequence[Place]) -> str:
    """The shortest name of a place."""
    return min((other.name for other in places if other.index == place.index), key=len)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
