"""Data sets of other packages: what they say of themselves and what they open is looked at. Imports no torch."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.doors import in_one_line
from bench.errors import BenchError, DataError

if TYPE_CHECKING:
    from bench.data.catalog import DatasetInfo
    from bench.data.sources import ArraySource, FolderSource

__all__ = ["check_info", "open_foreign"]


def check_info(info: DatasetInfo, name: str) -> None:
    """Raise ValueError, in words, for the first fact about a data set that cannot be used."""
    if info.name != name:
        raise ValueError(f"its name is {info.name!r}, not that of its entry point")
    if not callable(info.open):
        raise ValueError("open must be a function that takes the folder and returns training and test images")
    for key in ("description", "licence", "layout"):
        text = getattr(info, key)
        if not isinstance(text, str) or len(text.splitlines()) != 1:
            raise ValueError(f"{key} must be one line, not {text!r}")
    for key, least in (("num_classes", 2), ("image_size", 1), ("train_count", 1), ("test_count", 1)):
        value = getattr(info, key)
        if not (_whole(value) and value >= least) and (value is not None or key == "image_size"):
            raise ValueError(f"{key} must be a whole number from {least} on, not {value!r}")
    for key in ("mean", "std"):
        values = getattr(info, key)
        if not isinstance(values, tuple) or len(values) != 3 or not all(_finite(value) for value in values):
            raise ValueError(f"{key} must be three numbers, one for each channel, not {values!r}")
    if min(info.std) <= 0:
        raise ValueError(f"std must be positive, not {info.std!r}")
    if not _finite(info.hflip_prob) or not 0 <= info.hflip_prob <= 1:
        raise ValueError(f"hflip_prob must be a probability, not {info.hflip_prob!r}")
    if info.download:
        raise ValueError("download must be False: it is for what torchvision can fetch")
    for key in ("files", "folders"):
        paths = getattr(info, key)
        if not isinstance(paths, tuple) or not all(isinstance(path, str) and _below(path) for path in paths):
            raise ValueError(f"{key} must be a tuple of paths below the root, not {paths!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _below(path: str) -> bool:
    parts = PurePosixPath(path)
    return bool(parts.parts) and not parts.is_absolute() and ".." not in parts.parts


def open_foreign(
    info: DatasetInfo, folder: Path | None
) -> tuple[ArraySource | FolderSource, ArraySource | FolderSource]:
    """What the package opens, looked at. DataError in one line if it raises, or if images and labels do not fit."""
    assert info.open is not None
    try:
        found = info.open(folder)
    except BenchError as error:
        raise DataError(f"data set '{info.name}': {error}") from error
    except Exception as error:  # whatever somebody else's code does
        raise DataError(f"data set '{info.name}': open raised {in_one_line(error)}") from error
    if not isinstance(found, tuple) or len(found) != 2:
        kind = type(found).__name__
        raise DataError(f"data set '{info.name}': open must return training and test images, not {kind}")
    for part, source in zip(("training", "test"), found):
        if problem := _problem(source):
            raise DataError(f"data set '{info.name}': the {part} images: {problem}")
    if found[0].class_names != found[1].class_names:
        raise DataError(f"data set '{info.name}': training and test images have other class names")
    return found


def _problem(source: Any) -> str | None:
    from bench.data.sources import ArraySource, FolderSource

    if not isinstance(source, (ArraySource, FolderSource)):
        return f"must be a bench.data.sources.ArraySource or FolderSource, not {type(source).__name__}"
    labels, names = source.labels, source.class_names
    if not isinstance(names, tuple) or len(set(map(str, names))) != len(names):
        return "class_names must be a tuple of different names"
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        return "labels must be int64 [N]"
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        return f"a label is not the number of one of {len(names)} classes"
    if isinstance(source, ArraySource):
        data = source.data
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 4 or data.shape[1] not in (1, 3):
            return "data must be uint8 [N, 3, H, W] (or [N, 1, H, W])"
        if len(data) != len(labels):
            return f"there are {len(data):,} images, but {len(labels):,} labels"
    return None
