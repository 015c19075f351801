"""Which images a comparison reads, in a few numbers: names, sizes, labels and contents. Imports no torch.

Where the data lies and when its files were written does not count, so that a data set may be moved or copied.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bench.config.base import Strict
from bench.config.resolve import digest, file_sha256
from bench.config.schema import Data
from bench.data.catalog import DatasetInfo, data_folder, dataset_info, find_root, missing_files
from bench.data.opening import open_sources
from bench.data.sources import ArraySource, FolderSource, Source
from bench.data.splits import indices_hash
from bench.errors import DataError

T = TypeVar("T")

#: Bytes of a part in class folders up to which its contents are always hashed; of a larger one only with ``verify``.
SMALL = 128 * 2**20
_WINDOW = 1024  # files that a thread looks at in a row
_THREADS = 16  # a network file system answers many at once


class PartPrint(Strict):
    """The training or the test images. Hashes are sha256 (hex), of values in file order.

    listing: of (path, size, label). names: of (path, label). unlabelled: of (name, size) without folders, sorted.
    content: of the bytes, '' for a large part of class folders. verified: of such a part's bytes, '' unless asked for.
    """

    images: int
    bytes: int
    listing: str
    names: str
    unlabelled: str
    content: str
    verified: str = ""

    @property
    def digest(self) -> str:
        """One hash of it all; the same whether or not the contents of a large part were verified."""
        return digest([self.images, self.bytes, self.listing, self.content])

    def difference(self, before: PartPrint) -> str:
        """What changed since ``before``, in words; '' if nothing did, as far as both know it."""
        if self.images != before.images:
            return f"{self.images:,} images instead of {before.images:,}"
        if self.listing != before.listing:
            if self.unlabelled == before.unlabelled:
                return "the same images with other labels"
            return "the same names with other contents" if self.names == before.names else "other file names"
        known = ((self.content, before.content), (self.verified, before.verified))
        return "the same names with other contents" if any(a and b and a != b for a, b in known) else ""


class Fingerprint(Strict):
    """The data of a comparison. split_file: hash of the indices in ``data.split_file``, None without one."""

    train: PartPrint
    test: PartPrint
    split_file: str | None = None

    def difference(self, before: Fingerprint) -> str:
        """What changed since ``before``, part by part, in words; '' if nothing did."""
        train, test = self.train.difference(before.train), self.test.difference(before.test)
        parts = {"both parts": train} if train == test else {"training part": train, "test part": test}
        if self.split_file and before.split_file and self.split_file != before.split_file:
            parts["data.split_file"] = "another split"
        return "; ".join(f"{part}: {words}" for part, words in parts.items() if words)


def read_fingerprint(value: object) -> Fingerprint | None:
    """A stored fingerprint (``model_dump``), or None if there is none."""
    try:
        return Fingerprint.model_validate(value)
    except ValidationError:
        return None


def take_fingerprint(
    data: Data, *, verify: bool = False, sources: tuple[Source, Source] | None = None
) -> Fingerprint:
    """Look at the data of a configuration. verify: read every image of large class folders too.

    sources: the opened data, if it is open already. Raises ConfigError and DataError where data cannot be read, as
    opening it does. Fetches what is missing if ``data.download`` allows it.
    """
    info, root = dataset_info(data.name), find_root(data)
    in_files = info.needs_root and not info.class_folders and info.open is None
    if sources is None and (not in_files or missing_files(info.name, root)):
        sources = open_sources(info, root, data.download)
    folder = data_folder(info.name, root) if root is not None else Path()
    if in_files:
        parts = _from_files(info, folder)
    else:
        assert sources is not None
        parts = [_from_source(source, folder, verify) for source in sources]
    split = indices_hash(data.split_file) if data.split_file is not None else None
    return Fingerprint(train=parts[0], test=parts[1], split_file=split)


def _from_files(info: DatasetInfo, folder: Path) -> list[PartPrint]:
    """A known data set whose images lie together in a few files."""
    tested = [name for name in info.files if Path(name).name.startswith(("test", "t10k"))]
    trained = [name for name in info.files if name not in tested]
    return [
        _print_of(count or 0, names, [_size(folder / name) for name in names], [""] * len(names),
                  digest([file_sha256(folder / name) for name in names]))
        for count, names in ((info.train_count, trained), (info.test_count, tested))
    ]  # fmt: skip


def _from_source(source: Source, folder: Path, verify: bool) -> PartPrint:
    if isinstance(source, FolderSource):
        return _from_folder(source, folder, verify)
    assert isinstance(source, ArraySource)
    content = hashlib.sha256(source.data.tobytes() + source.labels.tobytes()).hexdigest()
    return _print_of(len(source), [source.name], [source.data.nbytes], [""], content)


def _from_folder(source: FolderSource, folder: Path, verify: bool) -> PartPrint:
    paths = [source.where(index) for index in range(len(source))]
    sizes = _of_each(paths, _size)
    small = sum(sizes) <= SMALL
    content = digest(_of_each(paths, lambda path: file_sha256(Path(path)))) if small or verify else ""
    names = [path.removeprefix(f"{folder}{os.sep}") for path in paths]
    labels = [source.class_names[label] for label in source.labels.tolist()]
    found = _print_of(len(source), names, sizes, labels, content if small else "")
    return found if small else found.model_copy(update={"verified": content})


def _print_of(
    images: int, names: Sequence[str], sizes: Sequence[int], labels: Sequence[str], content: str
) -> PartPrint:
    unlabelled = sorted(f"{name.rpartition(os.sep)[2]}\0{size}" for name, size in zip(names, sizes))
    return PartPrint(
        images=images, bytes=sum(sizes), names=_hash(zip(names, labels)), unlabelled=_hash((unlabelled,)),
        listing=_hash((name, str(size), label) for name, size, label in zip(names, sizes, labels)), content=content,
    )  # fmt: skip


def _hash(rows: Iterable[Iterable[str]]) -> str:
    """Of texts, which may hold bytes that are not UTF-8 (names of files) but no null."""
    value = hashlib.sha256()
    for row in rows:
        value.update("\0".join(row).encode("utf-8", "surrogateescape") + b"\0\n")
    return value.hexdigest()


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _of_each(paths: Sequence[str], look: Callable[[str], T]) -> list[T]:
    """``look`` at every file, in order; several at a time."""

    def look_at_some(start: int) -> list[T]:
        return [look(path) for path in paths[start : start + _WINDOW]]

    with ThreadPoolExecutor(_THREADS) as pool:
        return [found for some in pool.map(look_at_some, range(0, len(paths), _WINDOW)) for found in some]
