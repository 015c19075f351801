"""How far the confidence of every exit, path and mixture can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.evaluate.calibration import Reliability, auroc, reliability
from bench.evaluate.diagnostics.views import Case, View

BINS_COLUMNS = (
    "run", "label", "seed", "policy", "point", "setting", "bin_low", "bin_high", "count", "confidence", "accuracy",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "run", "label", "seed", "policy", "point", "setting", "n", "confidence", "accuracy", "overconfidence", "ece",
    "auroc",
)  # fmt: skip


def view_reliability(case: Case, view: View) -> Reliability:
    """The reliability diagram of the answers that a view gives to the test images."""
    confidence = view.choice.confidence(case.test.signals)
    return reliability(confidence, view.choice.hit(case.test.outcomes))


def calibration_rows(cases: Sequence[Case]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(bins, summary): one row per bin, and one per view, of every run and seed.

    bins: edges, mean confidence and accuracy are fractions; an empty bin has none of the latter two. summary: in
    percent as in the results table; ``overconfidence`` is mean confidence minus accuracy, and ``ece`` equals the
    column of that name there. auroc: how well the confidence tells right answers from wrong ones.
    """
    bins: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    for case in cases:
        for view in case.views:
            known = {
                "run": case.run, "label": case.label, "seed": case.seed, "policy": view.policy, "point": view.point,
                "setting": view.setting,
            }  # fmt: skip
            found = view_reliability(case, view)
            low = 0.0
            for high, count, confidence, accuracy in zip(found.edges, found.count, found.confidence, found.accuracy):
                bins.append({
                    **known, "bin_low": round(low, 6), "bin_high": round(float(high), 6), "count": int(count),
                    "confidence": round(float(confidence), 6), "accuracy": round(float(accuracy), 6),
                })  # fmt: skip
                low = float(high)
            own = view.choice.confidence(case.test.signals)
            told = auroc(own, view.choice.hit(case.test.outcomes))
            confidence = 100 * float(view.choice.confidence(case.test.signals).mean(dtype="float64"))
            accuracy = 100 * float(view.choice.hit(case.test.outcomes).mean())
            summary.append({
                **known, "n": case.test.n, "confidence": round(confidence, 4), "accuracy": round(accuracy, 4),
                "overconfidence": round(confidence - accuracy, 4), "ece": round(100 * found.ece, 4),
                "auroc": None if told is None else round(told, 4),
            })  # fmt: skip
    return bins, summary
