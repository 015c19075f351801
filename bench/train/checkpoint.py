"""Checkpoints of tensors and primitives, written whole, read with a check of their content.

The first sixteen digits of a file's sha256 are part of its name, so a damaged file is known by itself and
one rename makes content and checksum appear together.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.config.weights import irregular, split_key
from bench.errors import WeightsError
from bench.files import write_bytes_atomic
from bench.train.foreign import choose_network, load_tensors

log = logging.getLogger(__name__)

FORMAT = "depthbench-weights"
_CHECKPOINT = re.compile(r"checkpoint-(\d{9})-([0-9a-f]{16})\.pt")
_WEIGHTS = re.compile(r"weights-([0-9a-f]{16})\.pt")


def pack(state: Mapping[str, Any]) -> tuple[bytes, str]:
    """A state as the bytes that ``torch.save`` writes, and the first sixteen hex digits of their sha256."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    return content, hashlib.sha256(content).hexdigest()[:16]


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write ``checkpoint-<step>-<hash>.pt`` and keep the last ``keep`` of them. Raises RunError (disk)."""
    content, hashed = pack(state)
    path = folder / f"checkpoint-{step:09d}-{hashed}.pt"
    write_bytes_atomic(path, content)
    for old in _checkpoints(folder)[keep:]:
        _remove(old)
    return path


def load_checkpoint(folder: Path, map_location: str | torch.device = "cpu") -> dict[str, Any] | None:
    """The newest whole checkpoint, or None. One that is damaged or cannot be read, for whatever reason, is reported,
    and the one before is taken."""
    for path in _checkpoints(folder):
        expected = _CHECKPOINT.fullmatch(path.name)
        try:
            content = path.read_bytes()
        except OSError as error:
            log.warning("%s cannot be read (%s); using the checkpoint before it", path, error.strerror)
            continue
        if expected and hashlib.sha256(content).hexdigest()[:16] == expected[2]:
            return torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
        log.warning("%s is damaged (checksum); using the checkpoint before it", path)
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a folder."""
    for path in _checkpoints(folder):
        _remove(path)


def _remove(path: Path) -> None:
    """What bears the name of a checkpoint and is none, a folder say, is not ours to remove and does no harm."""
    with suppress(OSError):
        path.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _CHECKPOINT.fullmatch(p.name)), reverse=True)


def save_weights(folder: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write trained weights as ``weights-<hash>.pt``: our format, with what they belong to."""
    content, hashed = pack({"format": FORMAT, "about": dict(about), "model": dict(state)})
    path = folder / f"weights-{hashed}.pt"
    write_bytes_atomic(path, content)
    return path


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """State dict of a weights file, and what it belongs to if the file is ours (else None).

    path: FILE, or FILE#KEY for one of several networks of a training checkpoint. Takes our format, a bare state_dict,
    or a dict that holds one under ``state_dict``, ``model_ema`` or ``model``; leading ``module.`` and ``_orig_mod.``
    are dropped. Nothing of the file is run. Raises WeightsError, in one line that says what the file is.
    """
    file, key = split_key(path)
    loaded = load_tensors(_content(file), str(file))
    if isinstance(loaded, Mapping) and loaded.get("format") == FORMAT:
        state, about = _ours(loaded, key, str(file))
    else:
        state, about = choose_network(loaded, key, str(file)), None
    _check_values(state, str(file))
    return state, about


def _content(file: Path) -> bytes:
    """The bytes of a file, compared with the checksum in its name if it has one."""
    kind = irregular(file)
    if kind is not None:
        raise WeightsError(f"{file} is {kind}, not a file")
    try:
        content = file.read_bytes()
    except (OSError, MemoryError) as error:
        raise WeightsError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'too large'}") from None
    hashed = _WEIGHTS.fullmatch(file.name)
    if hashed and hashlib.sha256(content).hexdigest()[:16] != hashed[1]:
        raise WeightsError(f"{file}: damaged (its content does not match the checksum in its name)")
    return content


def _ours(loaded: Mapping[str, Any], key: str | None, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state, about = loaded.get("model"), loaded.get("about")
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{what}: says that it is {FORMAT}, but holds no weights under 'model'")
    if not isinstance(about, Mapping):
        raise WeightsError(f"{what}: says that it is {FORMAT}, but not which network it belongs to ('about')")
    if key is not None:
        raise WeightsError(f"{what}: holds one network; leave #{key} out")
    return {str(name): value for name, value in state.items()}, {str(name): value for name, value in about.items()}


def _check_values(state: Mapping[str, Tensor], what: str) -> None:
    """WeightsError for tensors without values, and for values that are not finite."""
    for name, value in state.items():
        if value.device.type != "cpu" or value.layout != torch.strided or value.is_quantized:
            raise WeightsError(f"{what}: '{name}' is not an ordinary tensor ({value.device.type}, {value.layout})")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise WeightsError(f"{what}: '{name}' has fewer stored values than its shape {tuple(value.shape)}")
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise WeightsError(f"{what}: {len(bad)} of {len(state)} tensors hold NaN or infinity; the first is '{bad[0]}'")
