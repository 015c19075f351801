"""Cases (one run, one seed) with made-up or hand-written records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from synthetic_records import exits_record, make_cost, make_record

from bench.config.schema import Evaluate
from bench.cost.table import CostTable
from bench.evaluate.diagnostics import Case
from bench.evaluate.measured import Measured
from bench.evaluate.record import DecisionRecord, Outcomes, Signals


def case_of(
    test: DecisionRecord, cost: CostTable, capabilities: Sequence[str] = (), *, val: DecisionRecord | None = None,
    run: str = "run", seed: int = 0, curves: Sequence[dict[str, Any]] = (), evaluate: Evaluate | None = None,
) -> Case:  # fmt: skip
    records = {"test": test} | ({} if val is None else {"val": val})
    measured = Measured({"capabilities": list(capabilities)}, records, cost, evaluate or Evaluate())
    return Case(run, run.title(), seed, measured, curves)


def exits_case(n: int = 400, seed: int = 0, *, run: str = "exits", exits: int = 5, holdout: bool = True) -> Case:
    test, cost = exits_record(n, seed, exits)
    val = exits_record(n // 2, seed + 500, exits)[0] if holdout else None
    return case_of(test, cost, ["exits"], val=val, run=run, seed=seed)


def paths_case(n: int = 400, seed: int = 0, *, holdout: bool = True) -> Case:
    """The full path, and one without its last of two units."""
    def make(count: int, at: int) -> DecisionRecord:
        counts = np.array([[1, 1], [1, 0]], np.uint8)
        return make_record([1.2, 0.9], counts, n=count, seed=at, points=["full", "short"])

    test = make(n, seed)
    cost = make_cost([6_000_000, 4_000_000], test.units)
    val = make(n // 2, seed + 500) if holdout else None
    return case_of(test, cost, ["static_paths"], val=val, run="paths", seed=seed)


def gates_case(
    ran: np.ndarray, *, seed: int = 0, run: str = "gated", points: Sequence[str] | None = None,
    curves: Sequence[dict[str, Any]] = (), n: int | None = None,
) -> Case:  # fmt: skip
    """ran: which gated blocks run, [P, N, B]; a stem, the gates and a head run always."""
    p, n, blocks = ran.shape
    ones = np.ones((p, n, 1), np.uint8)
    counts = np.concatenate([ones, ran.astype(np.uint8), blocks * ones, ones], axis=2)
    units = ["stem", *(f"block{k}" for k in range(1, blocks + 1)), "control", "head"]
    record = make_record([1.0] * p, counts, n=n, seed=seed, points=points, units=units)
    cost = make_cost([1_000_000, *[2_000_000] * blocks, 1_000, 5_000], units)
    return case_of(record, cost, ["gates"], run=run, seed=seed, curves=curves)


def hand_record(
    label: Sequence[int], prediction: Sequence[Sequence[int]], counts: Sequence[Any], *,
    confidence: Any = 0.5, logp: Any = -1.0, points: Sequence[str] | None = None,
) -> DecisionRecord:  # fmt: skip
    """A record written down: prediction [P, N]; confidence and logp may be numbers."""
    said = np.array(prediction, np.int32)
    p, n = said.shape
    filled = np.broadcast_to(np.asarray(confidence, np.float32), (p, n)).copy()
    often = np.array(counts, np.uint8)
    hit = said == np.array(label)
    return DecisionRecord(
        Signals(
            tuple(points or [f"p{k}" for k in range(p)]), tuple(f"u{k}" for k in range(often.shape[-1])), np.arange(n),
            said, filled, filled, filled, often,
        ),
        Outcomes(np.arange(n), np.array(label, np.int32), hit, hit,
                 np.broadcast_to(np.asarray(logp, np.float32), (p, n)).copy()),
    )  # fmt: skip
