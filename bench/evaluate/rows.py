"""From records and unit costs to rows: every policy, every operating point, of one run and seed.

No wall-clock time stands in a row: the same command gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import RunError
from bench.evaluate.bounds import ORACLE, RANDOM, TEST_LABELS, RandomExit, oracle, random_exits
from bench.evaluate.calibration import ece, nll
from bench.evaluate.columns import COLUMNS, INTEGERS, LEGACY, NUMBERS, Row, read_rows, write_rows
from bench.evaluate.policies import Choice, Policy
from bench.evaluate.policies.base import NOTHING, Promise
from bench.evaluate.policies.fitted import fit_policies
from bench.evaluate.record import DecisionRecord
from bench.evaluate.stats import wilson

if TYPE_CHECKING:
    from bench.config.schema import Evaluate
    from bench.cost.table import CostTable

__all__ = ["COLUMNS", "Row", "failed_row", "make_rows", "read_rows", "write_rows"]

#: Cost columns of the table that have a column of their own in a row; every other one is a legacy column.
_OWN = ("macs", "macs_elementwise", "macs_fvcore")
_DIGITS = {"top1": 4, "top1_lo": 4, "top1_hi": 4, "top5": 4, "nll": 6, "ece": 4, "risk_realised": 6}


def make_rows(
    meta: Mapping[str, Any],
    records: Mapping[str, DecisionRecord],
    cost: CostTable,
    evaluate: Evaluate,
    policies: Sequence[Policy] | None = None,
) -> list[dict[str, Any]]:
    """All rows of one run and seed, the default operating point first.

    meta: what every row says of the run (columns of ``Row``) and ``capabilities``, the method's. records: by
    split; "test", and "val" where the protocol has a validation part: policies that choose are fitted on it.
    cost: of the same units as the records. policies: as ``fit_policies``
    made them, if they are at hand. Raises RunError if these do not fit each other.
    """
    meta = dict(meta)
    capabilities = frozenset(meta.pop("capabilities", ()))
    test, val = records["test"], records.get("val")
    for name, record in records.items():
        if record.units != tuple(cost.units):
            raise RunError(f"the {name} record and the cost table are not of the same units")
    if val is not None and val.points != test.points:
        raise RunError("the validation and the test record are not of the same operating points")
    spent = _Spent(test, cost)
    rows: list[dict[str, Any]] = []

    def add(policy: str, chosen_on: str, values: Mapping[str, Any]) -> None:
        rows.append({
            **meta, "policy": policy, "point": "", "default": False, "setting": None, "chosen_on": chosen_on,
            "split": "test", "n": test.n, "params": cost.total_params(), **values,
        })  # fmt: skip

    for policy in fit_policies(capabilities, evaluate, records, cost) if policies is None else policies:
        point = policy.point_name(test.signals)
        choice = policy.apply(test.signals)
        values = _measure(test, choice, spent, evaluate.confidence_level)
        if policy.promise is not None:
            values |= _kept(policy.promise, choice, test)
        finite = policy.thresholds[np.isfinite(policy.thresholds)] if policy.chosen_on != NOTHING else []
        named = {"point": point, "default": point == test.points[0], "setting": policy.setting,
                 "thresholds": " ".join(f"{float(value):.6g}" for value in finite)}  # fmt: skip
        add(policy.name, policy.chosen_on, {**values, **named})
    for name, setting, values in _bounds(test, spent, capabilities, evaluate.confidence_level):
        add(name, TEST_LABELS if name == ORACLE else NOTHING, {**values, "setting": setting})
    return [_finish(row) for row in rows]


def failed_row(meta: Mapping[str, Any], status: str, reason: str) -> dict[str, Any]:
    """The one row of a run that has no numbers: what is known of it, its status and why."""
    row = {name: value for name, value in meta.items() if name in COLUMNS}
    return _finish({**row, "split": "test", "default": False, "status": status, "reason": reason})


class _Spent:
    """What every image of a record costs at every point: column -> [P], or [P, N] where it varies."""

    def __init__(self, record: DecisionRecord, cost: CostTable) -> None:
        signals = record.signals
        points = [cost.cost(signals.counts[p]) for p in range(len(signals.points))]
        self.columns = {
            name: np.stack([point[name] for point in points]) for name in cost.columns if name != "params"
        }

    def of(self, choice: Choice) -> dict[str, np.ndarray]:
        """What each image costs under a choice, [N] per column."""
        return {name: choice.spent(values) for name, values in self.columns.items()}


def _measure(record: DecisionRecord, choice: Choice, spent: _Spent, level: float) -> dict[str, Any]:
    outcomes = record.outcomes
    hit = choice.hit(outcomes)
    hits = int(hit.sum())
    interval = wilson(hits, record.n, level)
    return {
        "top1": 100 * hits / record.n,
        "top1_lo": 100 * interval.low,
        "top1_hi": 100 * interval.high,
        "interval": str(interval),
        "top5": 100 * int(choice.hit5(outcomes).sum()) / record.n,
        "nll": nll(choice.label_logp(outcomes)),
        "ece": 100 * ece(choice.confidence(record.signals), hit),
        **_costs(spent.of(choice)),
    }


def _kept(promise: Promise, choice: Choice, record: DecisionRecord) -> dict[str, Any]:
    """What was promised, and what came true on test."""
    found = promise.realised(choice, record.signals, record.outcomes)
    return {"risk_target": promise.target, "risk_delta": promise.delta, "risk_realised": found}


def _costs(spent: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Means over images; of the MACs also the 95th percentile (a cost that occurs) and the largest."""
    macs = spent["macs"]
    values: dict[str, Any] = {
        name if name in _OWN else LEGACY + name: _mean(column) for name, column in spent.items()
    }
    p95 = float(np.quantile(macs, 0.95, method="inverted_cdf"))
    return {**values, "macs_p95": p95, "macs_max": float(macs.max()), "adaptive": bool(macs.min() < macs.max())}


def _mean(values: np.ndarray) -> float:
    """Sums of integers are exact, so that means do not depend on the order of images."""
    return float(values.sum()) / len(values)


def _bounds(
    record: DecisionRecord, spent: _Spent, capabilities: Collection[str], level: float
) -> list[tuple[str, float | None, dict[str, Any]]]:
    """(name, setting, values) of the oracle and, for exits, of random exits."""
    found: list[tuple[str, float | None, dict[str, Any]]] = []
    if len(record.points) < 2 or not {"exits", "static_paths"} & set(capabilities):
        return found
    best = _measure(record, oracle(record, spent.columns["macs"]), spent, level)
    found.append((ORACLE, None, best))
    if "exits" in capabilities:
        found += [(RANDOM, exits.setting, _expected(record, spent, exits)) for exits in random_exits(record.signals)]
    return found


def _expected(record: DecisionRecord, spent: _Spent, exits: RandomExit) -> dict[str, Any]:
    """Expected values over the draw of exits; no interval, calibration is not that of one answer."""
    hit = record.outcomes.hit.mean(axis=1)
    values: dict[str, Any] = {
        name if name in _OWN else LEGACY + name: float(exits.shares @ column)
        for name, column in spent.columns.items()
    }
    macs = spent.columns["macs"]
    order = np.argsort(macs)
    reached = int(np.searchsorted(np.cumsum(exits.shares[order]), 0.95))
    return {
        "top1": 100 * float(exits.shares @ hit),
        "top5": 100 * float(exits.shares @ record.outcomes.hit5.mean(axis=1)),
        "nll": float(exits.shares @ -record.outcomes.logp.astype(np.float64).mean(axis=1)),
        "macs_p95": float(macs[order][min(reached, len(order) - 1)]),
        "macs_max": float(macs.max()),
        "adaptive": True,
        **values,
    }


def _finish(row: dict[str, Any]) -> dict[str, Any]:
    """Every column present, numbers rounded far below what they can resolve, truth values as words."""
    for name, value in row.items():
        if isinstance(value, bool):
            row[name] = "yes" if value else "no"
        elif isinstance(value, float):
            row[name] = round(value, _DIGITS.get(name, 4))
    return {**{name: None if name in INTEGERS | NUMBERS else "" for name in COLUMNS}, **row}
