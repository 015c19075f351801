"""Direct labels: the name of each run beside its points, without overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISTANCES = (8.0, 12.0, 17.0, 24.0, 33.0, 45.0)  # points from the anchor
_ANGLES = (0, 45, -45, 90, -90, 135, -135, 180, 20, -20, 160, -160, 70, -70, 110, -110)  # degrees; right first
_ROUNDS = 6


@dataclass(frozen=True)
class Label:
    """text in ``colour`` beside one of the data points ``anchors``; the first is the preferred one."""

    text: str
    anchors: Sequence[tuple[float, float]]
    colour: str


def place_labels(axes: Axes, labels: Sequence[Label], obstacles: np.ndarray, size: float) -> None:
    """Write the labels, each where it covers least: other labels, points and curves, the edge of the axes.

    obstacles: data coordinates [M, 2] of what should stay visible (curves as dense points). size: of the
    font. A label far from its point gets a thin line to it. The same input gives the same places.
    """
    if not labels:
        return
    figure = axes.figure
    pixels = figure.dpi / 72  # type: ignore[union-attr]
    renderer = figure.canvas.get_renderer()  # type: ignore[union-attr, attr-defined]
    frame = axes.get_window_extent(renderer)
    points = axes.transData.transform(obstacles) if len(obstacles) else np.empty((0, 2))
    options = [_options(axes, label, size, renderer, points, frame, pixels) for label in labels]
    chosen = [int(np.argmin(option.cost)) for option in options]
    for _ in range(_ROUNDS):
        before = list(chosen)
        for i, option in enumerate(options):
            others = np.array([options[j].boxes[chosen[j]] for j in range(len(labels)) if j != i]).reshape(-1, 4)
            chosen[i] = int(np.argmin(option.cost + 60 * _overlap(option.boxes, others)))
        if chosen == before:
            break
    inverse = axes.transData.inverted()
    for label, option, pick in zip(labels, options, chosen):
        (left, bottom, right, top), anchor = option.boxes[pick], option.anchors[pick]
        x, y = inverse.transform(((left + right) / 2, (bottom + top) / 2))
        near = (min(max(anchor[0], left), right), min(max(anchor[1], bottom), top))
        if math.dist(near, anchor) > 11 * pixels:
            ends = inverse.transform([near, anchor])
            axes.plot(*ends.T, color=label.colour, linewidth=0.5, alpha=0.7, zorder=1.5)
        axes.text(x, y, label.text, color=label.colour, fontsize=size, ha="center", va="center", zorder=6)


def densify(axes: Axes, obstacles: Sequence[np.ndarray]) -> np.ndarray:
    """Polylines, data coordinates [K, 2] each, as points a few pixels apart, [M, 2], in the limits of the axes."""
    found = [np.empty((0, 2))]
    for line in obstacles:
        if len(line) == 1:
            found.append(line)
            continue
        pixels = axes.transData.transform(line)
        steps = np.maximum(np.hypot(*np.diff(pixels, axis=0).T) // 4, 1).astype(int)
        dense = [a + (b - a) * np.linspace(0, 1, n + 1)[:, None] for a, b, n in zip(pixels, pixels[1:], steps)]
        found.append(axes.transData.inverted().transform(np.concatenate(dense)))
    return np.concatenate(found)


@dataclass(frozen=True)
class _Options:
    """Places for one label, [K]: boxes in pixels, the anchor each belongs to, and what it costs by itself."""

    boxes: np.ndarray
    anchors: np.ndarray
    cost: np.ndarray


def _options(
    axes: Axes, label: Label, size: float, renderer: object, points: np.ndarray, frame: object, pixels: float
) -> _Options:
    extent = _extent(axes, label.text, size, renderer)
    anchors = axes.transData.transform(list(label.anchors))
    boxes = np.concatenate([_candidates(anchor, extent, pixels) for anchor in anchors])
    each = len(_DISTANCES) * len(_ANGLES)
    cost = _fixed_cost(boxes, points, frame, pixels)
    cost[each:] += 1.5  # rather at the preferred anchor, if it makes no difference
    return _Options(boxes, np.repeat(anchors, each, axis=0), cost)


def _extent(axes: Axes, text: str, size: float, renderer: object) -> tuple[float, float]:
    """Width and height of a text in pixels."""
    probe = axes.text(0, 0, text, fontsize=size)
    box = probe.get_window_extent(renderer)  # type: ignore[arg-type]
    probe.remove()
    return box.width, box.height


def _candidates(anchor: np.ndarray, extent: tuple[float, float], pixels: float) -> np.ndarray:
    """Boxes (left, bottom, right, top) in pixels around an anchor, near ones first, [K, 4]."""
    width, height = extent
    boxes = []
    for distance in _DISTANCES:
        for angle in _ANGLES:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # the point of the box that looks at the anchor lies at this distance
            x = anchor[0] + distance * pixels * cos + width / 2 * max(-1.0, min(1.0, cos * 1.5))
            y = anchor[1] + distance * pixels * sin + height / 2 * max(-1.0, min(1.0, sin * 1.5))
            boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return np.array(boxes)


def _fixed_cost(boxes: np.ndarray, points: np.ndarray, frame: object, pixels: float) -> np.ndarray:
    """What each candidate costs whatever the other labels do."""
    bounds = (frame.x0, frame.y0, frame.x1, frame.y1)  # type: ignore[attr-defined]
    outside = (
        np.maximum(bounds[0] - boxes[:, 0], 0) + np.maximum(bounds[1] - boxes[:, 1], 0)
        + np.maximum(boxes[:, 2] - bounds[2], 0) + np.maximum(boxes[:, 3] - bounds[3], 0)
    )  # fmt: skip
    anchors = len(boxes) // (len(_DISTANCES) * len(_ANGLES))
    distance = np.tile(np.repeat(_DISTANCES, len(_ANGLES)), anchors)
    turn = np.tile(np.arange(len(_ANGLES)), len(_DISTANCES) * anchors)
    cost = outside / pixels * 20 + distance * 0.35 + turn * 0.05
    pad = 4.5 * pixels  # about the radius of a marker
    for k, (left, bottom, right, top) in enumerate(boxes):
        inside = (
            (points[:, 0] > left - pad) & (points[:, 0] < right + pad)
            & (points[:, 1] > bottom - pad) & (points[:, 1] < top + pad)
        )  # fmt: skip
        cost[k] += 4 * inside.sum()
    return cost


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the other boxes each box touches, weighted by how much, [K]."""
    width = np.minimum(boxes[:, None, 2], others[None, :, 2]) - np.maximum(boxes[:, None, 0], others[None, :, 0])
    height = np.minimum(boxes[:, None, 3], others[None, :, 3]) - np.maximum(boxes[:, None, 1], others[None, :, 1])
    area = np.maximum(width, 0) * np.maximum(height, 0)
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return ((area > 0) * 1.0 + area / own[:, None]).sum(axis=1)
