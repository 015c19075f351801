"""The ``ablation:`` of a file -> runs, in the tree of values before it is checked, so that origins are kept.

The run that is varied becomes the base combination, the first level of each axis, under its own name; every
other combination is a run of its own, ``<run>-<axis>=<level>-...`` with the levels that are not the base's.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bench.config.ablation import CHANGEABLE, Ablation, is_short, level_name
from bench.config.load import Loaded, check_comparison, set_value
from bench.config.messages import model_in
from bench.config.schema import Comparison, Recipe, Run
from bench.config.source import Node, Origin
from bench.errors import ConfigError
from bench.registry import did_you_mean, method_config

#: More runs than this are taken for a mistake.
MOST_RUNS = 1000

Levels = dict[str, str]  # axis -> level


@dataclass(frozen=True)
class _Section:
    """One section with its axes as nodes: axis -> level -> path -> value."""

    said: Ablation
    node: Node
    axes: dict[str, dict[str, dict[str, Node]]]

    def origin(self, *path: str) -> Origin:
        return self.node.origin_of(("axes", *path))

    def size(self) -> int:
        """Number of combinations."""
        counts = [len(levels) for levels in self.axes.values()]
        return math.prod(counts) if self.said.design == "grid" else 1 + sum(count - 1 for count in counts)

    def combinations(self) -> Iterator[Levels]:
        """Levels of this section's axes, the base first."""
        names = [list(levels) for levels in self.axes.values()]
        base = [levels[0] for levels in names]
        if self.said.design == "grid":
            for picked in itertools.product(*names):
                yield dict(zip(self.axes, picked))
            return
        yield dict(zip(self.axes, base))
        for place, levels in enumerate(names):
            for level in levels[1:]:
                yield dict(zip(self.axes, [*base[:place], level, *base[place + 1 :]]))


@dataclass
class _Variant:
    """One combination of one run. reason: why it is impossible, None where it is not."""

    levels: Levels
    node: Node
    reason: str | None


def expand_ablation(tree: Node, comparison: Comparison, path: Path) -> None:
    """Replace the runs that an ablation varies by their combinations, in ``tree``.

    A combination that cannot be (its options are refused, a stage does not exist) keeps a possible
    configuration and gets ``skip:`` with the reason. A run that has levels of the axes already (a resolved file
    that is read again) is left alone. Raises ConfigError with file and line: an unknown path or run, an axis
    without any possible change, a run without any possible combination.
    """
    sections = [_read(node, said) for node, said in zip(_nodes(tree.value["ablation"]), comparison.ablation)]
    runs: list[Node] = tree.value["runs"].value
    varied = {run.name: _sections_of(run, sections) for run in comparison.runs}
    for section in sections:
        _check_runs(section, comparison)
        _check_paths(section, [run for run in comparison.runs if section in varied[run.name]])
    expanded: list[Node] = []
    found: list[_Variant] = []
    for run, node in zip(comparison.runs, runs):
        if not varied[run.name]:
            expanded.append(node)
            continue
        # Counted before they are made: each of them is resolved, which a slip of millions would take hours for.
        if len(expanded) + max(section.size() for section in varied[run.name]) > MOST_RUNS:
            raise _too_many(tree)
        variants = _variants(tree, path, run, node, varied[run.name])
        found += variants
        expanded += [variant.node for variant in variants]
        if len(expanded) > MOST_RUNS:
            raise _too_many(tree)
    for section in sections:
        _check_axes(section, found)
    tree.value["runs"] = Node(expanded, tree.value["runs"].origin)


def _too_many(tree: Node) -> ConfigError:
    return ConfigError(f"more than {MOST_RUNS} runs; take design: one_at_a_time, or fewer axes",
                       where=str(tree.origin_of(("ablation",))))  # fmt: skip


def _nodes(node: Node) -> list[Node]:
    return list(node.value) if isinstance(node.value, list) else [node]


def _read(node: Node, said: Ablation) -> _Section:
    axes = {}
    for axis, levels in node.value["axes"].value.items():
        if is_short(levels.value):
            key = levels.value["key"].value
            axes[axis] = {level_name(value.plain()): {key: value} for value in levels.value["values"].value}
        else:
            axes[axis] = {level: dict(change.value) for level, change in levels.value.items()}
    return _Section(said, node, axes)


def _sections_of(run: Run, sections: Sequence[_Section]) -> list[_Section]:
    """The sections that vary a run; ConfigError where two of them have an axis of the same name."""
    own = [
        section for section in sections
        if (not section.said.runs or run.name in section.said.runs) and not set(section.axes) <= set(run.factors)
    ]  # fmt: skip
    seen: set[str] = set()
    for section in own:
        twice = seen & set(section.axes)
        if twice:
            axis = min(twice)
            raise ConfigError(f"two axes called '{axis}' vary the run '{run.name}'", where=str(section.origin(axis)))
        seen |= set(section.axes)
    return own


def _variants(tree: Node, path: Path, run: Run, node: Node, sections: Sequence[_Section]) -> list[_Variant]:
    axes = {axis: levels for section in sections for axis, levels in section.axes.items()}
    base = {axis: next(iter(levels)) for axis, levels in axes.items()}
    combinations = {tuple({**base, **levels}.values()) for section in sections for levels in section.combinations()}
    order = [list(levels) for levels in axes.values()]
    ranked = sorted(combinations, key=lambda c: [names.index(level) for names, level in zip(order, c)])
    variants = []
    for picked in ranked:
        levels = dict(zip(axes, picked))
        changed = {axis: level for axis, level in levels.items() if level != base[axis]}
        origin = next((s.origin(a, changed[a]) for s in sections for a in s.axes if a in changed), node.origin)
        made = _describe(run, copy.deepcopy(node), levels, changed, origin)
        reason = _apply(made, axes, levels) or _refused(tree, path, made)
        variants.append(_Variant(levels, made, reason))
    possible = next((v.node for v in variants if v.reason is None), None)
    if possible is None:
        if _refused(tree, path, node) is not None:
            raise ConfigError(f"run '{run.name}': no combination of the ablation is possible: {variants[0].reason}",
                              where=str(node.origin))  # fmt: skip
        possible = node
    for variant in variants:
        if variant.reason is not None:
            _skip(variant, possible)
    return variants


def _describe(run: Run, node: Node, levels: Levels, changed: Levels, origin: Origin) -> Node:
    """Name, label, group and factors of a combination, in place."""

    def put(key: str, value: Any) -> None:
        node.value[key] = Node(value, origin)

    put("factors", {axis: Node(level, origin) for axis, level in levels.items()})
    put("base", run.name)
    if changed:
        words = ", ".join(f"{axis} {level}" for axis, level in changed.items())
        put("name", run.name + "".join(f"-{axis}={level}" for axis, level in changed.items()))
        put("label", f"{run.label or run.name}, {words}")
        if run.group is not None:
            put("group", f"{run.group}, {words}")
        node.value.pop("published", None)  # a published number is of the run as it was published
    return node


def _apply(node: Node, axes: dict[str, dict[str, dict[str, Node]]], levels: Levels) -> str | None:
    """Make the changes of all levels; returns why they cannot go together, if so."""
    made: list[tuple[str, str]] = []
    for axis, level in levels.items():
        for key, value in axes[axis][level].items():
            for other, before in made:
                if other != axis and (f"{key}.".startswith(f"{before}.") or f"{before}.".startswith(f"{key}.")):
                    return f"the axes '{other}' and '{axis}' both change {min(key, before, key=len)}"
            made.append((axis, key))
            set_value(node, key.split("."), copy.deepcopy(value), str(value.origin))
    return None


def _refused(tree: Node, path: Path, run: Node) -> str | None:
    """Why this run cannot be, in one line without places; None where it can."""
    from bench.config.resolve import resolve_run

    shared = {k: v for k, v in tree.value.items() if k not in ("ablation", "reference", "budgets", "auc", "verdicts")}
    alone = Node({**shared, "runs": Node([run], run.origin)}, tree.origin)
    try:
        resolve_run(Loaded(check_comparison(alone), alone, path, alone), 0)
    except ConfigError as error:
        name = run.value["name"].value
        lines = (re.sub(r"^(.*?:\d+|command line|default): ", "", line) for line in str(error).splitlines())
        own = (f"runs.{name}.", f"run '{name}' ", f" (run '{name}')")  # it is said where the reason stands
        return "; ".join(functools.reduce(lambda line, words: line.replace(words, ""), own, line) for line in lines)
    return None


def _skip(variant: _Variant, possible: Node) -> None:
    """Leave a combination out. What is refused cannot be written down, so a possible configuration stands there."""
    origin = variant.node.value["factors"].origin
    own = variant.node.value
    kept = {key: own[key] for key in ("name", "label", "group", "factors", "base") if key in own}
    rest = {key: node for key, node in copy.deepcopy(possible).value.items() if key not in (*kept, "published")}
    variant.node.value = {**rest, **kept, "skip": Node(f"impossible: {variant.reason}", origin)}


# ---- what is a mistake of the file -------------------------------------------------------------------
def _check_runs(section: _Section, comparison: Comparison) -> None:
    names = [run.name for run in comparison.runs]
    for name in section.said.runs:
        if name not in names:
            raise ConfigError(f"ablation.runs: no run is called '{name}'{did_you_mean(name, names)}",
                              where=str(section.node.origin_of(("runs",))))  # fmt: skip


def _check_paths(section: _Section, runs: Iterable[Run]) -> None:
    """ConfigError for a path that no varied run knows."""
    methods = list(dict.fromkeys(run.method for run in runs))
    if not methods:
        return
    changes = [change for levels in section.axes.values() for change in levels.values()]
    methods += [str(change["method"].value) for change in changes if "method" in change]
    for axis, levels in section.axes.items():
        for level, change in levels.items():
            for key in change:
                problems = [_unknown(key, method) for method in methods]
                if None not in problems:
                    raise ConfigError(f"ablation axis '{axis}', level '{level}': {problems[0]}",
                                      where=str(change[key].origin))  # fmt: skip


def _unknown(key: str, method: str) -> str | None:
    """What is wrong with a path, whatever its value, for a run of this method."""
    first, *rest = key.split(".")
    if first not in CHANGEABLE:
        return f"'{key}' is nothing an axis can change{did_you_mean(first, CHANGEABLE)}"
    if first in ("options", "recipe", "stages", "data") and (not rest or (first == "stages" and len(rest) < 2)):
        return f"'{key}' names a whole section; name a key in it"
    if first == "data":
        return None if rest[0] in ("mean", "std") else f"a run may change mean and std of the data, not {rest[0]}"
    if first not in ("options", "recipe", "stages"):
        return f"'{first}' is no section" if rest else None
    try:
        model: Any = method_config(method) if first == "options" else Recipe
    except ConfigError:
        return None  # an unknown method is told where the run is resolved
    for step in rest[1:] if first == "stages" else rest:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        if step not in model.model_fields:
            return f"unknown key '{key}'{did_you_mean(step, model.model_fields)}"
        model = model_in(model.model_fields[step].annotation)
    return None


def _check_axes(section: _Section, variants: Sequence[_Variant]) -> None:
    """ConfigError for an axis none of whose other levels is possible anywhere."""
    for axis, levels in section.axes.items():
        first = next(iter(levels))
        others = [v for v in variants if v.levels.get(axis, first) != first and v.levels[axis] in levels]
        if others and all(v.reason is not None for v in others):
            text = f"none of its levels but '{first}' is possible: {others[0].reason}"
            raise ConfigError(f"ablation axis '{axis}': {text}", where=str(section.origin(axis)))
