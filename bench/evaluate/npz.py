"""Array files whose bytes depend on their content alone (``np.savez`` writes the time of day)."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.errors import RunError
from bench.files import atomic_path

#: What numpy and zipfile raise for truncated or altered files.
_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError)


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed ``.npz``, atomically; the same content gives the same bytes."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", compresslevel=6) as out:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name], order="C"), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            out.writestr(entry, content.getvalue())


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read every array; raises RunError in one line where the file is missing or damaged (checksums)."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except _DAMAGED as error:
        raise RunError(f"{path} is damaged ({error}); delete it and run again") from error
