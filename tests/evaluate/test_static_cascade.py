"""The cascade of plain networks: equal to a plain sequential loop, chosen on validation, every network paid."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic_records import make_cost, make_record

from bench.config.schema import Evaluate
from bench.errors import RunError
from bench.evaluate.comparing.choosing import choose, front
from bench.evaluate.comparing.contenders import make_contender
from bench.evaluate.comparing.static_cascade import (
    SHARES,
    StaticCascade,
    cascade_of,
    find_chains,
    put_together,
)
from bench.evaluate.measured import Measured
from bench.evaluate.policies.fitted import macs_of_points

META = {"capabilities": [], "dataset": "d", "protocol_version": 1, "split_hash": "s"}
MACS = {"small": 10, "middle": 25, "large": 40}
SKILL = {"small": 0.6, "middle": 1.0, "large": 1.3}


def plain(name: str, seed: int = 0, n: int = 300, **changes: object) -> Measured:
    def record(part: int):  # type: ignore[no-untyped-def]
        own = 10 * seed + list(MACS).index(name) + 100 * part
        return make_record([SKILL[name]], np.ones((1, 2), np.uint8), n=n + part, seed=own, points=["full"])

    cost = make_cost([MACS[name] - 3, 3])
    found = Measured(META, {"val": record(0), "test": record(1)}, cost, Evaluate())
    return dataclasses.replace(found, **changes) if changes else found  # type: ignore[arg-type]


def group(seed: int = 0) -> dict[str, Measured]:
    return {name: plain(name, seed) for name in ("middle", "small", "large")}  # not in the order of cost


def loop(chain, thresholds, record, macs):  # type: ignore[no-untyped-def]
    """One image after the other, one network after the other."""
    right, spent = [], []
    for i in range(record.n):
        cost = 0
        for k, member in enumerate(chain):
            cost += int(macs[member])
            if k == len(chain) - 1 or record.signals.confidence[member, i] >= np.float32(thresholds[k]):
                break
        right.append(bool(record.outcomes.hit[member, i]))
        spent.append(cost)
    return right, spent


@pytest.mark.parametrize("coarse", [False, True])
def test_every_candidate_equals_a_plain_sequential_loop(coarse: bool) -> None:
    runs = group()
    record, cost = put_together({name: (one.val, one.cost) for name, one in runs.items()})  # type: ignore[misc]
    test, _ = put_together({name: (one.test, one.cost) for name, one in runs.items()})
    signals = record.signals
    if coarse:  # ties at the thresholds
        signals = dataclasses.replace(signals, confidence=np.round(signals.confidence, 1))
        record = dataclasses.replace(record, signals=signals)
    macs = macs_of_points(record, cost)
    chains = find_chains(signals, record.outcomes, macs)
    assert len(chains) == 3 + 3 * len(SHARES) + len(SHARES) ** 2 >= 500
    for chain in [*chains[:25], *chains[25::41]]:
        assert list(macs[list(chain.members)]) == sorted(macs[list(chain.members)])
        right, spent = loop(chain.members, chain.thresholds, record, macs)
        assert chain.top1 == pytest.approx(100 * sum(right) / len(right))
        assert chain.macs == pytest.approx(sum(spent) / len(spent))
        choice = StaticCascade(chain.members, chain.thresholds).apply(test.signals)
        right, spent = loop(chain.members, chain.thresholds, test, macs)
        assert choice.hit(test.outcomes).tolist() == right
        assert choice.spent(macs).tolist() == spent


def test_a_group_of_static_runs_competes_as_a_cascade() -> None:
    measured = {seed: group(seed) for seed in (0, 1)}
    contender = make_contender("resnets", "ResNets", measured)
    found = cascade_of(contender, measured)
    assert found is not None
    assert (found.name, found.label) == ("resnets (cascade)", "ResNets (cascade)")
    assert [trained.seed for trained in found.seeds] == [0, 1]
    for own, other in zip(found.seeds, contender.seeds):
        assert len(own.candidates) >= 500
        for limit in (10, 15, 20, 30, 40):
            kept, plain_one = choose(front(own.candidates), limit), choose(other.front, limit)
            assert kept is not None
            assert plain_one is not None
            assert kept.val_top1 >= plain_one.val_top1  # single networks are among its candidates
            assert len(own.tested.score(kept).hit) == 301


def test_only_static_networks_of_the_same_images_are_put_together() -> None:
    assert cascade_of(make_contender("r", "R", {0: {"small": plain("small")}}), {0: {"small": plain("small")}}) is None
    exits = plain("large", meta={**META, "capabilities": ["gates"]})
    mixed = {0: {"small": plain("small"), "large": exits}}
    assert cascade_of(make_contender("r", "R", mixed), mixed) is None
    other = {name: (plain(name, n=200 + 50 * k).test, plain(name).cost) for k, name in enumerate(("small", "large"))}
    with pytest.raises(RunError, match="same images"):
        put_together(other)


def test_the_points_of_a_network_with_static_paths_are_a_cascade() -> None:
    counts = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0]], np.uint8)
    record = make_record([1.2, 1.0, 0.9, 0.5], counts, n=300, seed=4, points=["full", "a", "b", "base"])
    test = make_record([1.2, 1.0, 0.9, 0.5], counts, n=301, seed=5, points=["full", "a", "b", "base"])
    one = Measured({**META, "capabilities": ["static_paths"]}, {"val": record, "test": test}, make_cost([5, 3, 4]),
                   Evaluate())  # fmt: skip
    measured = {0: {"paths": one}}
    found = cascade_of(make_contender("paths", "Paths", measured), measured)
    assert found is not None
    candidate = next(c for c in found.seeds[0].candidates if c.point.count(">") == 2)
    assert candidate.point.startswith("base 0.04 > a 0.04 > ") or candidate.point.startswith("base 0.04 > ")
    macs = macs_of_points(test, one.cost)
    right, spent = loop(candidate.rule.chain, candidate.rule.thresholds, test, macs)  # type: ignore[attr-defined]
    scored = found.seeds[0].tested.score(candidate)
    assert scored.hit.tolist() == right
    assert scored.macs.tolist() == spent
