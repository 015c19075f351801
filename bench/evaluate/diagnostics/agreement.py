"""Whether the operating points of one network say the same, and whether more compute undoes what less had right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.evaluate.diagnostics.views import Case, by_run, over_seeds

PAIR_COLUMNS = (
    "run", "label", "point_a", "point_b", *(
        f"{name}_{end}" for name in ("same", "only_a_right", "only_b_right") for end in ("mean", "min", "max")
    ), "n_seeds",
)  # fmt: skip

#: A fall of the label's probability by more than this (a fraction) counts.
DROPS = (0.01, 0.1, 0.5)

_MEASURES = ("overthinking", "underthinking", "monotone", *(f"drop_over_{drop:g}" for drop in DROPS), "drop")
STEPS_COLUMNS = (
    "run", "label", "points", *(f"{name}_{end}" for name in _MEASURES for end in ("mean", "min", "max")), "n_seeds",
)  # fmt: skip


def pair_shares(prediction: np.ndarray, hit: np.ndarray) -> dict[str, np.ndarray]:
    """Of every pair of points (a, b), fractions of the images, [P, P] each.

    prediction: integers [P, N]; hit: bool [P, N]. ``same``: both predict the same class. ``only_a_right`` and
    ``only_b_right``: one is right where the other is wrong.
    """
    n = prediction.shape[1]
    right = hit.astype(np.float64)  # products of zeros and ones below 2^53: exact
    only_a = right @ (1 - right).T / n
    same = np.array([(prediction == row).mean(axis=1) for row in prediction])
    return {"same": same, "only_a_right": only_a, "only_b_right": only_a.T}


def step_measures(hit: np.ndarray, logp: np.ndarray) -> dict[str, float]:
    """What happens along points in order of cost, percent. hit: bool [P, N]; logp: [P, N].

    For exits these are what one image sees on its way; for paths and gate thresholds, passes of their own.
    overthinking: images that an earlier point has right and the last one wrong (Kaya et al. 2019, destructive
    overthinking). underthinking: right at the last point alone. The others are about the probability p_k of the
    label (conditional monotonicity, Jazbec et al. 2023): its largest fall is max over j < k of p_j - p_k.
    monotone: images where it never falls. drop_over_x: where its largest fall is above x. drop: the mean largest fall.
    """
    p = np.exp(np.asarray(logp, dtype=np.float64))
    fall = (np.maximum.accumulate(p, axis=0) - p).max(axis=0)
    early, last = hit[:-1].any(axis=0), hit[-1]
    return {
        "overthinking": 100 * float((early & ~last).mean()),
        "underthinking": 100 * float((~early & last).mean()),
        "monotone": 100 * float((fall == 0).mean()),
        **{f"drop_over_{drop:g}": 100 * float((fall > drop).mean()) for drop in DROPS},
        "drop": 100 * float(fall.mean()),
    }


def agreement_rows(cases: Sequence[Case]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(pairs, steps): percent of the test images, over seeds, of every run with at least two operating points.

    A pair stands once, point_a the cheaper one. Points are in order of cost.
    """
    pairs: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    for seeds in by_run(cases).values():
        first = seeds[0]
        names = [first.test.points[k] for k in first.order]
        if len(names) < 2:
            continue
        # Gate thresholds may cost differently in another seed; the order of the first one holds for all.
        orders = [[case.test.points.index(name) for name in names] for case in seeds]
        found = [
            pair_shares(case.test.signals.prediction[order], case.test.outcomes.hit[order])
            for case, order in zip(seeds, orders)
        ]
        known = {"run": first.run, "label": first.label}
        for a in range(len(names)):
            for b in range(a + 1, len(names)):
                numbers: dict[str, Any] = {}
                for name in ("same", "only_a_right", "only_b_right"):
                    numbers |= over_seeds([100 * float(one[name][a, b]) for one in found], name)
                pairs.append({**known, "point_a": names[a], "point_b": names[b], **numbers, "n_seeds": len(seeds)})
        measured = [
            step_measures(case.test.outcomes.hit[order], case.test.outcomes.logp[order])
            for case, order in zip(seeds, orders)
        ]
        numbers = {}
        for name in measured[0]:
            numbers |= over_seeds([one[name] for one in measured], name)
        steps.append({**known, "points": " ".join(names), **numbers, "n_seeds": len(seeds)})
    return pairs, steps
