"""What a results folder describes: all runs of the file, whatever part of them the command line asks to do."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.load import COMMAND_LINE, Loaded
from bench.config.resolve import RunSpec
from bench.config.schema import Comparison
from bench.errors import ConfigError
from bench.launch.describe import resolved_yaml
from bench.launch.preflight import leave_out_impossible, plan_runs
from bench.store.comparison import read_comparison
from bench.store.reading import Damaged

__all__ = ["Whole", "find_whole", "measure_given"]


@dataclass(frozen=True)
class Whole:
    """All runs of a comparison. specs: in file order. asked: folders of the runs whose seeds the command line named;
    a later command without seeds keeps them. config_text: a file that `bench run` does all of it from."""

    comparison: Comparison
    specs: Sequence[RunSpec]
    asked: Collection[str] = ()
    config_text: str = ""


def find_whole(
    loaded: Loaded, specs: Sequence[RunSpec], out: Path, *, fresh: bool = False, given: bool = False
) -> Whole:
    """All runs of the file, and of ``specs``, with the seeds that ``out`` holds of them.

    Seeds that the folder holds are kept if the command line names seeds, or did when they were done; never those of a
    run whose options changed or that the file no longer has. fresh: only what is named now. given: runs that name
    weights are only measured (``measure_given``).
    """
    every = loaded.all_runs()
    named = {spec.run for spec in specs}
    planned = [*specs]
    if len(every.comparison.runs) > len(named):
        others = _plan_others(every, named)
        planned += leave_out_impossible(every, measure_given(others) if given else others)
    seeds = loaded.whole.find(("seeds",))
    by_command = seeds is not None and seeds.origin == COMMAND_LINE
    held = _held(out, planned)
    found: list[RunSpec] = []
    asked: set[str] = set()
    for run in every.comparison.runs:
        mine = {spec.seed: spec for spec in planned if spec.run == run.name}
        own = {seed: entry for seed, entry in held.items() if seed[0] == run.name}
        kept = {
            seed: spec for (_, seed), (spec, was_asked) in own.items()
            if run.seeds is None and (by_command or (was_asked and not fresh))
        }  # fmt: skip
        if by_command and run.seeds is None and run.name not in named and kept:
            mine = {}  # nothing is asked of this run: it stays as it is
        first = [seed for _, seed in own if seed in kept or seed in mine] if kept else []
        chosen = [mine.get(seed) or kept[seed] for seed in dict.fromkeys([*first, *mine])]
        found += chosen
        before = {spec.folder: was_asked for spec, was_asked in own.values()}
        now = by_command and run.seeds is None
        asked |= {spec.folder for spec in chosen if before.get(spec.folder, now and spec.seed in mine)}
    union = list(dict.fromkeys(spec.seed for spec in found if _takes_shared(every.comparison, spec.run)))
    return Whole(every.comparison, found, asked, resolved_yaml(loaded, union))


def _plan_others(every: Loaded, named: Collection[str]) -> list[RunSpec]:
    """The runs that ``--only`` leaves out; one that cannot be planned with these settings is named on stderr."""
    found: list[RunSpec] = []
    for run in every.comparison.runs:
        if run.name not in named:
            try:
                found += plan_runs(every.only([run.name]))
            except ConfigError as error:
                print(f"run '{run.name}' is left out of the tables: {error}", file=sys.stderr)
    return found


def measure_given(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The specs, of which those that name weights train nothing (``--eval-only``)."""
    return [spec.model_copy(update={"evaluate_only": True}) if spec.weights else spec for spec in specs]


def _takes_shared(comparison: Comparison, name: str) -> bool:
    return next(run.seeds is None for run in comparison.runs if run.name == name)


def _held(out: Path, planned: Sequence[RunSpec]) -> dict[tuple[str, int], tuple[RunSpec, bool]]:
    """(run, seed) -> its spec and whether the command line named the seed, of what the folder has of these runs, in its
    order; from the runs' folders if comparison.json cannot be read."""
    samples = {spec.run: spec for spec in planned}
    try:
        entries: list[dict[str, Any]] = read_comparison(out)["runs"]
    except Damaged:
        entries = [
            {"run": name, "seed": seed, "folder": f"runs/{_with_seed(sample, seed).folder}", "asked": True}
            for name, sample in samples.items() for seed in _seeds_on_disk(out, name)
        ]  # fmt: skip
    found = {}
    for entry in entries:
        if entry["run"] in samples:
            spec = _with_seed(samples[entry["run"]], entry["seed"])
            if entry["folder"] == f"runs/{spec.folder}" and (out / "runs" / spec.folder).is_dir():
                found[spec.run, spec.seed] = (spec, bool(entry.get("asked")))
    return found


def _with_seed(spec: RunSpec, seed: int) -> RunSpec:
    return spec.model_copy(update={"seed": seed})


def _seeds_on_disk(out: Path, run: str) -> list[int]:
    parts = [path.name.removeprefix(f"{run}-seed").split("-")[0] for path in (out / "runs").glob("*")
             if path.name.startswith(f"{run}-seed")]  # fmt: skip
    return sorted({int(part) for part in parts if part.isdecimal()})
