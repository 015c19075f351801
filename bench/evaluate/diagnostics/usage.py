"""Which parts of a network the images of a class run: exits taken, blocks left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.evaluate.diagnostics.payers import group_means
from bench.evaluate.diagnostics.views import Case, View, by_run, same_views, settings_text

COLUMNS = (
    "run", "label", "policy", "point", "setting", "kind", "name", "class", "class_name", "n", "share", "n_seeds",
)  # fmt: skip

EXIT, UNIT = "exit", "unit"

#: Stands in the column ``class`` of rows that are of all images.
ALL = "all"


def skippable_units(cases: Sequence[Case]) -> np.ndarray:
    """Which units some decision left out for some image, bool [U].

    cases: networks of the same units: every seed of a run, and every run of the same design. A unit that always
    runs by design (stem, head, a gate itself) is never left out, at no operating point and in no split; one
    that *can* be left out shows by a count of 0 somewhere.
    """
    found = np.zeros(len(cases[0].test.units), dtype=bool)
    for case in cases:
        for record in case.measured.records.values():
            counts = record.signals.counts
            found |= (counts == 0).any(axis=tuple(range(counts.ndim - 1)))
    return found


def same_design(cases: Sequence[Case], case: Case) -> list[Case]:
    """The cases whose networks have the units and the capabilities of this one, itself among them."""
    wanted = case.test.units, case.measured.capabilities
    return [other for other in cases if (other.test.units, other.measured.capabilities) == wanted]


def usage_rows(cases: Sequence[Case], names: Sequence[str]) -> list[dict[str, Any]]:
    """Shares of each class's images, means over seeds; ``share`` is a fraction. names: of the classes.

    kind "exit", for a mixture: the operating point at which images stopped (of a cascade: the path that answered),
    from the cheapest to the dearest; shares of a class add up to 1. kind "unit", for every point whose counts
    depend on the image: whether a unit ran, for each unit that can be left out (``skippable_units``).
    """
    rows: list[dict[str, Any]] = []
    for seeds in by_run(cases).values():
        for group in same_views(seeds):
            case, view = group[0]
            if view.mixture:
                kind, shown = EXIT, [case.test.points[k] for k in case.order]
                found = [_taken(case, view, len(names)) for case, view in group]
            elif not case.test.signals.same_for_all:
                skippable = np.flatnonzero(skippable_units(same_design(cases, case)))
                kind, shown = UNIT, [case.test.units[k] for k in skippable]
                found = [_ran(case, view, skippable, len(names)) for case, view in group]
            else:
                continue
            known = {"run": case.run, "label": case.label, "policy": view.policy, "point": view.point,
                     "setting": settings_text([view for _, view in group]), "kind": kind}  # fmt: skip
            rows += _rows(known, shown, np.mean(found, axis=0), case, names, len(group))
    return rows


def _rows(
    known: dict[str, Any], shown: Sequence[str], share: np.ndarray, case: Case, names: Sequence[str], seeds: int
) -> list[dict[str, Any]]:
    """share: [name, class + 1], the last column over all images; nan for a class without images."""
    images = np.bincount(case.test.outcomes.label, minlength=len(names))
    classes = [(ALL, "", case.test.n), *((k, name, int(images[k])) for k, name in enumerate(names))]
    return [
        {
            **known, "name": name, "class": number, "class_name": text, "n": n,
            "share": round(float(share[row, place - 1]), 6), "n_seeds": seeds,
        }
        for row, name in enumerate(shown)
        for place, (number, text, n) in enumerate(classes)
    ]  # fmt: skip


def _taken(case: Case, view: View, classes: int) -> np.ndarray:
    """Share of each class's images that stop at each point, in order of cost, [P, classes + 1]."""
    return _shares(np.stack([view.choice.point == point for point in case.order]), case, classes)


def _ran(case: Case, view: View, units: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class's images for which each of these units ran, [len(units), classes + 1]."""
    counts = case.test.signals.counts[int(view.choice.point[0])]
    return _shares((counts[:, units] > 0).T, case, classes)


def _shares(happened: np.ndarray, case: Case, classes: int) -> np.ndarray:
    """happened: bool [K, N] -> shares by class and, last, of all images, [K, classes + 1]."""
    label = case.test.outcomes.label
    shares = np.empty((len(happened), classes + 1))
    for k, row in enumerate(happened):
        shares[k, :-1] = group_means(row, label, classes)
        shares[k, -1] = row.mean()
    return shares
