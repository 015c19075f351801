"""What a pickle that must not be opened holds, found out without running anything of it."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

__all__ = ["Foreign", "state_dict_keys"]

#: Objects before the content in files older than torch 1.6: magic number, protocol, system.
_LEGACY_HEADER = 3
_ZIP = b"PK\x03\x04"


class Foreign:
    """Stands for any class or function that a pickle names, and for what calling it gives. Does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Foreign:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def __setstate__(self, _: Any) -> None:
        return

    def __setitem__(self, _: Any, __: Any) -> None:
        return

    def append(self, _: Any) -> None:
        return

    def extend(self, _: Any) -> None:
        return

    def add(self, _: Any) -> None:
        return


class _Tensor(Foreign):
    """What torch's functions for rebuilding tensors and parameters would have made."""


class _Dict(dict[Any, Any]):
    """An ordered dict; what else its pickle says of it is passed over."""

    def __setstate__(self, _: Any) -> None:
        return


class _Reader(pickle.Unpickler):
    """Looks names up in a list of four and never imports: nothing that the file names is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        return _Tensor if module == "torch._utils" and name.startswith("_rebuild_") else Foreign

    def persistent_load(self, _: Any) -> Foreign:
        return Foreign()


def state_dict_keys(content: bytes) -> list[str] | None:
    """The keys of a PyTorch file's outer dict under which dicts of tensors lie; [] where the outer dict holds
    tensors itself; None where neither can be told."""
    try:
        outer = _read(content)
    except Exception:  # a pickle can be wrong in any way; then nothing is known of it
        return None
    if not isinstance(outer, Mapping):
        return None
    found = [key for key, value in outer.items() if isinstance(key, str) and _holds_tensors(value)]
    return found if found or _holds_tensors(outer) else None


def _read(content: bytes) -> Any:
    if content.startswith(_ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            return _Reader(io.BytesIO(archive.read(name))).load()
    stream = io.BytesIO(content)
    for _ in range(_LEGACY_HEADER):
        _Reader(stream).load()
    return _Reader(stream).load()


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, _Tensor) for v in value.values())
