"""JSON files that carry a checksum of their own content, so that file and checksum appear with one rename.

Files written before there were seals have none and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.files import write_json_atomic, write_text_atomic
from bench.store.reading import Damaged, parse_json, read_bytes, read_text

SEAL = "sha256"
_COMMENT = re.compile(r"# sha256 of the lines above: ([0-9a-f]{64})\n\Z")


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal as the last key. Raises RunError (disk)."""
    content = {key: entry for key, entry in value.items() if key != SEAL}
    write_json_atomic(path, {**content, SEAL: _seal(content)})


def read_sealed(path: Path) -> dict[str, Any]:
    """A JSON object without its seal; Damaged if it is missing, unreadable or does not fit its seal."""
    value = parse_json(read_bytes(path), path)
    seal = value.pop(SEAL, None)
    if seal is not None and seal != _seal(value):
        raise Damaged(f"{path} is damaged (its content does not fit its checksum)")
    return value


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_sealed_text(path: Path, text: str) -> None:
    """Write text whose last line is a comment (``#``) with the checksum of the lines above."""
    text = text if text.endswith("\n") or not text else text + "\n"
    hashed = hashlib.sha256(text.encode("utf-8")).hexdigest()
    write_text_atomic(path, f"{text}# sha256 of the lines above: {hashed}\n")


def check_sealed_text(path: Path) -> None:
    """Damaged if a file of ``write_sealed_text`` is missing or is not as it was written."""
    text = read_text(path)
    found = _COMMENT.search(text)
    if found is None or hashlib.sha256(text[: found.start()].encode("utf-8")).hexdigest() != found[1]:
        raise Damaged(f"{path} is damaged (its content does not fit its checksum)")
