"""Checks of what a method says it is: options, stages, network, points, units."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from bench.config.resolve import parse_options
from bench.config.schema import Recipe
from bench.method import Point, Unit
from bench.testing.subject import Subject


def check_options(subject: Subject) -> None:
    """Options can be stored and read back."""
    config = subject.method.config
    with subject.calling("Config"):
        text = json.dumps(config.model_dump(mode="json", exclude_unset=True))
        again = parse_options(type(config), json.loads(text))
    if again != config:
        subject.fail("Config", "options that are written out and read back are others than before")


def check_stages(subject: Subject) -> None:
    """Stages follow one another, with options and recipe values that exist."""
    seen: set[str] = set()
    with subject.calling("stages"):
        known = set(subject.method.config.model_dump(mode="json"))
        stages = list(subject.method.stages())
        declared = [stage.name for stage in subject.method.config.stages()]
        for stage in stages:
            Recipe.model_validate({**stage.recipe})
    for stage in stages:
        if stage.name in seen:
            subject.fail("stages", f"two stages are called '{stage.name}'")
        if stage.start_from is not None and stage.start_from not in seen:
            subject.fail("stages", f"'{stage.name}' starts from '{stage.start_from}', which is not a stage before it")
        unknown = sorted(set(stage.options or ()) - known)
        if unknown:
            subject.fail("stages", f"'{stage.name}' depends on '{unknown[0]}', which is not an option")
        seen.add(stage.name)
    if [stage.name for stage in stages] != declared:
        subject.fail("stages", f"gives {[stage.name for stage in stages]}, but Config.stages gives {declared}")


def check_build(subject: Subject) -> None:
    """The same seed builds the same network, on the CPU."""
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        with subject.calling("build"):
            states.append(subject.method.build(subject.stage).state_dict())
    if states[0].keys() != states[1].keys():
        subject.fail("build", "two networks of one seed have other parameters")
    for key, value in states[0].items():
        if value.device.type != "cpu":
            subject.fail("build", f"'{key}' is on {value.device}, not on the CPU")
        if not torch.equal(value, states[1][key]):
            subject.fail("build", f"two networks of one seed differ in '{key}': draw from torch's global generator")
    with subject.calling("backbone"):
        if not subject.method.backbone():
            subject.fail("backbone", "is empty")


def check_points(subject: Subject) -> None:
    """At least one operating point, each with a name of its own."""
    if not subject.points:
        subject.fail("points", "there is none; give at least one, the default one first")
    strange = [point for point in subject.points if not isinstance(point, Point)]
    if strange:
        subject.fail("points", f"{strange[0]!r} is not a bench.method.Point")
    _distinct(subject, "points", [point.name for point in subject.points])


def check_units(subject: Subject) -> None:
    """Units have names of their own, can be counted, and two counters agree about each."""
    strange = [unit for unit in subject.units if not isinstance(unit, Unit)]
    if strange:
        subject.fail("units", f"{strange[0]!r} is not a bench.method.Unit")
    _distinct(subject, "units", [unit.name for unit in subject.units])
    if int(subject.cost.columns["macs"].sum()) <= 0:
        subject.fail("units", "they do not multiply anything: 0 MACs in all")


def _distinct(subject: Subject, hook: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        subject.fail(hook, f"two are called '{twice[0]}'")
