"""What a run measured, read back: everything that policies, budgets and statistics are computed from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.schema import Evaluate
from bench.cost.table import CostTable
from bench.errors import CostError, RunError
from bench.evaluate.record import DecisionRecord
from bench.evaluate.rows import make_rows

#: Files of a run's folder that a measurement needs; validation records are there where the protocol has that part.
FILES = ("meta.json", "cost.json", "test-signals.npz", "test-outcomes.npz")


@dataclass(frozen=True)
class Measured:
    """One run of one seed. meta: what every row says of the run, and the method's capabilities. records: by split,
    "test" and, where the protocol has one, "val". cost: of the records' units."""

    meta: Mapping[str, Any]
    records: Mapping[str, DecisionRecord]
    cost: CostTable
    evaluate: Evaluate

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

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the long table (``make_rows``)."""
        return make_rows(self.meta, self.records, self.cost, self.evaluate)


def read_measured(folder: Path) -> Measured | None:
    """Read a run's folder; None where records were not kept. RunError where a file is damaged."""
    if not all((folder / name).is_file() for name in FILES):
        return None
    records = {"test": DecisionRecord.load(folder, "test")}
    if (folder / "val-signals.npz").is_file():
        records["val"] = DecisionRecord.load(folder, "val")
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        cost = CostTable.from_dict(json.loads((folder / "cost.json").read_text("utf-8")))
        spec = folder / "spec.json"
        said = json.loads(spec.read_text("utf-8")) if spec.is_file() else meta
        evaluate = Evaluate.model_validate_json(json.dumps(said.get("evaluate") or {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CostError) as error:
        raise RunError(f"{folder}: meta.json or cost.json is damaged ({type(error).__name__}); run again") from error
    return Measured(meta, records, cost, evaluate)
