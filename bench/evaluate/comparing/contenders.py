"""Who is compared: a group of runs, or a run by itself, each with its seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bench.cost.table import CostTable
from bench.evaluate.comparing.choosing import (
    Candidate,
    Scored,
    Validated,
    find_candidates,
    front,
    score,
)
from bench.evaluate.measured import Measured
from bench.evaluate.policies.fitted import macs_of_points
from bench.evaluate.policies.points import Fixed
from bench.evaluate.record import DecisionRecord

#: Why nothing can be chosen.
NO_RECORDS = "its records were not kept"
NO_VALIDATION = "no validation part to choose on (protocol: published)"


class Scorer:
    """The test records of one seed's networks, by run; scores rules that were fixed before."""

    def __init__(self, records: Mapping[str, tuple[DecisionRecord, CostTable]]) -> None:
        self._records = dict(records)
        self._macs: dict[str, np.ndarray] = {}
        self._scored: dict[int, Scored] = {}

    def score(self, candidate: Candidate) -> Scored:
        """On the test set; each candidate is computed once. A candidate is known by its place in the file."""
        if candidate.order not in self._scored:
            record, cost = self._records[candidate.run]
            if candidate.run not in self._macs:
                self._macs[candidate.run] = macs_of_points(record, cost)
            self._scored[candidate.order] = score(candidate.rule, record, self._macs[candidate.run])
        return self._scored[candidate.order]


@dataclass(frozen=True)
class Trained:
    """One seed of a contender: what may be chosen, and the test set to score a choice on."""

    seed: int
    candidates: tuple[Candidate, ...]
    tested: Scorer

    @cached_property
    def front(self) -> list[Candidate]:
        """What budgets in MACs can choose (``choosing.front``)."""
        return front(self.candidates)


@dataclass(frozen=True)
class Images:
    """Which images a contender was trained and tested on; only equal ones are compared. content: digest of the test
    images, '' if it is not known."""

    protocol_version: int
    dataset: str
    split_hash: str
    indices: bytes = field(repr=False)
    labels: bytes = field(repr=False)
    content: str = ""

    def differs(self, other: Images) -> str:
        """How, in words; '' where the two are the same."""
        if self.protocol_version != other.protocol_version:
            return f"protocol versions {self.protocol_version} and {other.protocol_version}"
        if self.dataset != other.dataset:
            return f"data sets {self.dataset} and {other.dataset}"
        known = self.content and other.content
        if self.indices != other.indices or self.labels != other.labels or (known and self.content != other.content):
            return "different test images"
        if self.split_hash != other.split_hash:
            return "different splits into training and validation"
        return ""


@dataclass(frozen=True)
class Contender:
    """name: the group's or the run's; label: in plots. seeds: trained networks, in the order of seeds; empty
    for the reason given. images: None where there are none."""

    name: str
    label: str
    seeds: tuple[Trained, ...]
    images: Images | None
    reason: str = ""


def make_contender(
    name: str, label: str, measured: Mapping[int, Mapping[str, Measured]], reason: str = "",
    contents: Collection[str] = (),
) -> Contender:  # fmt: skip
    """measured: by seed, the contender's runs by their names in this comparison, in file order. reason: why there are
    none. contents: digests of the test images of its runs, as far as they are known."""
    every = [one for runs in measured.values() for one in runs.values()]
    if not every:
        return Contender(name, label, (), None, reason or NO_RECORDS)
    if any(one.val is None and not _is_plain(one, runs) for runs in measured.values() for one in runs.values()):
        return Contender(name, label, (), None, NO_VALIDATION)
    known = sorted(set(contents) - {""})
    if len(known) > 1:
        return Contender(name, label, (), None, "its own runs have different test images")
    kinds = [_images(one, *known) for one in every]
    for kind in kinds[1:]:
        if words := kinds[0].differs(kind):
            return Contender(name, label, (), None, f"its own runs have {words}")
    seeds = []
    for seed, runs in sorted(measured.items()):
        with_val = all(one.val is not None for one in runs.values())
        candidates = (
            find_candidates([validated(run, one) for run, one in runs.items()]) if with_val else [_alone(*runs.items())]
        )
        tested = Scorer({run: (one.test, one.cost) for run, one in runs.items()})
        seeds.append(Trained(seed, tuple(candidates), tested))
    return Contender(name, label, tuple(seeds), kinds[0])


def validated(run: str, measured: Measured) -> Validated:
    """What choosing may see of a run. It must have a validation record."""
    assert measured.val is not None
    return Validated(run, measured.policies, measured.val, measured.cost)


def _is_plain(measured: Measured, runs: Mapping[str, Measured]) -> bool:
    """Whether there is nothing to choose: one network with one operating point, which costs the same for all images."""
    return len(runs) == 1 and len(measured.test.points) == 1 and measured.test.signals.same_for_all


def _alone(item: tuple[str, Measured]) -> Candidate:
    """The only point of a plain network. Its cost is a constant, so that the test record may say it."""
    run, measured = item
    macs = float(macs_of_points(measured.test, measured.cost)[0])
    return Candidate(run, Fixed.name, measured.test.points[0], None, Fixed(0), 0.0, macs, 0, alone=True)


def _images(measured: Measured, content: str = "") -> Images:
    outcomes = measured.test.outcomes
    return Images(
        int(measured.meta.get("protocol_version") or 0), str(measured.meta.get("dataset") or ""),
        str(measured.meta.get("split_hash") or ""), outcomes.indices.tobytes(), outcomes.label.tobytes(),
        content,
    )  # fmt: skip
