"""A run's status.json: what became of it, its times, and the hashes of its files once it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.store.manifest import MEASURED, RunFiles
from bench.store.reading import Damaged
from bench.store.sealed import read_sealed, write_sealed
from bench.store.stage import trained_weights

NAME = "status.json"
#: What a run can be. `pending` and `running` are not final: a run found so is continued.
STATUSES = ("pending", "running", "done", "failed", "diverged", "timeout", "interrupted", "skipped")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


#: What the values of a status must be, where they are there at all.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "reason": lambda value: isinstance(value, str),
    "stages": lambda value: isinstance(value, list) and all(isinstance(key, str) and "/" not in key for key in value),
    "counts": lambda value: isinstance(value, dict) and all(isinstance(n, int) for n in value.values()),
    "split_hash": lambda value: isinstance(value, str),
    **dict.fromkeys(("train_s", "wall_s", "train_steps", "train_memory_mib", "ms_per_step", "images_per_s"),
                    _is_number),
}  # fmt: skip


def read_status(folder: Path) -> dict[str, Any]:
    """A run's stored status; pending if there is no folder or nothing was measured. Raises Damaged."""
    path = folder / NAME
    if not path.is_symlink() and not path.exists():
        left = next((name for name in MEASURED if (folder / name).exists()), None)
        if left is None:
            return {"status": "pending", "reason": None}
        raise Damaged(f"{path} is missing, {left} is there")
    value = read_sealed(path)
    if value.get("status") not in STATUSES:
        raise Damaged(f"{path} is damaged (it holds no status)")
    for name, fits in _KINDS.items():
        if value.get(name) is not None and not fits(value[name]):
            raise Damaged(f"{path} is damaged ({name} is {str(value[name])[:40]!r})")
    return value


def write_status(folder: Path, value: Mapping[str, Any]) -> None:
    """Store a status. Raises RunError (disk)."""
    write_sealed(folder / NAME, value)


def run_files(folder: Path, status: Mapping[str, Any] | None = None) -> RunFiles:
    """The files of a run, with the hashes that its status has."""
    return RunFiles(folder, (read_status(folder) if status is None else status).get("files"))


def stored_weights(folder: Path, status: Mapping[str, Any]) -> Path | None:
    """The weights of a run's last stage, by the run's folder; None if there are none. Raises Damaged."""
    keys = status.get("stages") or []
    return trained_weights(folder.parents[1] / "stages" / keys[-1]) if keys else None
