"""Who pays for the savings: cost and accuracy by class and by difficulty of the image.

How difficult an image is must not be said by the network that is judged: an image on which it fails would be
difficult by definition. Here it is the log-probability of the label at the default point, averaged over all *other*
runs of the comparison (over the seeds of a run first, so that each run weighs the same), in five parts by rank. A run
that is alone says it itself, and a note says so.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.evaluate.diagnostics.views import Case, View, by_run, over_seeds, same_views, settings_text

#: Quantiles of difficulty: quintiles, 1 the easiest.
QUANTILES = 5

#: A label that a network holds impossible counts as this probability: one network must not decide alone.
LEAST = np.log(1e-6)

_RUN = ("run", "label", "policy", "point", "setting")
_NUMBERS = ("macs_mean", "macs_min", "macs_max", "relative_mean", "relative_min", "relative_max",
            "top1_mean", "top1_min", "top1_max", "n_seeds")  # fmt: skip
CLASS_COLUMNS = (*_RUN, "class", "class_name", "n", *_NUMBERS)
DIFFICULTY_COLUMNS = (*_RUN, "quantile", "n", "label_probability", *_NUMBERS)


def difficulty(cases: Sequence[Case]) -> np.ndarray:
    """Mean log-probability of the label over runs at their default points, nats, [N]; low is difficult.

    The cases must be of the same images. Each log-probability counts at least as log 1e-6.
    """
    runs = [
        np.mean([np.maximum(case.test.outcomes.logp[0].astype(np.float64), LEAST) for case in seeds], axis=0)
        for seeds in by_run(cases).values()
    ]
    return np.mean(runs, axis=0)


def quantile_of(easiness: np.ndarray, parts: int = QUANTILES) -> np.ndarray:
    """The quantile of every image, int64 [N]: 0 for the largest values (easy), parts - 1 for the smallest.

    Equal values share a quantile, that of their middle rank, so that nothing depends on the order of images; with
    ties the quantiles differ in size.
    """
    _, place, often = np.unique(-np.asarray(easiness, dtype=np.float64), return_inverse=True, return_counts=True)
    middle = np.cumsum(often) - often / 2  # ranks of ties run over an interval; this is its middle
    return np.minimum((parts * middle / len(easiness)).astype(np.int64), parts - 1)[place.reshape(-1)]


def group_means(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Mean of values [N] in each group, float64 [groups]; nan where a group is empty. group: integers [N]."""
    count = np.bincount(group, minlength=groups)
    with np.errstate(invalid="ignore"):
        return np.bincount(group, np.asarray(values, dtype=np.float64), minlength=groups) / count


def payer_rows(
    cases: Sequence[Case], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(by class, by difficulty): means over seeds for every view whose cost depends on the image, taking of single
    points only the default one.

    names: of the classes. ``relative``: cost over the mean cost of the same view, percent. ``top1`` in percent.
    ``label_probability``: geometric mean of what all other networks give the label, in that quantile, percent. A class
    without test images has n = 0 and no numbers.
    """
    groups = by_images(cases)
    classes: list[dict[str, Any]] = []
    quantiles: list[dict[str, Any]] = []
    for seeds in by_run(cases).values():
        for group in same_views(seeds):
            if not any(view.adaptive and (view.mixture or view.default) for _, view in group):
                continue
            case, view = group[0]
            known = {"run": case.run, "label": case.label, "policy": view.policy, "point": view.point,
                     "setting": settings_text([view for _, view in group])}  # fmt: skip
            labels = [case.test.outcomes.label for case, _ in group]
            for k, values in enumerate(_grouped(group, labels, len(names))):
                classes.append({**known, "class": k, "class_name": names[k], **values})
            easiness = [difficulty(_judges(own, groups[own.images])) for own, _ in group]
            parts = [quantile_of(values) for values in easiness]
            shown = group_means(easiness[0], parts[0], QUANTILES)
            for k, values in enumerate(_grouped(group, parts, QUANTILES)):
                probability = None if np.isnan(shown[k]) else round(100 * float(np.exp(shown[k])), 4)
                quantiles.append({**known, "quantile": k + 1, "label_probability": probability, **values})
    return classes, quantiles


def _judges(judged: Case, cases: Sequence[Case]) -> list[Case]:
    """The runs that say how difficult an image is: all but the one that is judged, if there are others."""
    return [case for case in cases if case.run != judged.run] or list(cases)


def _grouped(group: Sequence[tuple[Case, View]], parts: Sequence[np.ndarray], count: int) -> list[dict[str, Any]]:
    """Numbers of every part of the images, over seeds. parts: which one each image is in, [N] per seed."""
    macs = np.array([group_means(view.macs, part, count) for (_, view), part in zip(group, parts)])
    hits = [view.choice.hit(case.test.outcomes) for case, view in group]
    top1 = 100 * np.array([group_means(hit, part, count) for hit, part in zip(hits, parts)])
    mean = np.array([view.macs.mean() for _, view in group])
    relative = 100 * macs / mean[:, None]
    images = np.bincount(parts[0], minlength=count)
    return [
        {
            "n": int(images[k]), **over_seeds(macs[:, k], "macs"), **over_seeds(relative[:, k], "relative"),
            **over_seeds(top1[:, k], "top1"), "n_seeds": len(group),
        }
        for k in range(count)
    ]  # fmt: skip


def by_images(cases: Sequence[Case]) -> Mapping[Hashable, list[Case]]:
    """Runs that were measured on the same images; those of a comparison all are, unless files were moved."""
    found: dict[Hashable, list[Case]] = {}
    for case in cases:
        found.setdefault(case.images, []).append(case)
    return found
