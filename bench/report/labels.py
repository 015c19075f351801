"""Direct labels: the name of each run beside its points, without overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISTANCES = (8.0, 12.0, 17.0, 24.0, 33.0, 45.0, 60.0)  # points from the anchor
_ANGLES = (0, 45, -45, 90, -90, 135, -135, 180, 20, -20, 160, -160, 70, -70, 110, -110)  # degrees; right first
_ROUNDS = 6
_LEADER, _STUB = 11.0, 5.0  # points: a label farther away gets a line; one so near never does
_CLEAR = 3.0  # points: by how much its own mark should be nearer to a label than those of others
_SAMPLES = 12  # of a line, to see what it crosses


@dataclass(frozen=True)
class Label:
    """text in ``colour`` beside one of the data points ``anchors``; the first is the preferred one."""

    text: str
    anchors: Sequence[tuple[float, float]]
    colour: str


def place_labels(axes: Axes, labels: Sequence[Label], obstacles: np.ndarray, size: float) -> None:
    """Write the labels, each where it covers least: other labels, points and curves, the edge of the axes; and where
    it cannot be taken for the label of another point.

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
    field = _Field(points, (frame.x0, frame.y0, frame.x1, frame.y1))
    anchors = [axes.transData.transform(list(label.anchors)) for label in labels]
    options = []
    for k, label in enumerate(labels):
        foreign = np.concatenate([np.empty((0, 2)), *(other for j, other in enumerate(anchors) if j != k)])
        options.append(_options(_extent(axes, label.text, size, renderer), anchors[k], foreign, field, pixels))
    chosen = _choose(options)
    inverse = axes.transData.inverted()
    for label, option, pick in zip(labels, options, chosen):
        left, bottom, right, top = option.boxes[pick]
        x, y = inverse.transform(((left + right) / 2, (bottom + top) / 2))
        if option.far[pick]:
            ends = inverse.transform([option.near[pick], option.anchors[pick]])
            axes.plot(*ends.T, color=label.colour, linewidth=0.5, alpha=0.7, zorder=1.5, label="_leader")
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
    """Places for one label, [K]: boxes in pixels, the anchor each belongs to, the point of the box that is nearest to
    it, whether a line joins these two, and what the place costs by itself."""

    boxes: np.ndarray
    anchors: np.ndarray
    near: np.ndarray
    far: np.ndarray
    cost: np.ndarray

    def one(self, pick: int) -> _Options:
        part = slice(pick, pick + 1)
        return _Options(self.boxes[part], self.anchors[part], self.near[part], self.far[part], self.cost[part])


class _Field:
    """How many obstacles lie where, and the frame that labels should stay in; pixels."""

    def __init__(self, points: np.ndarray, frame: tuple[float, float, float, float]) -> None:
        self.frame = frame
        edges = [np.arange(np.floor(low), np.ceil(high) + 2) for low, high in (frame[::2], frame[1::2])]
        counts = np.histogram2d(points[:, 0], points[:, 1], bins=edges)[0]
        self._sums = np.pad(counts.cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def count(self, boxes: np.ndarray) -> np.ndarray:
        """Obstacles in each box, [K, 4] to [K]."""
        limits = np.array(self._sums.shape) - 1
        x0, x1 = (np.clip(np.round(boxes[:, k] - np.floor(self.frame[0])), 0, limits[0]).astype(int) for k in (0, 2))
        y0, y1 = (np.clip(np.round(boxes[:, k] - np.floor(self.frame[1])), 0, limits[1]).astype(int) for k in (1, 3))
        s = self._sums
        return s[x1, y1] - s[x0, y1] - s[x1, y0] + s[x0, y0]

    def outside(self, boxes: np.ndarray) -> np.ndarray:
        """By how many pixels each box leaves the frame, [K]."""
        left, bottom, right, top = self.frame
        beyond = np.stack([left - boxes[:, 0], bottom - boxes[:, 1], boxes[:, 2] - right, boxes[:, 3] - top])
        return np.maximum(beyond, 0).sum(axis=0)


def _options(
    extent: tuple[float, float], anchors: np.ndarray, foreign: np.ndarray, field: _Field, pixels: float
) -> _Options:
    boxes = np.concatenate([_candidates(anchor, extent, pixels) for anchor in anchors])
    each = len(_DISTANCES) * len(_ANGLES)
    own = np.repeat(anchors, each, axis=0)
    near = np.clip(own, boxes[:, :2], boxes[:, 2:])
    away = np.hypot(*(near - own).T)
    # What stands nearer to a label than its own point seems to be what it names; a line helps, but is second best.
    other = _distances(boxes, foreign)
    mistaken = other < away + _CLEAR * pixels
    far = (away > _LEADER * pixels) | (mistaken & (away > _STUB * pixels))
    distance = np.tile(np.repeat(_DISTANCES, len(_ANGLES)), len(anchors))
    turn = np.tile(np.arange(len(_ANGLES)), len(_DISTANCES) * len(anchors))
    pad = 4.5 * pixels  # about the radius of a marker
    cost = (
        20 * field.outside(boxes) / pixels + 0.35 * distance + 0.05 * turn
        + 4 * field.count(boxes + np.array([-pad, -pad, pad, pad]))
        + np.where(mistaken, np.where(far, 10.0, 40.0), 0.0) + 2.0 * far * _crossed(near, own, field, pixels)
        + 1.5 * (np.arange(len(boxes)) >= each)  # rather at the preferred anchor, if it makes no difference
    )  # fmt: skip
    return _Options(boxes, own, near, far, cost)


def _choose(options: Sequence[_Options]) -> list[int]:
    """The place of each label: better and better in turn, from two starts, of which the better end counts."""
    alone = [int(np.argmin(option.cost)) for option in options]
    greedy: list[int] = []
    for option in options:
        greedy.append(int(np.argmin(option.cost + _disturbed(option, options, greedy, len(greedy)))))
    best: tuple[float, list[int]] | None = None
    for start in (alone, greedy):
        chosen = list(start)
        for _ in range(_ROUNDS):
            before = list(chosen)
            for i, option in enumerate(options):
                chosen[i] = int(np.argmin(option.cost + _disturbed(option, options, chosen, i)))
            if chosen == before:
                break
        total = sum(
            float(option.cost[k] + _disturbed(option.one(k), options, chosen, i)[0] / 2)
            for i, (option, k) in enumerate(zip(options, chosen))
        )
        if best is None or total < best[0]:
            best = total, chosen
    assert best is not None
    return best[1]


def _disturbed(option: _Options, options: Sequence[_Options], chosen: Sequence[int], own: int) -> np.ndarray:
    """What each place of label ``own`` costs beside the places that the others have, [K]."""
    cost = np.zeros(len(option.boxes))
    for j, pick in enumerate(chosen):
        if j == own:
            continue
        box, near, anchor = options[j].boxes[pick], options[j].near[pick], options[j].anchors[pick]
        through = _inside(_sampled(option.near, option.anchors), box).any(axis=0)
        cost += 60 * _overlap(option.boxes, box) + 30 * (option.far & through)
        if options[j].far[pick]:
            cost += 30 * _inside(_sampled(near, anchor)[:, None], option.boxes[None]).any(axis=0)
            cost += 20 * (option.far & _cross(option.near, option.anchors, near, anchor))
    return cost


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


def _distances(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From each box to the nearest of the points, [K]; far where there is none."""
    if not len(points):
        return np.full(len(boxes), np.inf)
    gaps = np.maximum(boxes[:, None, :2] - points, 0) + np.maximum(points - boxes[:, None, 2:], 0)
    return np.hypot(gaps[..., 0], gaps[..., 1]).min(axis=1)


def _sampled(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Points of the lines between [..., 2] and [..., 2], [S, ..., 2]."""
    steps = np.linspace(0, 1, _SAMPLES).reshape(-1, *[1] * start.ndim)
    return start + (end - start) * steps


def _crossed(start: np.ndarray, end: np.ndarray, field: _Field, pixels: float) -> np.ndarray:
    """How many samples of each line lie on an obstacle, its last part aside, where its own mark is, [K]."""
    points = _sampled(start, end)
    off = np.hypot(*np.moveaxis(points - end, -1, 0)) > 6 * pixels
    small = np.array([-1, -1, 1, 1]) * 1.5 * pixels
    hit = [field.count(np.concatenate([at, at], axis=1) + small) > 0 for at in points]
    return (np.array(hit) & off).sum(axis=0)


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether points [..., 2] lie in boxes [..., 4]."""
    return np.asarray(((points >= boxes[..., :2]) & (points <= boxes[..., 2:])).all(axis=-1))


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Whether each line from a to b, [K, 2], crosses that from c to d, [2]."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        ahead, there = q - p, r - p
        return np.sign(ahead[..., 0] * there[..., 1] - ahead[..., 1] * there[..., 0])

    return (side(a, b, c) != side(a, b, d)) & (side(c, d, a) != side(c, d, b))


def _overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether each box touches the other one, and by how much of itself, [K]."""
    sides = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    area = np.maximum(sides, 0).prod(axis=1)
    return (area > 0) + area / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
