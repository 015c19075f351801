"""Made-up but coherent decision records: networks of given skill on images of given difficulty.

An image has a latent difficulty; a point of skill s is right with a probability that falls with it, and its
confidence follows. Exits share the image's noise, so that they agree as exits of one network do.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from bench.cost.table import CostTable
from bench.evaluate.record import DecisionRecord, Outcomes, Signals
from bench.method import Decisions, Point, Unit

CLASSES = 10


def make_record(
    skills: Sequence[float],
    counts: np.ndarray,
    *,
    n: int = 1000,
    seed: int = 0,
    points: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    noise: float = 0.6,
) -> DecisionRecord:
    """A record of len(skills) points; counts as in ``Signals``. Higher skill, higher accuracy."""
    rng = np.random.default_rng(seed)
    p = len(skills)
    # Records of one size are of the same images, as the runs of a comparison are.
    images = np.random.default_rng(n)
    difficulty = images.normal(size=n)
    label = images.integers(0, CLASSES, n)
    shared = rng.normal(size=n)
    own = rng.normal(size=(p, n))
    evidence = 0.9 + np.asarray(skills)[:, None] - difficulty + noise * (0.7 * shared + 0.7 * own)
    logits = rng.gumbel(size=(p, n, CLASSES)) * 0.5
    np.put_along_axis(logits, np.broadcast_to(label[None, :, None], (p, n, 1)), evidence[..., None] * 2, axis=2)
    logits = logits - logits.max(axis=2, keepdims=True)
    probability = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    top = np.sort(probability, axis=2)[..., ::-1]
    prediction = probability.argmax(axis=2).astype(np.int32)
    own_probability = np.take_along_axis(probability, np.broadcast_to(label[None, :, None], (p, n, 1)), axis=2)[..., 0]
    indices = np.arange(n)
    signals = Signals(
        tuple(points or [f"p{k}" for k in range(p)]),
        tuple(units or [f"u{k}" for k in range(counts.shape[-1])]),
        indices,
        prediction,
        top[..., 0].astype(np.float32),
        (top[..., 0] - top[..., 1]).astype(np.float32),
        -(probability * np.log(np.maximum(probability, 1e-30))).sum(axis=2).astype(np.float32),
        counts,
    )
    outcomes = Outcomes(
        indices,
        label.astype(np.int32),
        prediction == label,
        (probability > own_probability[..., None]).sum(axis=2) < 5,
        np.log(np.maximum(own_probability, 1e-30)).astype(np.float32),
    )
    return DecisionRecord(signals, outcomes)


def make_cost(macs: Sequence[int], units: Sequence[str] | None = None, **extra: Sequence[float]) -> CostTable:
    """A cost table from MACs per unit; the other columns follow from them."""
    macs_array = np.asarray(macs, dtype=np.int64)
    return CostTable(
        tuple(units or [f"u{k}" for k in range(len(macs))]),
        {
            "macs": macs_array,
            "macs_elementwise": macs_array // 50,
            "macs_fvcore": macs_array + macs_array // 100,
            "params": macs_array // 100,
            **{name: np.asarray(values, dtype=np.float64) for name, values in extra.items()},
        },
    )


def exits_record(
    n: int = 1000, seed: int = 0, exits: int = 5, points: Sequence[str] | None = None, lift: float = 0.0
) -> tuple[DecisionRecord, CostTable]:
    """Five exits of one network, the last one first, each a unit of its own on top of the earlier ones."""
    order = [exits - 1, *range(exits - 1)]
    nested = np.tril(np.ones((exits, exits), dtype=np.uint8))[order]
    skills = [0.6 + lift + 0.9 * (1 - 0.6 ** (k + 1)) for k in order]
    record = make_record(
        skills, nested, n=n, seed=seed, points=points or [f"exit{k + 1}" for k in order],
        units=[f"block{k}" for k in range(exits)],
    )  # fmt: skip
    return record, make_cost([7_000_000 + 4_000_000 * k for k in range(exits)], record.units)


class SyntheticMethod:
    """The few hooks of a method that recording needs; its 'network' is a fixed linear map of the image."""

    def __init__(self, points: int = 3, units: int = 4, counts: str = "same") -> None:
        self.p, self.u, self.kind = points, units, counts

    def points(self, model: object) -> list[Point]:
        return [Point(f"p{k}") for k in range(self.p)]

    def units(self, model: object) -> list[Unit]:
        return [SimpleNamespace(name=f"u{k}") for k in range(self.u)]  # type: ignore[misc]

    def record(self, model, images):  # type: ignore[no-untyped-def]
        import torch

        assert not model.training
        assert not torch.is_grad_enabled()
        logits = model(images.flatten(1))
        logits = torch.stack([logits * (k + 1) for k in range(self.p)])
        base = torch.arange(self.p * self.u).reshape(self.p, self.u) % 3
        if self.kind == "same":
            counts = base
        else:
            counts = base[:, None] + (images.mean((1, 2, 3)) > 0).long()[None, :, None]
        return Decisions(logits, counts, {"gate_margin": logits[..., 0]})
