"""Comparison -> one ``RunSpec`` per run and seed: every value that matters, fully written out.

A value of a stage's recipe comes from, later ones winning: the schema's default, the comparison's
``recipe``, the run's ``recipe``, the method's own stage, the run's ``stages: {name: ...}``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.config.batch_scaling import scaled_values
from bench.config.load import Loaded
from bench.config.messages import explain_errors
from bench.config.schema import (
    EXECUTION_ONLY,
    PROTOCOL_VERSION,
    Data,
    Evaluate,
    MethodConfig,
    Recipe,
    Run,
    RunName,
    Strict,
)
from bench.config.source import DEFAULT, Node, Origin
from bench.config.stage import Stage
from bench.config.weights import find_weights
from bench.errors import ConfigError
from bench.registry import did_you_mean, method_config


class StageSpec(Strict):
    """A stage with its whole recipe."""

    name: str
    start_from: str | None
    recipe: Recipe
    options: dict[str, Any]


class RunSpec(Strict):
    """One run of one seed. What belongs to its identity is hashed into ``run_id``."""

    protocol_version: int = PROTOCOL_VERSION
    comparison: str
    run: RunName
    label: str
    method: str
    options: dict[str, Any]  # as given; defaults are filled in by the method's Config
    all_options: dict[str, Any]  # with every default written out
    stages: tuple[StageSpec, ...]
    data: Data
    protocol: str
    seed: int
    evaluate: Evaluate
    device: str
    threads: int | None
    deterministic: bool
    weights: str | None  # FILE, or FILE#KEY
    weights_sha256: str | None  # of the file's bytes, with #KEY if one of its networks is taken
    arch: str | None
    evaluate_only: bool
    skip: str | None
    timeout_minutes: float | None
    trackers: tuple[str, ...] = ()  # not part of the identity; specs of earlier versions have none

    @property
    def run_id(self) -> str:
        """Twelve hex digits over everything that can change this run's numbers."""
        return digest(self.identity())[:12]

    @property
    def folder(self) -> str:
        return f"{self.run}-seed{self.seed}-{self.run_id[:8]}"

    @property
    def evaluation_amp(self) -> str:
        """Precision of the evaluation: off, bf16 or fp16."""
        trained = self.stages[-1].recipe.amp
        return trained if self.evaluate.amp == "recipe" else self.evaluate.amp

    def identity(self) -> dict[str, Any]:
        return {
            **self.data_identity(),
            "method": self.method,
            "options": self.all_options,
            "stages": [{"name": s.name, "start_from": s.start_from, "recipe": recipe_identity(s.recipe)}
                       for s in self.stages],
            "weights": self.weights_sha256 or self.weights,
            "arch": self.arch,
            "evaluate_only": self.evaluate_only,
            "evaluate": self._evaluate_identity(),
            "deterministic": self.deterministic,
        }  # fmt: skip

    def _evaluate_identity(self) -> dict[str, Any]:
        """How a run is measured, with a precision only if it is not that of the training."""
        value = self.evaluate.model_dump(mode="json", exclude={"amp", "batch_size", "validate_every", "keep_logits"})
        for name in ("risk", "delta"):  # later keys: runs measured before there were any keep their ids
            if getattr(self.evaluate, name) == type(self.evaluate).model_fields[name].default:
                del value[name]
        other = self.evaluation_amp != self.stages[-1].recipe.amp
        return {**value, "amp": self.evaluation_amp} if other else value

    def data_identity(self) -> dict[str, Any]:
        """The part of the identity that every stage shares."""
        return {
            "protocol_version": self.protocol_version,
            "data": self.data.model_dump(mode="json", exclude={"root", "download"}),
            "protocol": self.protocol,
            "seed": self.seed,
        }


def recipe_identity(recipe: Recipe) -> dict[str, Any]:
    """A recipe without what cannot change a result."""
    return recipe.model_dump(mode="json", exclude=set(EXECUTION_ONLY))


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Resolved:
    """A run with the origin of each value of its recipes (for ``bench explain``)."""

    run: Run
    config: MethodConfig
    stages: list[StageSpec]
    origins: dict[str, dict[str, Origin]] = field(default_factory=dict)


def resolve(loaded: Loaded) -> list[RunSpec]:
    """All runs of a comparison, in file order, one per seed. Raises ConfigError; imports no torch where
    the methods register their options by themselves."""
    comparison = loaded.comparison
    specs = []
    for index, run in enumerate(comparison.runs):
        resolved = resolve_run(loaded, index)
        data = comparison.data.model_copy(update=_normalisation(loaded, index, run))
        weights, weights_sha256 = _weights(loaded, index, run)
        for seed in run.seeds if run.seeds is not None else comparison.seeds:
            specs.append(RunSpec(
                comparison=comparison.name, run=run.name, label=run.label or run.name, method=run.method,
                options=resolved.config.model_dump(mode="json", exclude_unset=True),
                all_options=resolved.config.model_dump(mode="json"), stages=tuple(resolved.stages), data=data,
                protocol=comparison.protocol, seed=seed, evaluate=comparison.evaluate,
                device=comparison.device, threads=comparison.threads, deterministic=comparison.deterministic,
                weights=weights, weights_sha256=weights_sha256, arch=run.arch,
                evaluate_only=run.evaluate_only, skip=run.skip, timeout_minutes=comparison.timeout_minutes,
                trackers=comparison.trackers,
            ))  # fmt: skip
    return specs


def resolve_run(loaded: Loaded, index: int) -> Resolved:
    """One run's options and stage recipes, checked."""
    run = loaded.comparison.runs[index]
    at: tuple[str | int, ...] = ("runs", index)
    try:
        model = method_config(run.method)
    except ConfigError as error:
        raise ConfigError(str(error), where=str(loaded.origin(*at, "method"))) from None
    try:
        config = parse_options(model, run.options)
    except ValidationError as error:
        raise explain_errors(error, model, loaded.tree, (*at, "options")) from None
    try:
        stages = list(config.stages())
    except Exception as error:  # a method of somebody else
        words = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"method '{run.method}': Config.stages raised {words}") from error
    if not stages or not all(isinstance(stage, Stage) for stage in stages):
        raise ConfigError(f"method '{run.method}': Config.stages must name at least one Stage, not {stages!r}")
    names = [stage.name for stage in stages]
    for name in run.stages:
        if name not in names:
            raise ConfigError(
                f"run '{run.name}' has no stage '{name}'{did_you_mean(name, names)}",
                where=str(loaded.origin(*at, "stages", name)),
            )
    resolved = Resolved(run, config, [])
    for stage in stages:
        recipe, origins = _stage_recipe(loaded, index, run, stage)
        options = dict(stage.options) if stage.options is not None else config.model_dump(mode="json")
        resolved.stages.append(
            StageSpec(name=stage.name, start_from=stage.start_from, recipe=recipe, options=options)
        )
        resolved.origins[stage.name] = origins
    return resolved


def own_lengths(loaded: Loaded, runs: Collection[str]) -> list[tuple[str, StageSpec]]:
    """Stages of these runs, by the run's name, whose length is the method's and not what the file says."""
    found = []
    for index, run in enumerate(loaded.comparison.runs):
        if run.name not in runs:
            continue
        resolved = resolve_run(loaded, index)
        for stage in resolved.stages:
            key = "epochs" if stage.recipe.iterations is None else "iterations"
            if resolved.origins[stage.name][key] == _stage_origin(stage.name, run.method):
                found.append((run.name, stage))
    return found


def _stage_origin(stage: str, method: str) -> Origin:
    return Origin(f"stage '{stage}' of method {method}")


def parse_options(model: type[MethodConfig], options: dict[str, Any]) -> MethodConfig:
    """A method's options, from YAML or a stored spec: lists stand for tuples. Raises ValidationError."""
    return model.model_validate_json(json.dumps(options))


def _stage_recipe(
    loaded: Loaded, index: int, run: Run, stage: Stage
) -> tuple[Recipe, dict[str, Origin]]:
    at: tuple[str | int, ...] = ("runs", index)
    method = _stage_origin(stage.name, run.method)
    layers: list[tuple[dict[str, Any], tuple[str | int, ...] | Origin]] = [
        (_said(loaded.tree, ("recipe",)), ("recipe",)),
        (dict(run.recipe), (*at, "recipe")),
        (dict(stage.recipe), method),
        (dict(run.stages.get(stage.name, {})), (*at, "stages", stage.name)),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    trees: dict[str, Node] = {}
    for layer, source in layers:
        for key in _displaced(layer):
            values.pop(key, None)
            origins.pop(key, None)
        for key, value in layer.items():
            origin = source if isinstance(source, Origin) else loaded.origin(*source, key)
            values[key] = value
            origins[key] = origin
            found = None if isinstance(source, Origin) else loaded.tree.find((*source, key))
            trees[key] = found if found is not None else _wrap(value, origin)
    root = Node({key: trees[key] for key in values}, loaded.origin(*at))
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problem = explain_errors(error, Recipe, root)
        raise ConfigError(_name_run(str(problem), run.name)) from None
    recipe, scaled = _scaled(recipe, root, run.name)
    return recipe, {name: scaled.get(name, origins.get(name, DEFAULT)) for name in Recipe.model_fields}


def _scaled(recipe: Recipe, root: Node, run: str) -> tuple[Recipe, dict[str, Origin]]:
    """The recipe for its own batch size, and the origin of every value that this changed."""
    try:
        changed = scaled_values(recipe)
    except ValueError as error:
        where = str(root.origin_of(("reference_batch_size",)))
        raise ConfigError(f"recipe: {error} (run '{run}')", where=where) from None
    rule = f"{{}} at batch {recipe.reference_batch_size}, scaled to batch {recipe.batch_size} (reference_batch_size)"
    origins = {name: Origin(rule.format(f"{getattr(recipe, name):.10g}")) for name in changed}
    return recipe.model_copy(update=changed), origins


def _name_run(lines: str, name: str) -> str:
    return "\n".join(f"{line} (run '{name}')" for line in lines.splitlines())


def _displaced(layer: dict[str, Any]) -> list[str]:
    """What a layer silently takes the place of: the other kind of length, another schedule's milestones."""
    gone = []
    if layer.get("epochs") is not None and "iterations" not in layer:
        gone.append("iterations")
    if layer.get("iterations") is not None and "epochs" not in layer:
        gone.append("epochs")
    if layer.get("lr_scheduler", "multistep") != "multistep" and "lr_milestones" not in layer:
        gone.append("lr_milestones")
    return gone


def _said(tree: Node, path: tuple[str | int, ...]) -> dict[str, Any]:
    node = tree.find(path)
    return node.plain() if node is not None and isinstance(node.value, dict) else {}


def _wrap(value: Any, origin: Origin) -> Node:
    if isinstance(value, dict):
        return Node({key: _wrap(child, origin) for key, child in value.items()}, origin)
    if isinstance(value, (list, tuple)):
        return Node([_wrap(child, origin) for child in value], origin)
    return Node(value, origin)


def _normalisation(loaded: Loaded, index: int, run: Run) -> dict[str, Any]:
    if not run.data:
        return {}
    try:
        checked = Data.model_validate({"name": loaded.comparison.data.name, **run.data})
    except ValidationError as error:
        raise explain_errors(error, Data, loaded.tree, ("runs", index, "data")) from None
    return {key: getattr(checked, key) for key in run.data}


def _weights(loaded: Loaded, index: int, run: Run) -> tuple[str | None, str | None]:
    """The weights of a run, as given or beside the comparison file, and their identity. Raises ConfigError."""
    if run.weights is None:
        return None, None
    where = f"{loaded.origin('runs', index, 'weights')}: runs.{run.name}.weights"
    path, key = find_weights(run.weights, loaded.path.parent, where=where)
    chosen = "" if key is None else f"#{key}"
    return f"{path}{chosen}", f"{file_sha256(path)}{chosen}"


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    value = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                value.update(block)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    return value.hexdigest()
