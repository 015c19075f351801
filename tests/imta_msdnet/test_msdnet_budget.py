"""Budgeted batch classification on this method's records, against the rules written out sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from msdnet_helpers import built, small_options
from torch import Tensor

from bench.cost.units import count_units
from bench.evaluate.policies.exits import BudgetedBatch, ConfidenceSweep
from bench.evaluate.record import Outcomes, Signals, record_split


def plain_quota(n: int, exits: int, p: int) -> list[int]:
    ratio = Fraction(p, 20)
    total = sum(ratio ** (k + 1) for k in range(exits))
    return [int(n * ratio ** (k + 1) / total) for k in range(exits)]


def plain_thresholds(confidence: list[list[float]], p: int) -> list[float]:
    """Rule 2 of the released evaluation: walk each exit's samples from the surest, counting who is still there."""
    exits, n = len(confidence), len(confidence[0])
    quota = plain_quota(n, exits, p)
    gone = [False] * n
    thresholds = [1e8] * exits
    for k in range(exits - 1):
        count = 0
        for i in sorted(range(n), key=lambda i: -confidence[k][i]):
            if not gone[i]:
                count += 1
                if count == quota[k]:
                    thresholds[k] = confidence[k][i]
                    break
        for i in range(n):
            if confidence[k][i] >= thresholds[k]:
                gone[i] = True
    thresholds[-1] = -1e8
    return thresholds


def plain_exits(confidence: list[list[float]], thresholds: list[float]) -> list[int]:
    found = []
    for i in range(len(confidence[0])):
        for k in range(len(confidence)):
            if confidence[k][i] >= thresholds[k]:
                found.append(k)
                break
    return found


def table(kind: str, exits: int, n: int, seed: int) -> np.ndarray:
    """Confidences [exits, n] in exit order."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 1, (exits, n)).astype(np.float32)
    if kind == "ties":
        values = np.round(values * 4) / 4
    elif kind == "all equal":
        values[:] = 1.0
    elif kind == "sure first":
        values[0] = 1.0
    elif kind == "many at one":
        values[rng.uniform(size=values.shape) < 0.7] = 1.0
    return values.astype(np.float32)


def as_record(confidence: np.ndarray) -> tuple[Signals, Outcomes, list[int]]:
    """Signals and outcomes with the points in this method's order, the last exit first; and that order."""
    exits, n = confidence.shape
    order = [exits - 1, *range(exits - 1)]
    nothing, indices = np.zeros((exits, n), dtype=np.float32), np.arange(n)
    counts = np.tril(np.ones((exits, exits), dtype=np.uint8))[order]
    signals = Signals(
        tuple(f"exit{k + 1}" for k in order), tuple(f"unit {k}" for k in range(exits)), indices,
        nothing.astype(np.int32), confidence[order], nothing, nothing, counts,
    )  # fmt: skip
    hit = np.zeros((exits, n), dtype=bool)
    return signals, Outcomes(indices, np.zeros(n, np.int32), hit, hit, nothing), order


@pytest.mark.parametrize("kind", ["plain", "ties", "all equal", "sure first", "many at one"])
@pytest.mark.parametrize(("exits", "n"), [(5, 200), (5, 1), (4, 3), (7, 41), (10, 97), (2, 10), (5, 6)])
def test_thresholds_and_exits_are_those_of_the_sequential_search(kind: str, exits: int, n: int) -> None:
    val, test = table(kind, exits, n, 1), table(kind, exits, 2 * n + 1, 2)
    fit_on, outcomes, order = as_record(val)
    apply_to, _, _ = as_record(test)
    policies = BudgetedBatch.members(fit_on, np.zeros(exits))
    assert [policy.p for policy in policies] == list(range(1, 41))
    never_used = 0
    for policy in policies:
        policy.fit(fit_on, outcomes)
        thresholds = plain_thresholds(val.tolist(), policy.p)
        assert [min(max(t, -1e8), 1e8) for t in policy.thresholds.tolist()] == thresholds
        choice = policy.apply(apply_to)
        taken = plain_exits(test.tolist(), thresholds)
        assert [order[place] for place in choice.point] == taken
        never_used += len(set(range(exits)) - set(taken))
    if n == 1:
        assert never_used > 0


def test_shares_of_the_published_law() -> None:
    """Planned costs of the released settings, in millions of operations, and quotas that float32 agrees with."""
    cost = [6859876, 14350024, 27536684, 41714576, 58480628]
    planned = {}
    for p in (1, 10, 20, 30, 39):
        q = np.array(plain_quota(10**9, 5, p)) / 1e9
        planned[p] = round(float(q @ cost) / 1e6, 1)
    assert planned == {1: 7.3, 10: 15.4, 20: 29.8, 30: 40.0, 39: 45.2}
    for n in (5000, 50_000):
        for exits in (5, 7, 10):
            for p in range(1, 41):
                ratio = torch.tensor(p / 20, dtype=torch.float32)
                law = (ratio.log() * torch.arange(1, exits + 1)).exp()
                floors = torch.floor(n * law / law.sum()).int().tolist()
                assert plain_quota(n, exits, p) == BudgetedBatch(p).quota(n, exits)
                assert floors[:-1] == plain_quota(n, exits, p)[:-1], (n, exits, p)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_fitted_policy_is_executed_as_the_record_predicts(lazy: bool) -> None:
    """Record -> thresholds -> exits that really stop: the same exits, counts and costs."""
    method, model = built(**small_options(lazy=lazy))
    model.eval()
    images = torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    images *= torch.linspace(0.2, 3, 48)[:, None, None, None]

    def loader() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for part in torch.arange(48).split(24):
            yield images[part], torch.zeros(24, dtype=torch.int64), part

    record = record_split(method, model, loader(), device="cpu")
    cost = count_units(method, model)
    macs = cost.cost(record.signals.counts)["macs"]
    order = [point.settings["exit"] for point in method.points(model)]
    policies = [*BudgetedBatch.members(record.signals, macs)[4::10], *ConfidenceSweep.members(record.signals, macs)[:3]]
    used = set()
    for policy in policies:
        policy.fit(record.signals, record.outcomes)
        choice = policy.apply(record.signals)
        # halfway to the next confidence below, so that the last digit of a float decides nothing
        limits = [_between(record.signals.confidence[order.index(k)], policy, k) for k in range(3)]

        def decide(k: int, logits: Tensor, limits: list[float] = limits) -> Tensor:
            return logits.softmax(1).amax(1) < limits[k]

        with torch.no_grad():
            executed = method.execute(model, images, decide)
        assert executed.taken.tolist() == [order[place] for place in choice.point]
        assert np.array_equal(executed.counts.numpy(), choice.counts(record.signals))
        spent = cost.cost(executed.counts)["macs"].numpy()
        assert np.array_equal(spent, macs[choice.point])
        used |= set(executed.taken.tolist())
    assert used == {0, 1, 2, 3}


def _between(confidence: np.ndarray, policy: BudgetedBatch | ConfidenceSweep, k: int) -> float:
    limit = float(policy.thresholds[k] if isinstance(policy, BudgetedBatch) else policy.thresholds[0])
    below = confidence[confidence < limit]
    if not np.isfinite(limit) or not len(below):
        return limit
    return (limit + float(below.max())) / 2
