"""Choosing an operating point on the validation part. Nothing in this module ever holds a test image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.cost.table import CostTable
from bench.evaluate.policies import Policy
from bench.evaluate.policies.fitted import macs_of_points
from bench.evaluate.record import DecisionRecord


@dataclass(frozen=True)
class Validated:
    """One trained network as choosing sees it: its validation record, costs of its units, and its policies, fitted on
    that record."""

    run: str
    policies: tuple[Policy, ...]
    record: DecisionRecord
    cost: CostTable


@dataclass(frozen=True)
class Candidate:
    """One operating point that could be chosen. rule: its policy, fitted on the validation part. val_top1: percent.
    val_macs: mean over images. order: its place in the file. alone: the only point of a network, where there was
    nothing to choose and no validation part was needed; its val_top1 then says nothing."""

    run: str
    policy: str
    point: str
    setting: float | None
    rule: Policy
    val_top1: float
    val_macs: float
    order: int
    alone: bool = False


@dataclass(frozen=True)
class Scored:
    """A rule on one split. hit: bool [N]. macs: what each image cost, [N], or [1] where that is the same for all."""

    hit: np.ndarray
    macs: np.ndarray

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * int(self.hit.sum()) / len(self.hit)

    @property
    def mean_macs(self) -> float:
        return float(self.macs.sum()) / len(self.macs)

    @property
    def p95(self) -> float:
        """The smallest cost that 95 % of the images do not exceed."""
        return float(np.quantile(self.macs, 0.95, method="inverted_cdf"))


def score(rule: Policy, record: DecisionRecord, macs: np.ndarray) -> Scored:
    """Apply a fitted rule to a split. macs: ``macs_of_points`` of that split."""
    name = rule.point_name(record.signals)
    if name and rule.own_answers:  # all images at one point: nothing to look up image by image
        point = record.points.index(name)
        return Scored(record.outcomes.hit[point], np.atleast_1d(macs[point]))
    choice = rule.apply(record.signals)
    return Scored(choice.hit(record.outcomes), choice.spent(macs))


def find_candidates(networks: Sequence[Validated]) -> list[Candidate]:
    """Every operating point of every network, in file order: the rows of the long table."""
    found: list[Candidate] = []
    for network in networks:
        record = network.record
        macs = macs_of_points(record, network.cost)
        for rule in network.policies:
            on_val = score(rule, record, macs)
            point = rule.point_name(record.signals)
            found.append(Candidate(
                network.run, rule.name, point, rule.setting, rule, on_val.top1, on_val.mean_macs, len(found)
            ))  # fmt: skip
    return found


def mean_macs(candidate: Candidate) -> float | None:
    """The usual cost of a candidate."""
    return candidate.val_macs


def front(
    candidates: Iterable[Candidate], cost: Callable[[Candidate], float | None] = mean_macs
) -> list[Candidate]:
    """What a budget can choose, by growing cost: each more accurate on validation than all that are cheaper.

    Of equally accurate ones the cheapest, then the first of the file. Candidates without a cost take no part.
    """
    priced = [(value, c) for c in candidates if (value := cost(c)) is not None]
    best, kept = -1.0, []
    for _, candidate in sorted(priced, key=lambda pair: (pair[0], -pair[1].val_top1, pair[1].order)):
        if candidate.val_top1 > best:
            best = candidate.val_top1
            kept.append(candidate)
    return kept


def choose(
    kept: Sequence[Candidate], limit: float, cost: Callable[[Candidate], float | None] = mean_macs
) -> Candidate | None:
    """The candidate with the best validation accuracy among those whose mean validation cost is at most ``limit``;
    kept: their ``front``. None where nothing is as cheap."""
    chosen = None
    for candidate in kept:
        value = cost(candidate)
        if value is not None and value <= limit:
            chosen = candidate
    return chosen
