"""Whether promises about the risk of leaving early are kept: random splits of every kept exit record.

    python benchmarks/promises.py [--splits 1000] [--calibrate 1000]

The validation and test images of a record are pooled. Each split calibrates on some of them and measures the risk on
the others. Learn-then-Test must break its promise in at most delta of the splits (+ 2 standard errors), conformal risk
control must keep it on average; a threshold that is merely tuned stands beside them. Needs no torch.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.evaluate.measured import read_measured
from bench.evaluate.policies import exit_order
from bench.evaluate.policies.risk import THRESHOLDS, binomial_cdf, harm, last_kept
from bench.evaluate.record import DecisionRecord

KEPT = Path(__file__).resolve().parents[1] / "results" / "reference"
TARGETS = (0.01, 0.02, 0.05)
DELTAS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Kept:
    """Of one rule over the splits: share of splits that break the promise, mean risk, and its standard error."""

    broken: float
    mean: float
    error: float


def exit_losses(*records: DecisionRecord) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per loss: confidence [K, N] of the pooled images, and whether leaving at each exit harms them, bool [K, N]."""
    order = exit_order(records[0].signals)

    def pooled(arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays, axis=1)[order]

    confidence = pooled([r.signals.confidence for r in records])
    hit = pooled([r.outcomes.hit for r in records])
    prediction = pooled([r.signals.prediction for r in records])
    return {"gap": (confidence, hit[-1] & ~hit), "consistency": (confidence, prediction != prediction[-1])}


def simulate(
    confidence: np.ndarray, losses: np.ndarray, targets: tuple[float, ...], deltas: tuple[float, ...], splits: int,
    calibrate: int, seed: int = 0,
) -> dict[tuple[str, float, float | None], Kept]:  # fmt: skip
    """(rule, target, delta) -> what became of its promise. The rules are those of the policies (``keeps``)."""
    harmed = harm(confidence, losses).T.copy()  # [N, J]
    total, n = harmed.sum(axis=0), len(harmed)
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, float, float | None], list[float]] = {}
    tails = {target: binomial_cdf(calibrate, target) for target in targets}
    for _ in range(splits):
        own = harmed[rng.choice(n, calibrate, replace=False)].sum(axis=0)
        risk = (total - own) / (n - calibrate)
        for target in targets:
            rules = {("ltt", delta): tails[target][own] <= delta for delta in deltas}
            rules[("crc", None)] = (own + 1) / (calibrate + 1) <= target
            rules[("tuned", None)] = own / calibrate <= target
            for (rule, delta), keeps in rules.items():
                last = last_kept(keeps)
                found.setdefault((rule, target, delta), []).append(0.0 if last is None else float(risk[last]))
    return {
        key: Kept(float(np.mean(np.array(risks) > key[1])), float(np.mean(risks)),
                  float(np.std(risks, ddof=1)) / len(risks) ** 0.5)
        for key, risks in found.items()
    }  # fmt: skip


def allowed(delta: float, splits: int) -> float:
    """delta plus two standard errors of a share of ``splits`` random splits."""
    return delta + 2 * (delta * (1 - delta) / splits) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--calibrate", type=int, default=1000)
    args = parser.parse_args()
    print(f"{len(THRESHOLDS)} thresholds, {args.splits} splits, {args.calibrate} images to calibrate on")
    print(f"{'record':45}{'loss':13}{'rule':7}{'target':>7}{'delta':>7}{'broken':>8}{'mean':>9}  verdict")
    failures = 0
    for path in sorted(KEPT.glob("*/runs/*/val-signals.npz")):
        measured = read_measured(path.parent)
        if measured is None or measured.val is None or "exits" not in measured.capabilities:
            continue
        name = f"{path.parts[-4][:24]}/{path.parent.name.rsplit('-', 1)[0]}"
        for loss, (confidence, losses) in exit_losses(measured.val, measured.test).items():
            kept = simulate(confidence, losses, TARGETS, DELTAS, args.splits, args.calibrate)
            for (rule, target, delta), one in kept.items():
                good = rule == "tuned" or (
                    one.broken <= allowed(delta, args.splits) if delta else one.mean <= target + 2 * one.error
                )
                failures += not good
                print(f"{name:45}{loss:13}{rule:7}{target:7.2f}{delta or '':>7}{100 * one.broken:7.1f}%"
                      f"{100 * one.mean:8.2f}%  {'' if rule == 'tuned' else 'kept' if good else 'BROKEN'}")  # fmt: skip
    print(f"{failures} promises broken")


if __name__ == "__main__":
    main()
