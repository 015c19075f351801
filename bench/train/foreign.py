"""Files of weights that others wrote: told apart by their first bytes, and read without running anything of them.

Training scripts store more than tensors: arguments, NumPy scalars, configuration objects. ``torch.load`` with
``weights_only=True`` reads the tensors if it is given a class for each name that the pickle mentions. Here each
of them is an empty stand-in, so nothing that a file names is ever imported or called.
"""

from __future__ import annotations

import io
import logging
import pickle
import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.errors import WeightsError
from bench.method import strip_prefix

__all__ = ["STATE_DICT_KEYS", "choose_network", "load_tensors"]

log = logging.getLogger(__name__)

#: Where training checkpoints keep their state_dict, the one to use first.
STATE_DICT_KEYS = ("state_dict", "model_ema", "model")
#: Written by torch's AveragedModel beside the averaged network, whose names it prefixes with ``module.``.
_COUNT = "n_averaged"
#: Pickles before the content in files older than torch 1.6: magic number, protocol, system.
_LEGACY_HEADER = 3
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
#: Modules that torch refuses to read names of, whatever stands for them.
_BLOCKED = frozenset({"os", "posix", "nt", "sys"})
_AGAIN = "fetch or copy it again"
_KINDS = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the weights; `git lfs pull` fetches them"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file, not weights of PyTorch"),
    (b"\x93NUMPY", "a NumPy array, not weights of PyTorch"),
)
_SAVE = "save its state_dict: torch.save(network.state_dict(), FILE)"


class Foreign:
    """Stands for any class or function that a pickle names, and for what calling it gives. Does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Foreign:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def __setstate__(self, _: Any) -> None:
        return


def load_tensors(content: bytes, what: str) -> Any:
    """What a PyTorch file holds, with stand-ins for all but tensors and plain values. what: the file, for messages.

    Raises WeightsError saying what the file is, if it is no such file, and what it was damaged by, if that shows.
    """
    found = _other_kind(content)
    if found is not None:
        raise WeightsError(f"{what} is {found}")
    try:
        named = _names_in(content)
        blocked = sorted(name for name in named if name.split(".")[0] in _BLOCKED)
        if blocked:
            raise WeightsError(f"{what}: its pickle calls {blocked[0]}, which could run commands; it is not opened")
        stand_ins: list[Any] = [(type(name, (Foreign,), {}), name) for name in sorted(named)]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and sparse tensors, both refused in our words
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(f"{what}: damaged, or pickled objects that are not read; {_SAVE}") from None
    except MemoryError:
        raise WeightsError(f"{what}: does not fit into memory") from None
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged archive provokes in torch, zipfile or pickle
        raise WeightsError(f"{what}: damaged or cut off ({type(error).__name__}); {_AGAIN}") from None


def _other_kind(content: bytes) -> str | None:
    """What a file is if torch.save did not write it, and what to do; None for one that torch.load may read."""
    start = content[:512].lstrip().lower()
    if not start:
        return f"empty; {_AGAIN}"
    if start.startswith(b"<"):
        return "a web page (HTML), not weights; download the file itself"
    for magic, kind in _KINDS:
        if content.startswith(magic):
            return kind
    if content[8:9] == b"{" and 2 <= int.from_bytes(content[:8], "little") <= len(content) - 8:
        return "a safetensors file; convert it: torch.save(safetensors.torch.load_file(FILE), NEW_FILE)"
    if content[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if content.startswith(_ZIP):
        return _other_zip(content)
    if content.startswith(_PICKLE):
        return None
    text = content[:40].decode("ascii", "replace")
    return f"a text file (it begins {text!r}), not weights" if text.isascii() else "not a PyTorch file, or damaged"


def _other_zip(content: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
        return f"cut off or damaged: a zip archive without a whole table of contents; {_AGAIN}"
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        return f"a TorchScript program, not weights; {_SAVE}"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz), not weights of PyTorch"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive that torch.save did not write; if the weights are in it, unpack it first"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "a compressed zip archive, which torch.save does not write; unpack it first"
    return None


def _names_in(content: bytes) -> set[str]:
    """Every ``module.name`` that the pickle of a PyTorch file mentions. Raises what a damaged pickle provokes."""
    if content.startswith(_ZIP):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            return _globals(io.BytesIO(archive.read(name)))
    stream = io.BytesIO(content)
    found: set[str] = set()
    for _ in range(_LEGACY_HEADER + 1):
        found |= _globals(stream)
    return found


def _globals(stream: io.BytesIO) -> set[str]:
    """Names in the next pickle of a stream, which is read to its end. (GLOBAL alone: torch reads protocol 2.)"""
    found = set()
    for code, value, _ in pickletools.genops(stream):
        if code.name == "GLOBAL":
            module, name = str(value).split(" ", 1)
            now = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # Python 2's names
            found |= {f"{module}.{name}", ".".join(now)}
    return found


def choose_network(loaded: Any, key: str | None, what: str) -> dict[str, Tensor]:
    """The state_dict in what a file holds, without the names that wrappers put before its own.

    key: which entry of a training checkpoint to take; None: the first of STATE_DICT_KEYS, and a warning if there
    are others. what: the file, for messages. Raises WeightsError.
    """
    if isinstance(loaded, Foreign):
        raise WeightsError(f"{what}: a whole pickled network ({_kind(loaded)}), which is not opened; {_SAVE}")
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{what}: not a state_dict but a {_kind(loaded)}")
    inner = {str(k): v for k, v in loaded.items() if isinstance(v, Mapping) and _holds_tensors(v)}
    if key is None:
        key = next((known for known in STATE_DICT_KEYS if known in inner), None)
        others = [f"'{name}'" for name in inner if name != key]
        if key is not None and others:
            log.warning("%s: the weights under '%s' are taken; it also has %s (%s#KEY takes another)", what, key,
                        ", ".join(others), what)  # fmt: skip
    elif key not in inner:
        has = f"it has {', '.join(inner)}" if inner else "it holds one state_dict; leave #KEY out"
        raise WeightsError(f"{what}: no weights under '{key}'; {has}")
    if key is not None:
        return _tensors(inner[key], what)
    if inner and not _holds_tensors(loaded):
        raise WeightsError(f"{what}: its weights lie under {', '.join(inner)}; say which: {what}#{next(iter(inner))}")
    whole = next((k for k in STATE_DICT_KEYS if isinstance(loaded.get(k), Foreign)), None)
    if whole is not None:
        kind = _kind(loaded[whole])
        raise WeightsError(f"{what}: '{whole}' is a whole pickled network ({kind}), which is not opened; {_SAVE}")
    return _tensors(loaded, what)


def _tensors(state: Mapping[Any, Any], what: str) -> dict[str, Tensor]:
    if not state:
        raise WeightsError(f"{what}: an empty state_dict")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{what}: not a state_dict: '{str(name)[:80]}' is a {_kind(value)}, not a tensor")
    tensors = {str(name): value.detach() for name, value in state.items()}
    if _COUNT in tensors and all(name == _COUNT or name.startswith("module.") for name in tensors):
        del tensors[_COUNT]
    stripped = strip_prefix(tensors)
    if len(stripped) < len(tensors):
        raise WeightsError(f"{what}: some names are there twice, with and without 'module.' or '_orig_mod.'")
    return stripped


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(v, Tensor) for v in value.values())


def _kind(value: Any) -> str:
    return type(value).__name__[:80]
