"""Several results folders as one: a comparison of runs that were measured at different times, by different files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config.comparing import parse_budget
from bench.errors import ConfigError
from bench.files import write_json_atomic
from bench.registry import did_you_mean

#: What must be the same in all folders, and why rows that differ in it are never drawn together.
_SAME = {
    "protocol_version": "numbers of different versions of the protocol must not be compared; run the older one again",
    "data": "accuracies on different data cannot be compared",
    "protocol": "networks trained on the whole training set and on a part of it cannot be compared",
    "confidence_level": "intervals of different levels cannot stand side by side",
}


def merge_results(
    folders: Sequence[Path],
    out: Path,
    *,
    reference: str | None = None,
    budgets: Sequence[float | str] | None = None,
    title: str | None = None,
) -> Path:
    """Write ``out/comparison.json``, which names the runs where they lie; ``bench.report.draw(out)`` does the rest.

    A run that two folders share is taken once. Different runs of one name get their comparison's name too. reference
    and budgets: default those of the first folder that has them. Raises ConfigError where a folder holds no results,
    where folders differ in what must be the same (protocol version, data set, protocol, level), and where reference
    names no run.
    """
    if len({folder.resolve() for folder in folders}) < 2:
        raise ConfigError("takes two results folders or more, not the same one twice")
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise ConfigError("--out is one of the folders that are compared; name another", where=str(out))
    read = [_read(folder) for folder in folders]
    _check_same(folders, read)
    names = _names(folders, read)
    taken: dict[str, set[str]] = {}
    for one in read:
        for run in one["runs"]:
            taken.setdefault(run["run"], set()).add(_what(one, run))
    groups = [{run.get("group") for run in one["runs"]} - {None} for one in read]
    runs: dict[tuple[str, int, str], dict[str, Any]] = {}
    for folder, one, name, own_groups in zip(folders, read, names, groups):
        shared = set().union(*(other for other in groups if other is not own_groups))
        for run in one["runs"]:
            clash = len(taken[run["run"]]) > 1
            group = run.get("group")
            merged = {
                **run, "folder": os.path.relpath(folder / run["folder"], out),
                "run": f"{run['run']}@{name}" if clash else run["run"],
                "label": f"{run['label']} ({name})" if clash else run["label"],
            }  # fmt: skip
            if group is not None and group in shared and clash:
                merged["group"] = f"{group} ({name})"
            runs.setdefault((merged["run"], run["seed"], run["run_id"]), merged)
    known = [run["run"] for run in runs.values()]
    reference = _reference(reference, read, names, known)
    chosen = list(budgets) if budgets is not None else next((one["budgets"] for one in read if one.get("budgets")), [])
    if reference is None and any(parse_budget(entry).unit == "relative" for entry in chosen):
        raise ConfigError("a budget that is a share needs --reference RUN")
    write_json_atomic(out / "comparison.json", {
        **{key: read[0].get(key) for key in _SAME}, "name": "-and-".join(names), "reference": reference,
        "title": title or " and ".join(str(one.get("title") or name) for one, name in zip(read, names)),
        "budgets": chosen, "runs": list(runs.values()),
    })  # fmt: skip
    return out


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "comparison.json"
    try:
        value = json.loads(path.read_text("utf-8"))
        _ = [(run["run"], run["seed"], run["run_id"], run["folder"], run["label"]) for run in value["runs"]]
    except OSError:
        raise ConfigError("holds no results of a comparison (no comparison.json)", where=str(folder)) from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError("is damaged; run the comparison again", where=str(path)) from None
    return dict(value)


def _check_same(folders: Sequence[Path], read: Sequence[Mapping[str, Any]]) -> None:
    for key, reason in _SAME.items():
        values = [one.get(key) for one in read]
        if len(set(values)) > 1:
            said = ", ".join(f"{folder}: {value}" for folder, value in zip(folders, values))
            raise ConfigError(f"the folders differ in {key.replace('_', ' ')} ({said}); {reason}")


def _names(folders: Sequence[Path], read: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short distinct names of the folders: of the comparison, or else of the folder, or numbered."""
    for names in ([str(one.get("name") or "") for one in read], [folder.resolve().name for folder in folders]):
        if len(set(names)) == len(names) and all(names):
            return names
    return [f"{folder.resolve().name}-{number}" for number, folder in enumerate(folders, 1)]


def _what(one: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """What a run's name stands for in its folder: the ids of all its seeds."""
    return " ".join(sorted(other["run_id"] for other in one["runs"] if other["run"] == run["run"]))


def _reference(
    asked: str | None, read: Sequence[Mapping[str, Any]], names: Sequence[str], known: Sequence[str]
) -> str | None:
    if asked is not None:
        if asked not in known:
            raise ConfigError(f"--reference {asked}: no such run{did_you_mean(asked, known)}")
        return asked
    for one, name in zip(read, names):
        if one.get("reference"):
            own = str(one["reference"])
            return own if own in known else f"{own}@{name}"
    return None
