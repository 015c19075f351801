"""What a run measured, read back: everything that policies, budgets and statistics are computed from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.config.schema import Evaluate
from bench.cost.table import CostTable
from bench.errors import BenchError, CostError
from bench.evaluate.columns import COLUMNS, INTEGERS, NUMBERS, read_rows
from bench.evaluate.policies.base import Policy
from bench.evaluate.policies.catalogue import known_policy, lacks_logits
from bench.evaluate.policies.fitted import fit_policies
from bench.evaluate.policies.points import Fixed
from bench.evaluate.record import DecisionRecord
from bench.evaluate.rows import make_rows
from bench.store.manifest import RECORDS, RunFiles
from bench.store.reading import Damaged, parse_json
from bench.store.sealed import read_sealed
from bench.store.status import run_files


@dataclass(frozen=True)
class Measured:
    """One run of one seed. meta: what every row says of the run, and the method's capabilities. records: by split,
    "test" and, where the protocol has one, "val". cost: of the records' units. evaluate: with the
    policies that this version knows; unknown_policies: the others that the run was evaluated by."""

    meta: Mapping[str, Any]
    records: Mapping[str, DecisionRecord]
    cost: CostTable
    evaluate: Evaluate
    unknown_policies: tuple[str, ...] = ()

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset(self.meta.get("capabilities", ()))

    @property
    def test(self) -> DecisionRecord:
        return self.records["test"]

    @property
    def val(self) -> DecisionRecord | None:
        """None under the published protocol, where nothing may be chosen."""
        return self.records.get("val")

    @property
    def without_logits(self) -> tuple[str, ...]:
        """The policies that the run is asked for and cannot have, as their logits were not kept."""
        asked = {name: kind for name in self.evaluate.policies if (kind := known_policy(name)) is not None}
        return tuple(
            name for name, kind in asked.items()
            if kind.requires <= self.capabilities
            and any(lacks_logits(kind, record.signals) for record in self.records.values())
        )  # fmt: skip

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """One object per operating point, fitted on the validation part once, whoever asks."""
        return fit_policies(self.capabilities, self.evaluate, self.records, self.cost)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the long table (``make_rows``)."""
        meta = {name: value for name, value in self.meta.items() if name != "evaluate"}
        return make_rows(meta, self.records, self.cost, self.evaluate, self.policies)


def read_measured(folder: Path, files: RunFiles | None = None) -> Measured | None:
    """Read a run's folder; None if no records were kept. RunError if a file is missing or damaged.

    files: what the run was measured with (default: as its status says). Folders without hashes have all records or
    none; the oldest have no meta.json, and their rows are all that is read.
    """
    files = run_files(folder) if files is None else files
    if files.listed is None and not (files.has("meta.json") and any(files.has(name) for name in RECORDS)):
        return None
    records = {"test": DecisionRecord.load(folder, "test", files)}
    if files.has("val-signals.npz"):
        records["val"] = DecisionRecord.load(folder, "val", files)
    meta = _read_meta(folder / "meta.json", files.read("meta.json"))
    try:
        cost = CostTable.from_dict(parse_json(files.read("cost.json"), folder / "cost.json"))
    except CostError as error:
        raise Damaged(f"{folder / 'cost.json'}: {error}") from None
    evaluate = _read_evaluate(folder, meta, files.listed is not None)
    unknown = tuple(name for name in evaluate.policies if known_policy(name) is None)
    if unknown:
        known = tuple(name for name in evaluate.policies if name not in unknown)
        # an empty list would ask for the default ones
        evaluate = evaluate.model_copy(update={"policies": known or (Fixed.name,)})
    return Measured(meta, records, cost, evaluate, unknown)


def _read_meta(path: Path, content: bytes) -> dict[str, Any]:
    """What every row says of the run: known columns with their kinds of values."""
    meta = parse_json(content, path)
    capabilities = meta.get("capabilities", [])
    if not isinstance(capabilities, list) or not all(isinstance(one, str) for one in capabilities):
        raise Damaged(f"{path} is damaged (capabilities are not a list of names)")
    for name, value in meta.items():
        if name == "capabilities" or name == "evaluate":
            continue
        if name not in COLUMNS:
            raise Damaged(f"{path} is damaged (unknown column '{name[:40]}')")
        kind = int if name in INTEGERS else (int, float) if name in NUMBERS else str
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Damaged(f"{path} is damaged ({name} is {str(value)[:40]!r})")
    return meta


def _read_evaluate(folder: Path, meta: Mapping[str, Any], needed: bool) -> Evaluate:
    """How the run is evaluated: as its spec says; an old run without one as its rows were made."""
    path = folder / "spec.json"
    said = read_sealed(path) if needed or path.is_symlink() or path.exists() else meta
    try:
        return Evaluate.model_validate_json(json.dumps(said.get("evaluate") or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Damaged(f"{path} is damaged (evaluate.{place}: {first['msg']})") from None


def find_damage(folder: Path, status: Mapping[str, Any]) -> str | None:
    """What is wrong with the files of a run whose status says "done", in one line; None if they are as they were."""
    try:
        files = run_files(folder, status)
        files.check()
        if files.listed is None and read_measured(folder, files) is None:
            read_rows(folder / "rows.csv")
    except BenchError as error:
        return str(error)
    return None
