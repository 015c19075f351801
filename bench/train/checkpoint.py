"""Checkpoints of tensors and primitives, written whole, read with a check of their content.

The first sixteen digits of a file's sha256 are part of its name, so a damaged file is known by itself and
one rename makes content and checksum appear together.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import WeightsError
from bench.files import write_bytes_atomic
from bench.train.foreign import state_dict_keys

log = logging.getLogger(__name__)

FORMAT = "depthbench-weights"
#: Where training checkpoints keep their state_dict, the one to use first.
STATE_DICT_KEYS = ("state_dict", "model_ema", "model")
_CHECKPOINT = re.compile(r"checkpoint-(\d{9})-([0-9a-f]{16})\.pt")
_WEIGHTS = re.compile(r"weights-([0-9a-f]{16})\.pt")


def _pack(state: Mapping[str, Any]) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    return content, hashlib.sha256(content).hexdigest()[:16]


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write ``checkpoint-<step>-<hash>.pt`` and keep the last ``keep`` of them. Raises RunError (disk)."""
    content, hashed = _pack(state)
    path = folder / f"checkpoint-{step:09d}-{hashed}.pt"
    write_bytes_atomic(path, content)
    for old in _checkpoints(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path, map_location: str | torch.device = "cpu") -> dict[str, Any] | None:
    """The newest whole checkpoint, or None. A damaged one is reported and the one before is taken."""
    for path in _checkpoints(folder):
        expected = _CHECKPOINT.fullmatch(path.name)
        content = path.read_bytes()
        if expected and hashlib.sha256(content).hexdigest()[:16] == expected[2]:
            return torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
        log.warning("%s is damaged (checksum); using the checkpoint before it", path)
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a folder."""
    for path in _checkpoints(folder):
        path.unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _CHECKPOINT.fullmatch(p.name)), reverse=True)


def save_weights(folder: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write trained weights as ``weights-<hash>.pt``: our format, with what they belong to."""
    content, hashed = _pack({"format": FORMAT, "about": dict(about), "model": dict(state)})
    path = folder / f"weights-{hashed}.pt"
    write_bytes_atomic(path, content)
    return path


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """State dict of a weights file, and what it belongs to where the file is ours (else None).

    Takes our format, a bare state_dict, or a dict that holds one under ``state_dict``, ``model_ema`` or
    ``model``. Only tensors and primitives are unpickled. Raises WeightsError.
    """
    hashed = _WEIGHTS.fullmatch(path.name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    if hashed and hashlib.sha256(content).hexdigest()[:16] != hashed[1]:
        raise WeightsError(f"{path}: damaged (its content does not match the checksum in its name)")
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise WeightsError(
                f"{path}: holds pickled objects besides tensors, which could run code when opened; where you "
                f"trust the file, convert it once: {_conversion(content)}"
            ) from None
        raise WeightsError(f"{path}: no PyTorch file, or damaged") from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, OSError, IndexError, TypeError,
            AttributeError):  # fmt: skip  # whatever a damaged archive provokes
        raise WeightsError(f"{path}: no PyTorch file, or damaged") from None
    if isinstance(loaded, Mapping) and loaded.get("format") == FORMAT:
        return dict(loaded["model"]), dict(loaded["about"])
    for key in STATE_DICT_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: holds no state_dict")
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    strange = [str(k) for k, v in loaded.items() if not isinstance(v, Tensor)]
    if strange:
        raise WeightsError(f"{path}: holds no state_dict: '{strange[0]}' is no tensor")
    return tensors, None


def _conversion(content: bytes) -> str:
    """The line that keeps a foreign file's tensors, with the key under which this file has them."""
    load = "torch.load(FILE, weights_only=False, map_location='cpu')"
    found = state_dict_keys(content)
    if found == []:
        return f"torch.save({{k: v for k, v in {load}.items() if torch.is_tensor(v)}}, NEW_FILE)"
    keys = sorted(found or STATE_DICT_KEYS, key=lambda key: key not in STATE_DICT_KEYS)  # those that we look for first
    first = next((key for key in STATE_DICT_KEYS if key in keys), keys[0])
    others = ", ".join(repr(key[:40]) for key in keys if key != first)
    line = f"torch.save(dict({load}[{first!r}]), NEW_FILE)"
    if found is None:
        return f"{line}; where the file has no such key: {others}"
    return f"{line}; it also has tensors under {others}" if others else line
