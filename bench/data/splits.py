"""Which images are for training, for choosing and for testing: stratified, stored, hashed. Pure numpy.

The validation part is cut from the training set and is a function of (data set, its size, the training
labels, split_seed); the random numbers are PCG64's raw stream, which no version of numpy or torch changes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.schema import Data
from bench.data.hashing import key, name_key, permutation
from bench.errors import BenchError, ConfigError, DataError
from bench.files import atomic_path

PARTS = ("train", "val", "test")
_FORMAT = 1


@dataclass(frozen=True)
class Split:
    """Sorted int64 indices into the training file order (train, val) and the test file order (test).

    fingerprint: of the training labels, so that a stored split is not put on other data of the same name.
    """

    dataset: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    train_total: int
    test_total: int
    fingerprint: str

    @property
    def counts(self) -> dict[str, int]:
        return {part: len(getattr(self, part)) for part in PARTS}

    @property
    def hash(self) -> str:
        """sha256 (hex) over the name, the counts, the validation indices and the subsets."""
        header = [self.dataset, self.train_total, self.test_total, self.counts]
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for part in (self.val, self.train, self.test):
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        return digest.hexdigest()


def label_fingerprint(labels: np.ndarray) -> str:
    """sha256 (hex) of labels in file order."""
    return hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").tobytes()).hexdigest()


def stratified(labels: np.ndarray, count: int, state: int) -> np.ndarray:
    """``count`` positions of ``labels``, sorted, every class by its share (largest remainder; ties by lot)."""
    order = permutation(len(labels), state)
    classes, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    # In integers: share of class c is sizes[c] * count / n.
    quota, rest = np.divmod(sizes.astype(np.int64) * count, len(labels))
    left = count - int(quota.sum())
    if left:
        lot = permutation(len(classes), key(state, 1))
        quota[sorted(lot, key=lambda c: -rest[c])[:left]] += 1
    # Rank of each position within its class, in the random order.
    grouped = order[np.argsort(inverse[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.arange(len(labels)) - np.repeat(starts, sizes)
    return np.sort(grouped[rank < np.repeat(quota, sizes)])


def make_split(config: Data, train_labels: np.ndarray, test_labels: np.ndarray, protocol: str) -> Split:
    """Cut (or load) the split that the configuration asks for. Errors are ConfigErrors naming the key."""
    split = Split(
        dataset=config.name,
        train=np.arange(len(train_labels)),
        val=np.arange(0),
        test=np.arange(len(test_labels)),
        train_total=len(train_labels),
        test_total=len(test_labels),
        fingerprint=label_fingerprint(train_labels),
    )
    if protocol == "published":
        for option in ("val_subset", "split_file"):
            if getattr(config, option) is not None:
                raise ConfigError("protocol: published trains on the whole training set and has no validation part; "
                                  f"leave {option} out", where=f"data.{option}")  # fmt: skip
    elif protocol != "holdout":
        raise ConfigError(f"unknown protocol '{protocol}' (known: holdout, published)", where="protocol")
    elif config.split_file is not None:
        split = load_split(config.split_file, split)
    else:
        split = _cut(split, config, train_labels)
    for part, labels in (("train", train_labels), ("val", train_labels), ("test", test_labels)):
        wanted = getattr(config, f"{part}_subset")
        have = getattr(split, part)
        if wanted is None or wanted == len(have):
            continue
        if wanted > len(have):
            raise ConfigError(f"{wanted} images are asked for, but the {_NAMES[part]} part of {config.name} has "
                              f"{len(have)}", where=f"data.{part}_subset")  # fmt: skip
        state = key(name_key(f"{config.name}/{part}"), wanted, config.split_seed)
        split = replace(split, **{part: have[stratified(labels[have], wanted, state)]})
    return split


_NAMES = {"train": "training", "val": "validation", "test": "test"}


def _cut(split: Split, config: Data, labels: np.ndarray) -> Split:
    total = split.train_total
    size = config.val_size if isinstance(config.val_size, int) else round(config.val_size * total)
    if size >= total:
        raise ConfigError(f"a validation part of {size} leaves nothing to train on: the training set of "
                          f"{config.name} has {total} images", where="data.val_size")  # fmt: skip
    if size < 1:
        raise ConfigError(f"{config.val_size} of {total} training images is less than one image",
                          where="data.val_size")  # fmt: skip
    val = stratified(labels, size, key(name_key(config.name), size, config.split_seed))
    return replace(split, val=val, train=np.setdiff1d(split.train, val, assume_unique=True))


def save_split(split: Split, folder: str | Path) -> Path:
    """Write ``split-<dataset>-<hash12>.npz`` atomically and return its path. A whole file of the split stays."""
    path = Path(folder) / f"split-{split.dataset}-{split.hash[:12]}.npz"
    with suppress(BenchError):
        check_split(path)
        return path
    header = {"format": _FORMAT, "dataset": split.dataset, "hash": split.hash, "fingerprint": split.fingerprint,
              "train_total": split.train_total, "test_total": split.test_total}  # fmt: skip
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, header=np.array(json.dumps(header)), train=split.train, val=split.val,
                            test=split.test)  # fmt: skip
    return path


def indices_hash(path: str | Path) -> str:
    """sha256 (hex) of the indices in a stored split, whatever its file is called. Raises as ``load_split`` does."""
    _, arrays = _read(Path(path))
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(f"{part} {len(arrays[part])}".encode() + arrays[part].astype("<i8").tobytes())
    return digest.hexdigest()


def check_split(path: Path) -> None:
    """ConfigError or DataError if a file of ``save_split`` is missing, or does not fit the hash in its name."""
    header, arrays = _read(path)
    found = Split(header["dataset"], arrays["train"], arrays["val"], arrays["test"], header["train_total"],
                  header["test_total"], header["fingerprint"]).hash  # fmt: skip
    if found != header["hash"] or path.name != f"split-{header['dataset']}-{found[:12]}.npz":
        raise DataError(f"{path} is damaged: its indices do not fit its hash")


def load_split(path: str | Path, expected: Split) -> Split:
    """A stored split for the data described by ``expected``. Verifies that it is whole and of this data."""
    where = "data.split_file"
    header, arrays = _read(Path(path))
    if header["dataset"] != expected.dataset:
        raise ConfigError(f"{path} is a split of {header['dataset']}, not of {expected.dataset}", where=where)
    found = (header["train_total"], header["test_total"])
    if found != (expected.train_total, expected.test_total):
        raise ConfigError(f"{path} is for {found[0]} training and {found[1]} test images; {expected.dataset} here has "
                          f"{expected.train_total} and {expected.test_total}", where=where)  # fmt: skip
    if header["fingerprint"] != expected.fingerprint:
        raise ConfigError(f"{path} was made for other images: the training labels differ", where=where)
    split = replace(expected, train=arrays["train"], val=arrays["val"], test=arrays["test"])
    limits = {"train": split.train_total, "val": split.train_total, "test": split.test_total}
    whole = all(
        len(part) == len(np.unique(part)) and (not len(part) or (part.min() >= 0 and part.max() < limits[name]))
        for name, part in arrays.items()
    )
    if split.hash != header["hash"] or not whole or len(np.intersect1d(split.train, split.val)):
        raise DataError(f"{path} is damaged: its indices do not fit its hash; delete it and cut the split anew")
    if not len(split.val):
        raise ConfigError(f"{path} has no validation part (it was saved under protocol: published)", where=where)
    return split


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", where="data.split_file")
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {part: file[part].astype(np.int64, casting="safe") for part in PARTS}
        if header["format"] != _FORMAT:
            raise ConfigError(f"{path} has format {header['format']}; this version reads {_FORMAT}",
                              where="data.split_file")  # fmt: skip
        fields = {name: header[name] for name in ("dataset", "hash", "fingerprint", "train_total", "test_total")}
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError,
            AttributeError, MemoryError) as error:  # fmt: skip
        raise DataError(f"{path} is no readable split file ({error or type(error).__name__})") from error
    if any(array.ndim != 1 for array in arrays.values()):
        raise DataError(f"{path} is no readable split file (indices must be lists)")
    return fields, arrays
