"""The hashes of a run's files. They lie in the run's status.json, which says "done" with the same rename."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.store.reading import Damaged, file_size, read_bytes

#: Of a run's folder, what a measurement writes; logits only where they are kept, validation where there is a part.
RECORDS = tuple(f"{split}-{kind}.npz" for split in ("test", "val") for kind in ("signals", "outcomes", "logits"))
MEASURED = ("meta.json", "cost.json", "rows.csv", "metrics.jsonl", *RECORDS)


def list_files(folder: Path, names: Iterable[str] = MEASURED) -> dict[str, dict[str, Any]]:
    """Hash and size of the files that are there, by name."""
    listed = {}
    for name in names:
        if (folder / name).is_file():
            content = read_bytes(folder / name, limit=1 << 40)
            listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return listed


class RunFiles:
    """The files of a run's folder, each hashed when it is read. listed: name -> {"sha256", "size"}; None for folders
    that were made before there were hashes."""

    def __init__(self, folder: Path, listed: Mapping[str, Mapping[str, Any]] | None) -> None:
        self.folder = folder
        self.listed = _checked(listed, folder / "status.json")
        self._fits: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether the run was measured with this file; without hashes: whether it is there."""
        return name in self.listed if self.listed is not None else (self.folder / name).exists()

    def read(self, name: str) -> bytes:
        """The content of a file; Damaged if it is missing, cannot be read or does not fit its hash."""
        path = self.folder / name
        if self.listed is None:
            return read_bytes(path)
        said = self.listed.get(name)
        if said is None:
            raise Damaged(f"{path} is not among the files that the run was measured with")
        size = file_size(path)
        if size != said["size"]:
            raise Damaged(f"{path} is damaged ({size:,} bytes instead of {said['size']:,})")
        content = read_bytes(path, limit=said["size"])
        if hashlib.sha256(content).hexdigest() != said["sha256"]:
            raise Damaged(f"{path} is damaged (its content does not fit its hash)")
        self._fits.add(name)
        return content

    def check(self) -> None:
        """Damaged if a listed file that was not read yet does not fit."""
        for name in self.listed or ():
            if name not in self._fits:
                self.read(name)


def _checked(
    listed: Mapping[str, Mapping[str, Any]] | None, where: Path
) -> dict[str, Mapping[str, Any]] | None:
    if listed is None:
        return None
    try:
        good = all(
            name in MEASURED and isinstance(said["sha256"], str) and isinstance(said["size"], int)
            for name, said in listed.items()
        )
    except (AttributeError, KeyError, TypeError):
        good = False
    if not good:
        raise Damaged(f"{where} is damaged (its list of files cannot be read)")
    return dict(listed)
