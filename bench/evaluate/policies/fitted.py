"""The policies of one trained network, one object per operating point, each fitted once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from bench.cost.table import CostTable
from bench.evaluate.policies.base import NOTHING, Policy, Risk
from bench.evaluate.policies.catalogue import make_policies
from bench.evaluate.record import DecisionRecord

if TYPE_CHECKING:
    from bench.config.schema import Evaluate


def fit_policies(
    capabilities: Collection[str], evaluate: Evaluate, records: Mapping[str, DecisionRecord], cost: CostTable
) -> tuple[Policy, ...]:
    """The policies that a run is asked for and can have, fitted on the validation part; without one, those that choose
    nothing. records: by split, "test" and, if there is a validation part, "val"; of the test record only names and
    costs of points are read, and only if there is no other."""
    val = records.get("val")
    guide = records["test"] if val is None else val
    macs = mean_macs(macs_of_points(guide, cost))
    made = make_policies(
        capabilities, evaluate.policies, guide.signals, macs, validation=val is not None,
        risk=Risk(evaluate.risk, evaluate.delta),
    )  # fmt: skip
    for policy in made:
        if val is not None and policy.chosen_on != NOTHING:
            policy.fit(val.signals, val.outcomes)
    return tuple(made)


def macs_of_points(record: DecisionRecord, cost: CostTable) -> np.ndarray:
    """MACs of each point, int64 [P], or [P, N] if they depend on the image."""
    only = CostTable(cost.units, {"macs": cost.columns["macs"]})
    signals = record.signals
    return np.stack([only.cost(signals.counts[p])["macs"] for p in range(len(signals.points))])


def mean_macs(macs: np.ndarray) -> np.ndarray:
    """Mean over images of ``macs_of_points``, float64 [P]."""
    return macs.astype(np.float64) if macs.ndim == 1 else macs.mean(axis=1)
