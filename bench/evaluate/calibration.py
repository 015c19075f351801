"""How far a network's confidence can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """One reliability diagram: per bin its upper edge, images, mean confidence, accuracy (nan: empty)."""

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3), a fraction."""
        gap = np.where(self.count > 0, np.abs(self.accuracy - self.confidence), 0.0)
        return float((self.count * gap).sum() / self.count.sum())


def reliability(confidence: np.ndarray, hit: np.ndarray, bins: int = BINS) -> Reliability:
    """Images in equally wide bins of confidence, ((b-1)/bins, b/bins]; confidence 0 joins the first.

    confidence: [N] in [0, 1]. hit: bool [N].
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    hit = np.asarray(hit, dtype=np.float64)
    if confidence.shape != hit.shape or confidence.ndim != 1 or not len(hit):
        raise ValueError(f"confidence {confidence.shape} and hit {hit.shape}")
    edges = np.arange(1, bins + 1) / bins
    place = np.minimum(np.searchsorted(edges, confidence, side="left"), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, confidence, minlength=bins) / count
        accuracy = np.bincount(place, hit, minlength=bins) / count
    return Reliability(edges, count, mean_confidence, accuracy)


def ece(confidence: np.ndarray, hit: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error over ``bins`` equally wide bins, a fraction."""
    return reliability(confidence, hit, bins).ece


def auroc(confidence: np.ndarray, hit: np.ndarray) -> float | None:
    """Probability that a right answer is more confident than a wrong one, ties counted half (Mann and Whitney 1947);
    None if all are right or all are wrong. confidence: [N]. hit: bool [N]."""
    right, wrong = np.sort(confidence[hit]), np.sort(confidence[~hit])
    if not len(right) or not len(wrong):
        return None
    below = np.searchsorted(wrong, right, side="left").sum()
    up_to = np.searchsorted(wrong, right, side="right").sum()
    return float(below + up_to) / (2 * len(right) * len(wrong))


def nll(logp: np.ndarray) -> float:
    """Mean negative log-likelihood of the labels, nats. logp: [N]."""
    return float(-np.asarray(logp, dtype=np.float64).mean())
