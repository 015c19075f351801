"""The fairest baseline: a cascade of plain networks that are trained anyway (arXiv 2012.01988).

Up to ``LONGEST`` networks, cheapest first. An image goes on to the next one if the confidence is below a threshold;
every network that it visits is paid. Thresholds are quantiles of each network's validation confidence (``SHARES`` of
the images lie below), and a point is chosen on validation like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from bench.cost.table import CostTable
from bench.errors import RunError
from bench.evaluate.comparing.choosing import Candidate
from bench.evaluate.comparing.contenders import Contender, Scorer, Trained
from bench.evaluate.measured import Measured
from bench.evaluate.policies.base import VALIDATION, Choice, Policy
from bench.evaluate.policies.fitted import macs_of_points
from bench.evaluate.record import DecisionRecord, Outcomes, Signals

NAME = "static_cascade"
LONGEST = 3
#: Between the runs of a cascade.
JOINED = " + "
#: Up to this number all candidates are kept, else those that some budget would choose.
ALL = 1000
#: Shares of the validation images that may go on: 22, so that three networks make 553 candidates.
SHARES = tuple(k / 23 for k in range(1, 23))


class StaticCascade(Policy):
    """One chain of points with a threshold for each but the last. members: points, cheapest first."""

    name: ClassVar[str] = NAME
    chosen_on: ClassVar[str] = VALIDATION
    help: ClassVar[str] = "networks one after the other until one is confident; every one that was asked is paid"

    def __init__(self, members: Sequence[int], thresholds: Sequence[float]) -> None:
        self.chain = tuple(members)
        self.thresholds = np.asarray(thresholds, dtype=np.float32)

    @classmethod
    def members(cls, signals: Signals, macs: np.ndarray) -> Sequence[StaticCascade]:
        return []  # chains are found by ``find_chains``, which prices all of them at once

    def apply(self, signals: Signals) -> Choice:
        point = np.full(signals.n, self.chain[0])
        paid = np.zeros((signals.n, len(signals.points)), dtype=bool)
        here = np.ones(signals.n, dtype=bool)
        for k, member in enumerate(self.chain):
            point[here] = member
            paid[here, member] = True
            if k < len(self.thresholds):
                here &= signals.confidence[member] < self.thresholds[k]
        return Choice(point, paid)


@dataclass(frozen=True)
class Chain:
    """A cascade on the validation part. shares: that lie below the thresholds. top1: percent. macs: of an image."""

    members: tuple[int, ...]
    shares: tuple[float, ...]
    thresholds: tuple[float, ...]
    top1: float
    macs: float


def find_chains(
    signals: Signals, outcomes: Outcomes, macs: np.ndarray, shares: Sequence[float] = SHARES, longest: int = LONGEST
) -> list[Chain]:
    """Every chain of up to three points and every pair of thresholds, priced at once from counts of images by how many
    thresholds they pass; of more than ``ALL`` those worth keeping. macs: [P], the same for all images."""
    order = np.argsort(macs, kind="stable")
    levels, n = len(shares), signals.n
    ranks = [round(share * n) for share in shares]
    grid = np.sort(signals.confidence, axis=1)[:, ranks]  # [P, G]
    # passes[p, i]: thresholds that image i reaches at p; it goes on at those from there on
    passes = np.stack([np.searchsorted(grid[p], signals.confidence[p], side="right") for p in range(len(macs))])
    hit = outcomes.hit
    chains = [c for size in range(1, longest + 1) for c in combinations(order.tolist(), size)]
    priced = [_price(chain, passes, hit, macs, levels) for chain in chains]
    kept = _worth_keeping(priced)
    return [
        Chain(chain, tuple(shares[g] for g in place), tuple(float(grid[p, g]) for p, g in zip(chain, place)),
              100 * int(right[place]) / n, float(cost[place]) / n)
        for chain, (right, cost), keep in zip(chains, priced, kept)
        for place in np.ndindex(right.shape) if keep[place]
    ]  # fmt: skip


def _worth_keeping(priced: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Whether each candidate is kept, shaped as ``priced``: all of up to ``ALL``, of more those that some budget would
    choose."""
    right = np.concatenate([r.ravel() for r, _ in priced])
    cost = np.concatenate([c.ravel() for _, c in priced])
    keep = np.ones(len(right), dtype=bool)
    if len(right) > ALL:
        by_cost = np.lexsort((-right, cost))
        best = np.maximum.accumulate(right[by_cost])
        keep[by_cost] = np.diff(best, prepend=-1) > 0
    ends = np.cumsum([r.size for r, _ in priced])[:-1]
    return [part.reshape(r.shape) for part, (r, _) in zip(np.split(keep, ends), priced)]


def _price(
    chain: Sequence[int], passes: np.ndarray, hit: np.ndarray, macs: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """(right answers, MACs of all images) for each combination of thresholds, one axis for each member but the last."""
    axes = len(chain) - 1
    shape = (levels + 1,) * axes
    cell = np.zeros(passes.shape[1], dtype=np.int64)
    for member in chain[:-1]:
        cell = cell * (levels + 1) + passes[member]

    def going_on(weights: np.ndarray | None, steps: int) -> np.ndarray:
        """Sum over the images that go on at each of the first ``steps`` members, for all thresholds of those."""
        table = np.bincount(cell, weights, minlength=int(np.prod(shape, dtype=np.int64))).reshape(shape)
        for axis in range(axes):
            table = table.cumsum(axis=axis) if axis < steps else table.sum(axis=axis, keepdims=True)
        return table[(slice(0, levels),) * steps + (slice(None),) * (axes - steps)]

    right: np.ndarray = np.zeros((levels,) * axes)
    cost: np.ndarray = np.zeros((levels,) * axes, dtype=np.int64)
    for k, member in enumerate(chain):
        cost = cost + going_on(None, k).astype(np.int64) * int(macs[member])
        right = right + going_on(hit[member].astype(float), k)
        if k < axes:
            right = right - going_on(hit[member].astype(float), k + 1)
    return right, cost


def put_together(runs: Mapping[str, tuple[DecisionRecord, CostTable]]) -> tuple[DecisionRecord, CostTable]:
    """Plain networks of the same images as the points of one record. RunError if their images differ."""
    records = [record for record, _ in runs.values()]
    first = records[0]
    for record in records[1:]:
        same = np.array_equal(record.signals.indices, first.signals.indices)
        if not same or not np.array_equal(record.outcomes.label, first.outcomes.label):
            raise RunError("the networks were not measured on the same images")
    units = tuple(f"{run}/{unit}" for run, (record, _) in runs.items() for unit in record.units)
    counts = np.zeros((len(records), len(units)), dtype=np.uint32)
    start = 0
    for k, record in enumerate(records):
        counts[k, start : start + len(record.units)] = record.signals.counts[0]
        start += len(record.units)

    def joined(part: str, name: str) -> np.ndarray:
        return np.concatenate([getattr(getattr(record, part), name) for record in records])

    signals = Signals(
        tuple(runs), units, first.signals.indices, joined("signals", "prediction"), joined("signals", "confidence"),
        joined("signals", "margin"), joined("signals", "entropy"), counts,
    )  # fmt: skip
    outcomes = Outcomes(first.outcomes.indices, first.outcomes.label, joined("outcomes", "hit"),
                        joined("outcomes", "hit5"), joined("outcomes", "logp"))  # fmt: skip
    macs = np.concatenate([cost.columns["macs"] for _, cost in runs.values()])
    params = np.concatenate([cost.columns["params"] for _, cost in runs.values()])
    return DecisionRecord(signals, outcomes), CostTable(units, {"macs": macs, "params": params})


def is_static(measured: Measured) -> bool:
    """A network with one operating point that costs the same for all images, and a validation part."""
    return (
        measured.val is not None and len(measured.test.points) == 1 and measured.test.signals.same_for_all
        and not measured.capabilities & {"exits", "gates"}
    )  # fmt: skip


def has_static_paths(measured: Measured) -> bool:
    return (
        measured.val is not None and len(measured.test.points) > 1 and measured.test.signals.same_for_all
        and "static_paths" in measured.capabilities
    )  # fmt: skip


def cascade_of(contender: Contender, measured: Mapping[int, Mapping[str, Measured]]) -> Contender | None:
    """The cascade of a contender's static networks, or of the paths of its one network; None if it has neither.
    measured: by seed, its runs by name."""
    every = [one for runs in measured.values() for one in runs.values()]
    sizes = {len(runs) for runs in measured.values()}
    if not contender.seeds or not every or len(sizes) != 1:
        return None
    (size,) = sizes
    if not (all(map(is_static, every)) if size > 1 else all(map(has_static_paths, every))):
        return None
    seeds = tuple(_trained(seed, measured[seed]) for seed in sorted(measured))
    return Contender(f"{contender.name} (cascade)", f"{contender.label} (cascade)", seeds, contender.images)


def of_networks(cascade: Contender) -> bool:
    """Whether its members are networks of their own, not paths of one."""
    return JOINED in cascade.seeds[0].candidates[0].run


def _trained(seed: int, runs: Mapping[str, Measured]) -> Trained:
    val = {run: (one.val, one.cost) for run, one in runs.items() if one.val is not None}
    test = {run: (one.test, one.cost) for run, one in runs.items()}
    if len(runs) > 1:
        (on_val, cost), (on_test, _) = put_together(val), put_together(test)
    else:
        ((on_val, cost),), ((on_test, _),) = val.values(), test.values()
    name = JOINED.join(runs)
    chains = find_chains(on_val.signals, on_val.outcomes, macs_of_points(on_val, cost))
    return Trained(seed, _candidates(name, chains, on_val.points), Scorer({name: (on_test, cost)}))


def _candidates(name: str, chains: Sequence[Chain], points: Sequence[str]) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(name, NAME, describe(chain, points), None, StaticCascade(chain.members, chain.thresholds), chain.top1,
                  chain.macs, order)
        for order, chain in enumerate(chains)
    )  # fmt: skip


def describe(chain: Chain, points: Sequence[str]) -> str:
    """'resnet8 0.30 > resnet20': each network, and the share of the validation images below its threshold."""
    shares = [f" {share:.2f}" for share in chain.shares] + [""]
    return " > ".join(f"{points[member]}{share}" for member, share in zip(chain.members, shares))
