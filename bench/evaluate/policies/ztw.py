"""Zero Time Waste: a weighted geometric mean of the exits so far."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bench.evaluate.policies.rescored import Rescored, Scores, log_softmax

_STEPS = 50
#: Added to the diagonal of the curvature: a constant may be added to all biases of an exit without any effect.
_RIDGE = 1e-6


class GeometricMeans(Scores):
    """log p_k(c) = sum over j <= k of a_kj log p_j(c) / k + b_kc, normalised, with a_kj = exp(w_kj) > 0. The last exit
    answers by itself. ``fitted``: for every other exit its k weights w and C biases b."""

    def find(self, logits: np.ndarray, label: np.ndarray) -> np.ndarray:
        logp = log_softmax(logits.astype(np.float64))
        found = [np.concatenate(fit_ensemble(logp[: k + 1], label)) for k in range(len(logp) - 1)]
        return np.concatenate(found) if found else np.empty(0)

    def rescore(self, logits: np.ndarray) -> np.ndarray:
        logp, classes, start = log_softmax(logits), logits.shape[-1], 0
        found = logp.copy()
        for k in range(1, len(logp)):
            w, b = np.split(self.fitted[start : start + k + classes].astype(np.float32), [k])
            found[k - 1] = log_softmax(np.tensordot(np.exp(w) / k, logp[:k], axes=1) + b)
            start += k + classes
        return found


def fit_ensemble(logp: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(w [k], b [C]) with the least mean negative log-likelihood of ``GeometricMeans`` for one exit. logp: float64
    [k, N, C] of this exit and the earlier ones. Gauss-Newton steps, halved until the loss falls."""
    k, n, classes = logp.shape
    hot = np.zeros((n, classes))
    hot[np.arange(n), label] = 1
    w, b = np.zeros(k), np.zeros(classes)

    def scores(w: np.ndarray, b: np.ndarray) -> np.ndarray:
        return log_softmax(np.tensordot(np.exp(w) / k, logp, axes=1) + b)

    found = scores(w, b)
    loss = -float(found[np.arange(n), label].mean())
    for _ in range(_STEPS):
        p = np.exp(found)
        inner = logp * (np.exp(w) / k)[:, None, None]
        gradient = np.concatenate([(inner * (p - hot)).sum(axis=(1, 2)), (p - hot).sum(axis=0)]) / n
        step = np.linalg.solve(_curvature(inner, p), -gradient)
        scale = 1.0
        while scale > 1e-6:
            new_w, new_b = w + scale * step[:k], b + scale * step[k:]
            new = scores(new_w, new_b)
            new_loss = -float(new[np.arange(n), label].mean())
            if new_loss < loss:
                break
            scale /= 2
        else:
            return w, b
        gained, w, b, found, loss = loss - new_loss, new_w, new_b, new, new_loss
        if gained < 1e-10:
            break
    return w, b


def _curvature(inner: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The mean over images of J^T (diag(p) - p p^T) J, J the derivatives of the scores by w and b."""
    k, n, classes = inner.shape
    weighted = inner * p
    mean = weighted.sum(axis=2)  # [k, N]
    h = np.empty((k + classes, k + classes))
    h[:k, :k] = np.einsum("jnc,lnc->jl", weighted, inner) - mean @ mean.T
    h[:k, k:] = weighted.sum(axis=1) - mean @ p
    h[k:, :k] = h[:k, k:].T
    h[k:, k:] = np.diag(p.sum(axis=0)) - p.T @ p
    return h / n + _RIDGE * np.eye(k + classes)


class ZeroTimeWaste(Rescored):
    """Weighted geometric ensemble of the exits so far, weights and biases fitted on validation (Wolczyk et al. 2021,
    "Zero Time Waste: Recycling Predictions in Early Exit Neural Networks"); the backbone's own head is left alone."""

    name: ClassVar[str] = "ztw"
    help: ClassVar[str] = "weighted geometric mean of the exits so far, fitted on validation; setting: threshold"
    SCORES: ClassVar[type[Scores]] = GeometricMeans
