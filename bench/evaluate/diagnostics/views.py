"""What is looked at beyond accuracy: every operating point of a trained network, and one mixture per policy.

A policy that sends images to different points has a setting, and a whole curve of them. One is enough to say who
pays and how far its confidence can be believed: the setting whose mean cost on the *validation* part is nearest the
middle between the cheapest point and the default one. The test split chooses nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from bench.evaluate.measured import Measured
from bench.evaluate.policies import Choice, Policy
from bench.evaluate.policies.fitted import macs_of_points, mean_macs
from bench.evaluate.record import DecisionRecord


@dataclass(frozen=True)
class View:
    """One way to run a trained network, applied to the test split.

    policy, point, setting: as in the results table; point is '' for a mixture. default: the default point.
    choice: what every image did. macs: of every image, int64 [N].
    """

    policy: str
    point: str
    setting: float | None
    default: bool
    choice: Choice
    macs: np.ndarray

    @property
    def mixture(self) -> bool:
        """Whether images answer at different operating points."""
        return not self.point

    @property
    def adaptive(self) -> bool:
        """Whether the cost depends on the image."""
        return bool(self.macs.min() < self.macs.max())

    @property
    def key(self) -> tuple[str, str]:
        """What the same view of another seed has in common; the setting of a mixture may differ between seeds."""
        return self.policy, self.point


@dataclass(frozen=True)
class Case:
    """One run of one seed. measured: its records and costs. curves: its training log, one dict per epoch."""

    run: str
    label: str
    seed: int
    measured: Measured
    curves: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def test(self) -> DecisionRecord:
        return self.measured.test

    @cached_property
    def macs(self) -> np.ndarray:
        """Of every point, [P], or of every image at every point, [P, N]."""
        return macs_of_points(self.test, self.measured.cost)

    @cached_property
    def order(self) -> np.ndarray:
        """Points from the cheapest to the dearest by mean cost, as indices; equal ones in the record's order."""
        return np.argsort(mean_macs(self.macs), kind="stable")

    @cached_property
    def images(self) -> Hashable:
        """Equal for records of the same images with the same labels."""
        outcomes = self.test.outcomes
        return outcomes.indices.tobytes(), outcomes.label.tobytes()

    @cached_property
    def views(self) -> list[View]:
        """Every operating point, the default one first, then one mixture of each policy that makes one."""
        return [self._apply(policy, k == 0) for k, policy in enumerate(self._policies[0])] + [
            self._apply(nearest, False) for nearest in self._policies[1]
        ]

    @property
    def mixtures(self) -> list[View]:
        return [view for view in self.views if view.mixture]

    @property
    def why_no_mixture(self) -> str:
        """Why there is none although the points of this network could be mixed; '' where nothing is missing."""
        if self.mixtures or self.measured.val is not None or len(self.test.points) < 2:
            return ""
        if not {"exits", "static_paths"} & self.measured.capabilities:
            return ""
        return "no validation part to choose a setting on"

    def _apply(self, policy: Policy, default: bool) -> View:
        signals = self.test.signals
        choice = policy.apply(signals)
        return View(policy.name, policy.point_name(signals), policy.setting, default, choice, choice.spent(self.macs))

    @cached_property
    def _policies(self) -> tuple[list[Policy], list[Policy]]:
        """Those of single points, and of each other policy the member with the setting to look at, fitted."""
        val = self.measured.val
        guide = self.test.signals if val is None else val.signals
        macs = self.macs if val is None else macs_of_points(val, self.measured.cost)
        means = mean_macs(macs)
        points = [policy for policy in self.measured.policies if policy.point_name(guide)]
        middle = float(means.min() + means[0]) / 2
        nearest: dict[str, tuple[float, Policy]] = {}
        for policy in self.measured.policies:
            if policy.point_name(guide) or val is None:
                continue
            cost = float(policy.apply(val.signals).spent(macs).sum()) / val.n
            off = abs(cost - middle)
            if policy.name not in nearest or off < nearest[policy.name][0]:
                nearest[policy.name] = off, policy
        return points, [policy for _, policy in nearest.values()]


def over_seeds(values: Sequence[float] | np.ndarray, name: str) -> dict[str, float | None]:
    """{name_mean, name_min, name_max} over the seeds that have a number (nan: none); None where no seed has."""
    known = [float(value) for value in values if not np.isnan(value)]
    if not known:
        return {f"{name}_{end}": None for end in ("mean", "min", "max")}
    numbers = {"mean": sum(known) / len(known), "min": min(known), "max": max(known)}
    return {f"{name}_{end}": round(value, 4) for end, value in numbers.items()}


def same_views(cases: Sequence[Case]) -> list[list[tuple[Case, View]]]:
    """The seeds of one run -> each view with those of the other seeds, in the order of the first that has it."""
    found: dict[tuple[str, str], list[tuple[Case, View]]] = {}
    for case in cases:
        for view in case.views:
            found.setdefault(view.key, []).append((case, view))
    return list(found.values())


def settings_text(views: Sequence[View]) -> str:
    """The setting that all seeds share, or those of the seeds in their order: '0.55', '0.5 0.55 0.5'."""
    texts = ["" if view.setting is None else f"{view.setting:g}" for view in views]
    return texts[0] if len(set(texts)) == 1 else " ".join(texts)


def by_run(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Cases by the name of their run, in their order."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.run, []).append(case)
    return found
