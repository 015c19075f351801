"""Policies by name, and which of them suit a method's capabilities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import numpy as np

from bench.doors import POLICIES as GROUP
from bench.doors import Door
from bench.errors import ConfigError
from bench.evaluate.policies.base import DEFAULT_RISK, NOTHING, Policy, Risk
from bench.evaluate.policies.calibrated import AccuracyCalibrated
from bench.evaluate.policies.cascade import Cascade
from bench.evaluate.policies.exits import BudgetedBatch, ConfidenceSweep, EntropySweep, MarginSweep, Patience
from bench.evaluate.policies.foreign import guard_policy
from bench.evaluate.policies.points import Anytime, Fixed
from bench.evaluate.policies.product import MostConfident, Product
from bench.evaluate.policies.risk import (
    ConformalConsistency,
    ConformalGap,
    LearnThenTestConsistency,
    LearnThenTestGap,
)
from bench.evaluate.policies.temperature import (
    Temperature,
    TemperatureBudgeted,
    TemperatureEntropy,
    TemperatureMargin,
)
from bench.evaluate.policies.ztw import ZeroTimeWaste
from bench.evaluate.record import Signals

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        Fixed, Anytime, BudgetedBatch, ConfidenceSweep, MarginSweep, EntropySweep, Patience, Cascade, Temperature,
        TemperatureBudgeted, TemperatureMargin, TemperatureEntropy, Product, MostConfident, ZeroTimeWaste,
        AccuracyCalibrated, LearnThenTestGap, LearnThenTestConsistency, ConformalGap, ConformalConsistency,
    )
}  # fmt: skip

#: Those that run unless `evaluate.policies` says otherwise.
DEFAULT = (Fixed.name, Anytime.name, BudgetedBatch.name, ConfidenceSweep.name, Cascade.name)


_DOOR = Door(GROUP, "policy", "evaluate.policies", POLICIES)


def policy_names() -> list[str]:
    """Names that `evaluate.policies` may hold; those of other packages are not imported."""
    return sorted({*POLICIES, *_DOOR.names()})


def policy_class(name: str) -> type[Policy]:
    """The class of a policy; ConfigError with the nearest name if there is none, or if a plug-in is broken."""
    return POLICIES.get(name) or _foreign(name)


@cache
def _foreign(name: str) -> type[Policy]:
    found = _DOOR.load(name)
    try:
        return guard_policy(found, name)
    except ValueError as error:
        raise _DOOR.wrong(name, str(error)) from None


@cache
def known_policy(name: str) -> type[Policy] | None:
    """The class of a policy that rows were made by; None of a bound, and of one that is not installed or is broken."""
    try:
        return policy_class(name)
    except ConfigError:
        return None


def check_policies(names: Sequence[str], protocol: str) -> None:
    """Whether `evaluate.policies` can be had at all: names exist, and nothing needs a validation part that the
    protocol does not cut. Raises ConfigError. Needs no torch."""
    for name in names:
        if policy_class(name).chosen_on != NOTHING and protocol != "holdout":
            raise ConfigError(
                f"policy '{name}' chooses on a validation part; protocol: {protocol} has none (use holdout)",
                where="evaluate.policies",
            )


def default_policies(capabilities: Collection[str], *, validation: bool) -> list[str]:
    """What is evaluated when nothing is asked for: each point by itself, and what suits the method.

    ``anytime`` takes the place of ``fixed`` where the points are exits: the numbers are the same.
    """
    points = _points_policy(capabilities)
    names = [
        name
        for name in DEFAULT
        if POLICIES[name].requires <= frozenset(capabilities)
        and (validation or POLICIES[name].chosen_on == NOTHING)
    ]
    return [points] + [name for name in names if name not in (Fixed.name, Anytime.name)]


def make_policies(
    capabilities: Collection[str], asked: Sequence[str], signals: Signals, macs: np.ndarray, *, validation: bool,
    risk: Risk = DEFAULT_RISK,
) -> list[Policy]:  # fmt: skip
    """The policy objects of one run, one per operating point, unfitted.

    asked: `evaluate.policies`; empty means the default. What was asked for but does not suit this method is
    left out: one list serves all runs of a comparison. signals, macs [P]: see ``Policy.members``. Policies that need
    logits are left out if the record has none (``lacks_logits``). risk: what promises are about.
    """
    names = default_policies(capabilities, validation=validation)
    if asked:
        points = _points_policy(capabilities)
        names = [points] + [name for name in asked if name not in (Fixed.name, Anytime.name)]
    found: list[Policy] = []
    for name in names:
        policy = policy_class(name)
        suits = policy.requires <= frozenset(capabilities)
        if suits and (validation or policy.chosen_on == NOTHING) and not lacks_logits(policy, signals):
            found.extend(policy.members_for(signals, macs, risk))
    return found


def lacks_logits(policy: type[Policy], signals: Signals) -> bool:
    """Whether a policy needs the logits of all classes and the record has none, or not all."""
    return policy.needs_logits and (signals.logits is None or not signals.logits.whole)


def _points_policy(capabilities: Collection[str]) -> str:
    return Anytime.name if Anytime.requires <= frozenset(capabilities) else Fixed.name
