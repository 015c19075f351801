"""A comparison in words: every resolved value with its origin, and the resolved file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from bench.config.load import Loaded
from bench.config.resolve import resolve_run
from bench.config.source import DEFAULT


def explain(loaded: Loaded) -> list[tuple[str, str, str]]:
    """(path, value as YAML, origin) of every value, runs and stages written out."""
    rows: list[tuple[str, str, str]] = []
    comparison = loaded.comparison
    for name in type(comparison).model_fields:
        if name not in ("runs", "recipe"):
            _section(rows, name, getattr(comparison, name), loaded, (name,))
    for index, run in enumerate(comparison.runs):
        at = f"runs.{run.name}"
        resolved = resolve_run(loaded, index)
        for name in type(run).model_fields:
            if name not in ("recipe", "stages", "options", "name"):
                _section(rows, f"{at}.{name}", getattr(run, name), loaded, ("runs", index, name))
        _section(rows, f"{at}.options", resolved.config, loaded, ("runs", index, "options"))
        for stage in resolved.stages:
            for key, value in stage.recipe.model_dump(mode="json").items():
                origin = resolved.origins[stage.name][key]
                rows.append((f"{at}.stages.{stage.name}.{key}", _text(value), str(origin)))
    return rows


def _section(
    rows: list[tuple[str, str, str]], path: str, value: Any, loaded: Loaded, place: tuple[str | int, ...]
) -> None:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            _section(rows, f"{path}.{name}", getattr(value, name), loaded, (*place, name))
        return
    said = loaded.tree.find(place)
    rows.append((path, _text(value), str(said.origin if said is not None else DEFAULT)))


def _text(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, BaseModel) else str(value)


def resolved_yaml(loaded: Loaded, seeds: Sequence[int] = ()) -> str:
    """The file after extends, includes and the command line, as YAML that `bench run` takes again; ``--only`` leaves
    no run out of it, since others may name it. seeds: instead of those of the file and the command line."""
    tree = loaded.whole.plain()
    if seeds and list(seeds) != list(loaded.comparison.seeds):
        tree["seeds"] = list(seeds)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
