"""comparison.json: which runs a results folder compares, and what its file says of comparing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bench.config.comparing import Published, Verdicts, check_auc_range, parse_budget
from bench.store.reading import Damaged
from bench.store.sealed import read_sealed, write_sealed

NAME = "comparison.json"
#: What to do about a damaged one.
REPAIR = "`bench run FILE` writes it anew"


class _Stored(BaseModel):
    """Newer versions may store more."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Run(_Stored):
    run: str
    seed: int
    method: str
    folder: str
    run_id: str = ""
    label: str | None = None
    group: str | None = None
    base: str | None = None
    factors: dict[str, str] = Field(default_factory=dict)
    published: list[Published] = Field(default_factory=list)


class _Section(_Stored):
    design: str
    axes: dict[str, list[str]]
    base: dict[str, str]


class _Ablation(_Stored):
    sections: list[_Section] = Field(default_factory=list)


class _Comparison(_Stored):
    name: str | None = None
    title: str | None = None
    protocol: str | None = None
    data: str | None = None
    protocol_version: int | None = None
    confidence_level: float | None = Field(None, gt=0, lt=1)
    reference: str | None = None
    budgets: list[float | int | str] | None = None
    auc: list[float | int | str] | None = Field(None, min_length=2, max_length=2)
    verdicts: Verdicts | None = None
    ablation: _Ablation | None = None
    runs: list[_Run]

    @field_validator("budgets")
    @classmethod
    def _known(cls, budgets: list[float | int | str] | None) -> list[float | int | str] | None:
        for entry in budgets or ():
            parse_budget(entry)
        return budgets

    @field_validator("auc")
    @classmethod
    def _grows(cls, auc: list[float | int | str] | None) -> list[float | int | str] | None:
        if auc is not None:
            check_auc_range(auc)
        return auc


def read_comparison(out: Path) -> dict[str, Any]:
    """The comparison of a results folder, every value of the type that reports expect. Raises Damaged, which says
    what is wrong and what to do."""
    path = out / NAME
    if not path.is_symlink() and not path.exists():
        raise Damaged(f"{out} holds no results of a comparison (no {NAME})")
    try:
        value = read_sealed(path)
        _Comparison.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Damaged(f"{path} is damaged ({place}: {first['msg']}); {REPAIR}") from None
    except Damaged as error:
        raise Damaged(f"{error}; {REPAIR}") from None
    for entry in value["runs"]:
        entry.setdefault("run_id", "")
        entry["label"] = entry.get("label") or entry["run"]
    return value


def write_comparison(out: Path, value: Mapping[str, Any]) -> None:
    """Store what a folder compares. Raises RunError (disk)."""
    write_sealed(out / NAME, value)
