"""stage.json and the weights of a trained stage. Needs no torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.store.reading import Damaged, file_size, read_bytes
from bench.store.sealed import read_sealed, write_sealed

NAME = "stage.json"
METRICS = "metrics.jsonl"
WEIGHTS = re.compile(r"weights-([0-9a-f]{16})\.pt")


def read_stage(folder: Path) -> dict[str, Any] | None:
    """What a finished stage says of itself; None if it is not finished. Raises Damaged."""
    path = folder / NAME
    if not path.is_symlink() and not path.exists():
        return None
    stage = read_sealed(path)
    if stage.get("status") != "done":
        return None
    if not isinstance(stage.get("weights"), str) or not WEIGHTS.fullmatch(stage["weights"]):
        raise Damaged(f"{path} is damaged (it names no weights)")
    return stage


def write_stage(folder: Path, value: Mapping[str, Any]) -> None:
    """Say that a stage is finished. Raises RunError (disk)."""
    write_sealed(folder / NAME, value)


def trained_weights(folder: Path) -> Path | None:
    """The weights of a finished stage; None if there are none (removed to save space, say). Their content is not
    looked at. Raises Damaged."""
    stage = read_stage(folder)
    if stage is None:
        return None
    path = folder / stage["weights"]
    return path if path.is_symlink() or path.exists() else None


def check_weights(path: Path) -> None:
    """Damaged if weights cannot be read, or do not fit the hash in their name."""
    file_size(path)
    hashed = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                hashed.update(block)
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None
    said = WEIGHTS.fullmatch(path.name)
    if said is not None and hashed.hexdigest()[:16] != said[1]:
        raise Damaged(f"{path} is damaged (its content does not fit the hash in its name)")


def metrics_hash(folder: Path) -> str | None:
    """What ``read_metrics`` compares with; None if the stage has no curve."""
    path = folder / METRICS
    return hashlib.sha256(read_bytes(path)).hexdigest() if path.is_file() else None


def read_metrics(folder: Path) -> bytes:
    """The training curve of a finished stage, empty if it has none. Damaged if it is not as it was written."""
    path = folder / METRICS
    said = (read_stage(folder) or {}).get("metrics_sha256")
    if said is None and not path.is_symlink() and not path.exists():
        return b""
    content = read_bytes(path)
    if said is not None and hashlib.sha256(content).hexdigest() != said:
        raise Damaged(f"{path} is damaged (its content does not fit its hash)")
    return content


def clear_stage(folder: Path) -> None:
    """Remove what a finished stage left, so that it is trained again. Whatever else lies there stays."""
    for path in (folder / NAME, folder / METRICS, *folder.glob("weights-*.pt")):
        with suppress(OSError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
