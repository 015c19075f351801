"""Several results folders as one: a comparison of runs that were measured at different times, by different files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config.comparing import ALL, parse_budget
from bench.errors import ConfigError, RunError
from bench.evaluate import latency
from bench.evaluate.measured import find_damage
from bench.registry import did_you_mean
from bench.report.comparable import SAME, StoredRun, are_one_run, check_comparable, read_stored
from bench.store.comparison import read_comparison, write_comparison
from bench.store.reading import Damaged
from bench.store.status import read_status

#: What a file says of a run; of a run that several folders have, the first one's words count.
_SAID = ("label", "group", "factors", "base", "published")


def merge_results(
    folders: Sequence[Path],
    out: Path,
    *,
    reference: str | None = None,
    budgets: Sequence[float | str] | None = None,
    title: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write ``out/comparison.json``, which names the runs where they lie; ``bench.report.draw(out)`` does the rest.

    A run that two folders share is taken once, from where it is done; further seeds of a run join it. Different runs
    of one name get their comparison's name too. Measured times come along. reference and budgets: default those of the
    first folder that has budgets. say: told what cannot be checked. Raises ConfigError where a folder holds no results,
    where folders differ in what must be the same (protocol version, data set, test images, split, protocol, level),
    where reference names no run, and where out has runs of its own.
    """
    if len({folder.resolve() for folder in folders}) < 2:
        raise ConfigError("takes two results folders or more, not the same one twice")
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise ConfigError("--out is one of the folders that are compared; name another", where=str(out))
    if (out / "runs").is_dir():
        raise ConfigError("holds a comparison's own results, which would be lost; name another folder", where=str(out))
    read = [_read(folder) for folder in folders]
    stored = [read_stored(folder, one) for folder, one in zip(folders, read)]
    notes = check_comparable(folders, read, stored)
    names = _names(folders, read)
    clashes, groups, bases = _clashes(read, stored)
    said: dict[str, dict[str, Any]] = {}
    taken: list[dict[tuple[str, int], dict[str, Any]]] = []
    runs: dict[tuple[str, int, str], dict[str, Any]] = {}
    places: dict[tuple[str, int, str], Path] = {}
    for folder, one, name in zip(folders, read, names):
        taken.append({})
        for run in one["runs"]:
            where = (folder / run["folder"]).resolve()
            merged = {**run, "folder": os.path.relpath(where, out.resolve())}
            if run["run"] in clashes:
                merged |= {"run": f"{run['run']}@{name}", "label": f"{run['label']} ({name})"}
            if run.get("group") in groups:
                merged["group"] = f"{run['group']} ({name})"
            if run.get("base") in bases:
                merged["base"] = f"{run['base']}@{name}"
            words = said.setdefault(merged["run"], {key: merged[key] for key in _SAID if key in merged})
            merged = {**{key: value for key, value in merged.items() if key not in _SAID}, **words}
            taken[-1][run["run_id"], run["seed"]] = merged
            key = (merged["run"], run["seed"], run["run_id"])
            if key not in runs or (_is_done(where) and not _is_done(places[key])):
                runs[key], places[key] = merged, where
    known = [run["run"] for run in runs.values()]
    source = next((k for k, one in enumerate(read) if one.get("budgets")), 0)
    chosen = list(budgets) if budgets is not None else list(read[source].get("budgets") or [])
    first = [source] if budgets is None else []  # shares are of the reference of the file that names them
    order = [*first, *(k for k in range(len(read)) if k not in first)]
    reference = _reference(reference, [(read[k], names[k]) for k in order], known)
    if reference is None and any(parse_budget(entry).unit == "relative" for entry in chosen):
        raise ConfigError("a budget that is a share needs --reference RUN")
    write_comparison(out, {
        **{key: read[0].get(key) for key in SAME}, "name": "-and-".join(names), "reference": reference,
        "title": title or " and ".join(str(one.get("title") or name) for one, name in zip(read, names)),
        "budgets": chosen, **_asked(read[source], known), "runs": list(runs.values()),
        "ablation": {"sections": [part for one in read for part in (one.get("ablation") or {}).get("sections", [])]},
    })  # fmt: skip
    _merge_latency(folders, out, taken)
    for line in notes:
        say(line)
    return out


def _clashes(
    read: Sequence[Mapping[str, Any]], stored: Sequence[Sequence[StoredRun]]
) -> tuple[set[str], set[str], set[str]]:
    """Names in several folders that are not the same there: of runs, of groups, and of runs that were varied.

    A group or a family of an ablation that has a clashing run clashes as a whole: half of one family and half of
    another are none.
    """
    runs: dict[str, list[StoredRun]] = {}
    for one_run in (run for of_folder in stored for run in of_folder):
        runs.setdefault(one_run.run, []).append(one_run)
    holders: dict[tuple[str, str], list[int]] = {}  # ("group" or "base", its name) -> folders
    for place, one in enumerate(read):
        for run in one["runs"]:
            for kind in ("group", "base"):
                if run.get(kind) is not None:
                    holders.setdefault((kind, run[kind]), []).append(place)
    several = {run["run"] for one in read for run in one["runs"] if sum(_has(other, run) for other in read) > 1}
    clashing = {name for name, meanings in runs.items() if not are_one_run(meanings)}
    found: set[tuple[str, str]] = set()
    while True:
        more = {
            (kind, run[kind]) for one in read for run in one["runs"] for kind in ("group", "base")
            if run["run"] in clashing and len(set(holders.get((kind, run.get(kind)), []))) > 1
        } - found  # fmt: skip
        if not more:
            break
        found |= more
        clashing |= {
            run["run"] for one in read for run in one["runs"]
            if ("base", run.get("base")) in found or (("group", run.get("group")) in found and run["run"] in several)
        }  # fmt: skip
    return clashing, {name for kind, name in found if kind == "group"}, {name for kind, name in found if kind == "base"}


def _has(one: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    return any(other["run"] == run["run"] for other in one["runs"])


def _is_done(folder: Path) -> bool:
    """Whether the run is done and its files are whole."""
    try:
        status = read_status(folder)
    except Damaged:
        return False
    return status["status"] == "done" and find_damage(folder, status) is None


def _times(folder: Path) -> list[dict[str, Any]]:
    try:
        return latency.read_latency(folder)
    except RunError:
        return []  # said where the merged results are read


def _merge_latency(
    folders: Sequence[Path], out: Path, taken: Sequence[Mapping[tuple[str, int], Mapping[str, Any]]]
) -> None:
    """The times of the runs that were taken, under their names here; a run timed alike in two folders counts once.
    taken: of each folder, by run id and seed."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for folder, names in zip(folders, taken):
        mine: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in _times(folder):
            run = names.get((row["run_id"], row["seed"]))
            if run is not None:
                row |= {"run": run["run"], "label": run["label"]}
                mine.setdefault(tuple(row[name] for name in latency.SAME), []).append(row)
        found |= {key: rows for key, rows in mine.items() if key not in found}
    rows = [row for same in found.values() for row in same]
    latency.store_latency(out, rows)


def _read(folder: Path) -> dict[str, Any]:
    try:
        return read_comparison(folder)
    except Damaged as error:
        raise ConfigError(str(error)) from None


def _asked(source: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The area's range and the verdicts of the comparison whose budgets are taken. A run that is called otherwise here
    gives way to the default, and so do budgets that are not asked for any more."""
    verdicts = dict(source.get("verdicts") or {})
    groups = [str(run.get("group")) for run in source["runs"] if run.get("group")]
    if verdicts.get("against") not in (None, ALL, *known, *groups):
        verdicts.pop("against", None)
    return {"auc": source.get("auc"), **({"verdicts": verdicts} if verdicts else {})}


def _names(folders: Sequence[Path], read: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short distinct names of the folders: of the comparison, or else of the folder, or numbered."""
    for names in ([str(one.get("name") or "") for one in read], [folder.resolve().name for folder in folders]):
        if len(set(names)) == len(names) and all(names):
            return names
    return [f"{folder.resolve().name}-{number}" for number, folder in enumerate(folders, 1)]


def _reference(asked: str | None, read: Sequence[tuple[Mapping[str, Any], str]], known: Sequence[str]) -> str | None:
    """asked, else that of the first comparison which has one. read: comparisons and their short names, in order."""
    if asked is not None:
        if asked not in known:
            raise ConfigError(f"--reference {asked}: no such run{did_you_mean(asked, known)}")
        return asked
    for one, name in read:
        if one.get("reference"):
            own = str(one["reference"])
            return own if own in known else f"{own}@{name}"
    return None
