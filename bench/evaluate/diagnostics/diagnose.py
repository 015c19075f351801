"""All tables of the diagnostics of one comparison, computed once for files, figures and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.evaluate.diagnostics import agreement, calibration, payers, usage
from bench.evaluate.diagnostics.class_names import class_names, known_classes
from bench.evaluate.diagnostics.collapse import GateWarning, gate_warnings
from bench.evaluate.diagnostics.views import Case, by_run

#: Name of each table -> its columns.
TABLES: Mapping[str, tuple[str, ...]] = {
    "calibration": calibration.BINS_COLUMNS,
    "calibration_summary": calibration.SUMMARY_COLUMNS,
    "cost_by_class": payers.CLASS_COLUMNS,
    "cost_by_difficulty": payers.DIFFICULTY_COLUMNS,
    "usage": usage.COLUMNS,
    "agreement": agreement.PAIR_COLUMNS,
    "agreement_steps": agreement.STEPS_COLUMNS,
    "gate_warnings": ("run", "label", "seed", "kind", "text"),
}


@dataclass(frozen=True)
class Diagnosis:
    """cases: what was looked at. names: of the classes. tables: name -> rows with the columns of ``TABLES``.
    warnings: gates that decide nothing. notes: what is missing, and why, in words."""

    cases: Sequence[Case]
    names: Sequence[str]
    tables: Mapping[str, list[dict[str, Any]]]
    warnings: Sequence[GateWarning]
    notes: Sequence[str]


def diagnose(cases: Sequence[Case], dataset: str) -> Diagnosis:
    """Everything beyond accuracy of the runs of one comparison; empty tables where there are no cases."""
    labels = max((int(case.test.outcomes.label.max()) + 1 for case in cases), default=0)
    names = class_names(dataset, max(labels, known_classes(dataset)))
    bins, summary = calibration.calibration_rows(cases)
    classes, quantiles = payers.payer_rows(cases, names)
    pairs, steps = agreement.agreement_rows(cases)
    warnings = gate_warnings(cases)
    tables = {
        "calibration": bins,
        "calibration_summary": summary,
        "cost_by_class": classes,
        "cost_by_difficulty": quantiles,
        "usage": usage.usage_rows(cases, names),
        "agreement": pairs,
        "agreement_steps": steps,
        "gate_warnings": [
            {"run": w.run, "label": w.label, "seed": w.seed, "kind": w.kind, "text": w.text} for w in warnings
        ],
    }
    return Diagnosis(cases, names, tables, warnings, [*mixture_notes(cases), *difficulty_notes(cases)])


def mixture_notes(cases: Sequence[Case]) -> list[str]:
    """Whose points could be mixed but are not, as the protocol allows no choice."""
    reasons: dict[str, list[str]] = {}
    for case in cases:
        if case.why_no_mixture:
            reasons.setdefault(case.why_no_mixture, []).append(case.label)
    return [f"No mixture of operating points for {', '.join(dict.fromkeys(labels))}: {why}."
            for why, labels in reasons.items()]  # fmt: skip


def difficulty_notes(cases: Sequence[Case]) -> list[str]:
    """Whose difficulty is its own, as no other run was measured on the same images."""
    alone = []
    for group in payers.by_images(cases).values():
        runs = list(by_run(group).values())
        if len(runs) == 1 and any(view.adaptive for view in runs[0][0].views):
            alone.append(runs[0][0].label)
    labels = ", ".join(dict.fromkeys(alone))
    said = f"Difficulty for {labels} is said by that run itself: no other was measured on the same images."
    return [said] if alone else []
