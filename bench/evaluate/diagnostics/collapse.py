"""Gates that decide nothing: all open, all closed, or each always the same.

A record does not say which units hang on a gate, and needs not: stem, head, projections and the gates themselves
run for every image by design, so that a count of 1 everywhere proves nothing. A unit that *can* be left out is one
that was left out for some image, at some operating point, in some split, by some network of the same design
(``skippable_units``); those are judged. Where no such unit exists although gates do (a logged gate rate, a signal of
gates, several operating points), nothing was ever left out: all gates are open. A training log that says
``gates_collapsed`` and ``gates_constant`` is quoted as further evidence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.evaluate.diagnostics.usage import same_design, skippable_units
from bench.evaluate.diagnostics.views import Case

GATES = "gates"

#: A unit is as good as always (never) run where at most this share of the images differs.
NEARLY = 0.02

#: From this share of the last epoch's batches on, a training log that calls the gates collapsed is quoted by itself.
LOGGED = 0.5

_RATE = re.compile(r"gate\d+_open")
_NAMED = 6

OPEN, CLOSED, CONSTANT, LOG = "open", "closed", "constant", "log"


@dataclass(frozen=True)
class GateWarning:
    """kind: "open", "closed", "constant" (each gate the same for all images, some open and some closed), or "log"
    (only the training log says so). rates: how often each unit concerned runs, by name, fractions."""

    run: str
    label: str
    seed: int
    kind: str
    rates: Mapping[str, float]
    text: str


def gate_warnings(cases: Sequence[Case]) -> list[GateWarning]:
    """One warning for each gated network whose default point treats (nearly) all images alike."""
    found = []
    for case in cases:
        if GATES in case.measured.capabilities:
            warning = _judge(case, same_design(cases, case))
            if warning is not None:
                found.append(warning)
    return found


def _judge(case: Case, design: Sequence[Case]) -> GateWarning | None:
    signals = case.test.signals
    point = signals.points[0]
    skippable = np.flatnonzero(skippable_units(design))
    if len(skippable):
        rate = (signals.counts_of(0)[:, skippable] > 0).mean(axis=0)
        rates = {signals.units[k]: float(r) for k, r in zip(skippable, rate)}
        often, never = rate >= 1 - NEARLY, rate <= NEARLY
        share = f"at least {100 * (1 - NEARLY):g} % of the test images"
        if often.all():
            said = f"all {len(rate)} units that gates can leave out run for {share} ({_named(rates)})"
            return _warning(case, OPEN, rates, f"the gates are all open at {point}: {said}")
        # Gates that the log knows beyond these never leave out anything, at no point and in no network.
        more = max(len(_logged_rates(case)) - len(rate), 0)
        if never.all() and not more:
            said = f"all {len(rate)} units that gates can leave out are left out for {share} ({_named(rates)})"
            return _warning(case, CLOSED, rates, f"the gates are all closed at {point}: {said}")
        if (often | never).all():
            said = (f"for {share} each of the {len(rate) + more} units behind a gate does the same "
                    f"({int(often.sum()) + more} run, {int(never.sum())} do not; {_named(rates)})")  # fmt: skip
            return _warning(case, CONSTANT, rates, f"the gates do not look at the image at {point}: {said}")
        collapsed = _last(case.curves).get("gates_collapsed", 0.0)
        if collapsed >= LOGGED:
            said = f"although they differ between test images at {point} ({_named(rates)})"
            return _warning(case, LOG, rates, f"the gates were all open or all closed at the end of training, {said}")
        return None
    if not _has_gates(case):
        return None
    said = f"no image, at no operating point ({', '.join(signals.points)}), leaves out a unit"
    return _warning(case, OPEN, _logged_rates(case), f"the gates are all open: {said}")


def _warning(case: Case, kind: str, rates: Mapping[str, float], text: str) -> GateWarning:
    log = [f"{name} {value:.2f}" for name, value in _last(case.curves).items() if name in _QUOTED]
    if log:
        text += f"; last epoch of the training log: {', '.join(log)}"
    return GateWarning(case.run, case.label, case.seed, kind, dict(rates), f"{case.label}, seed {case.seed}: {text}.")


def _has_gates(case: Case) -> bool:
    """A gated design may be built without gates; then nothing shows any."""
    return (
        len(case.test.points) > 1
        or any(name.startswith("gate") for name in case.test.signals.extra)
        or any(name.startswith("gate") for name in _last(case.curves))
    )


def _logged_rates(case: Case) -> dict[str, float]:
    """Open rate of each gate in the last epoch of the training log."""
    return {name.removesuffix("_open"): rate for name, rate in _last(case.curves).items() if _RATE.fullmatch(name)}


_QUOTED = ("gates_collapsed", "gates_constant", "gate_open")


def _last(curves: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the last line of the training log says of gates."""
    line = curves[-1] if curves else {}
    return {name: float(value) for name, value in line.items()
            if name.startswith("gate") and isinstance(value, (int, float))}  # fmt: skip


def _named(rates: Mapping[str, float]) -> str:
    """'block1 0.0 %, block2 0.1 %, ...': the first few."""
    some = [f"{name} {100 * rate:.1f} %" for name, rate in list(rates.items())[:_NAMED]]
    return ", ".join([*some, "..."] if len(rates) > _NAMED else some)
