"""Whether the runs of several results folders may be drawn together, and which of them are the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.config.resolve import RunSpec, digest
from bench.data.fingerprint import Fingerprint, read_fingerprint
from bench.errors import ConfigError
from bench.store.reading import Damaged
from bench.store.sealed import read_sealed

#: What must be the same in all folders, and why rows that differ in it are never drawn together.
SAME = {
    "protocol_version": "numbers of different versions of the protocol must not be compared; run the older one again",
    "data": "accuracies on different data cannot be compared",
    "protocol": "networks trained on the whole training set and on a part of it cannot be compared",
    "confidence_level": "intervals of different levels cannot stand side by side",
}


@dataclass(frozen=True)
class StoredRun:
    """A run of one seed as its folder has it. identity: the same for all seeds of one run. data: None if its results
    carry no fingerprint."""

    run: str
    identity: str
    done: bool
    split_hash: str
    data: Fingerprint | None

    @property
    def trained_on(self) -> str:
        return self.data.train.digest if self.data is not None else ""


def read_stored(folder: Path, comparison: Mapping[str, Any]) -> list[StoredRun]:
    """The runs of a folder, in the order of its comparison."""
    ids: dict[str, list[str]] = {}
    for entry in comparison["runs"]:
        ids.setdefault(entry["run"], []).append(entry["run_id"])
    return [_read(folder / entry["folder"], entry["run"], sorted(ids[entry["run"]])) for entry in comparison["runs"]]


def check_comparable(
    folders: Sequence[Path], read: Sequence[Mapping[str, Any]], runs: Sequence[Sequence[StoredRun]]
) -> list[str]:
    """Raises ConfigError if rows of the folders must not stand together. read: their comparison.json; runs: theirs.

    Returns lines about what cannot be checked, or what readers should know.
    """
    for key, reason in SAME.items():
        _refuse_different(key.replace("_", " "), folders, [[str(one.get(key))] for one in read], reason)
    done = [[run for run in of_folder if run.done] for of_folder in runs]
    known = [(folder, run.data) for folder, of_folder in zip(folders, done) for run in of_folder if run.data]
    splits = [[run.split_hash[:12] for run in of_folder if run.split_hash] for of_folder in done]
    notes = []
    for folder, data in known[1:]:
        first, before = known[0]
        if changed := data.test.difference(before.test):
            raise ConfigError(f"the folders differ in test images ({folder} against {first}: {changed}); accuracies on "
                              "different images cannot be compared")  # fmt: skip
        if changed := data.train.difference(before.train):
            notes.append(f"{folder} was trained on other images than {first} ({changed})")
    _refuse_different("split", folders, splits, "rows of different splits are never drawn together")
    lacking = [str(folder) for folder, of_folder in zip(folders, done) if any(run.data is None for run in of_folder)]
    if lacking:
        notes.append(f"{', '.join(lacking)}: results without a fingerprint of the data (made by an earlier version); "
                     "whether all test images are the same cannot be checked")  # fmt: skip
    return list(dict.fromkeys(notes))


def _refuse_different(what: str, folders: Sequence[Path], values: Sequence[Sequence[str]], reason: str) -> None:
    found = [(folder, value) for folder, of_folder in zip(folders, values) for value in dict.fromkeys(of_folder)]
    if len({value for _, value in found}) > 1:
        said = ", ".join(f"{folder}: {value}" for folder, value in found)
        raise ConfigError(f"the folders differ in {what} ({said}); {reason}")


def are_one_run(runs: Sequence[StoredRun]) -> bool:
    """Whether runs of one name, in several folders, are the same but for their seeds, as far as it is known."""
    identities, images = {run.identity for run in runs}, {run.trained_on for run in runs} - {""}
    return len(identities) == 1 and len(images) < 2


def _read(folder: Path, run: str, ids: Sequence[str]) -> StoredRun:
    """ids: of all seeds in this folder, which tell runs apart if their specs cannot be read."""
    status = _object(folder / "status.json")
    return StoredRun(
        run, _identity(_object(folder / "spec.json")) or " ".join(ids), status.get("status") == "done",
        str(status.get("split_hash") or ""), read_fingerprint(status.get("data")),
    )  # fmt: skip


def _identity(spec: Mapping[str, Any]) -> str:
    """Of a stored spec: everything that is hashed into a run's id, except its seed; '' if it is not a whole spec."""
    try:
        identity = RunSpec.model_validate_json(json.dumps(spec)).identity()
    except ValidationError:
        return ""
    return digest({key: value for key, value in identity.items() if key != "seed"})


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path)
    except Damaged:
        return {}
