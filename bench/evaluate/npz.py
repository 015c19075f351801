"""Array files whose bytes depend on their content alone (``np.savez`` writes the time of day)."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.errors import RunError
from bench.files import atomic_path
from bench.store.reading import Damaged, read_bytes

#: What numpy and zipfile raise for truncated or altered files.
_DAMAGED = (
    OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError,
    OverflowError, RecursionError, MemoryError, RuntimeError,
)  # fmt: skip
#: What the arrays of a file without a known hash may need in memory (bytes).
LIMIT = 1 << 30
#: numpy refuses headers that are longer than 10,000 bytes; this is where those of every version end.
_HEADER = 16_384


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


def read_arrays(path: str | Path, content: bytes | None = None) -> dict[str, np.ndarray]:
    """Read every array; RunError in one line if the file is missing or damaged (checksums).

    content: the file's bytes if they are known to be what was written. Otherwise the directory of the file must agree
    with the headers of its arrays, and these may not need more than ``LIMIT`` bytes. Nothing is unpickled.
    """
    path = Path(path)
    trusted = content is not None
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path) if content is None else content)) as archive:
            if not trusted:
                _check_sizes(archive)
            return {info.filename.removesuffix(".npy"): _read_array(archive, info) for info in archive.infolist()}
    except RunError:
        raise
    except _DAMAGED as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise Damaged(f"{path} is damaged ({words}); delete it and run again") from error


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        found = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"{info.filename} is longer than its array")
        return found


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """ValueError for more than ``LIMIT`` bytes, and for an array that is larger or smaller than its file."""
    entries = archive.infolist()
    if sum(info.file_size for info in entries) > LIMIT:
        raise ValueError(f"its arrays need more than {LIMIT:,} bytes")
    for info in entries:
        with archive.open(info) as file:
            start = io.BytesIO(file.read(min(_HEADER, info.file_size)))
        version = np.lib.format.read_magic(start)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, dtype = read_header(start)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize + start.tell() != info.file_size:
            raise ValueError(f"the header of {info.filename} does not fit its size")
