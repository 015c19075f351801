"""Name and folder -> the training and test images. torchvision reads what it knows; every failure is one line."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.data.catalog import DatasetInfo, data_folder, how_to_get, missing_files
from bench.data.foreign import open_foreign
from bench.data.known import check_class_names, check_known_images, md5_of
from bench.data.scanning import class_folders, difference, scan_folder
from bench.data.sorting import text_lines
from bench.data.sources import ArraySource, FolderSource, Source
from bench.data.synthetic import synthetic_images
from bench.errors import ConfigError, DataError
from bench.locks import locked

log = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
#: Between two looks at whether another process has fetched the data (seconds).
_PAUSE = 0.2

#: torchvision's parts of SVHN that are the training set of each data set.
SVHN_PARTS = {"svhn": ("train",), "svhn_extra": ("train", "extra")}
FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                   "Ankle boot")  # fmt: skip


def open_sources(info: DatasetInfo, root: Path | None, download: bool) -> tuple[Source, Source]:
    """Training and test images. DataError where files are missing or damaged, with what to do about it."""
    if info.name == "synthetic":
        return synthetic_images("train", info.train_count or 0), synthetic_images("test", info.test_count or 0)
    if info.name == "fashion_mnist_mini":
        return read_mini()
    if info.open is not None and not info.needs_root:
        return open_foreign(info, None)
    if root is None:
        raise ConfigError(f"{info.name} needs a folder: data.root, --data-root or BENCH_DATA_ROOT; "
                          f"{how_to_get(info)}", where="data.root")  # fmt: skip
    missing = missing_files(info.name, root)
    if missing and download and info.download:
        return _fetch(info, root)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        what = f"{missing[0]} is not a file" if os.path.exists(missing[0]) else f"there is no {missing[0]}"
        raise DataError(f"{info.name}: {what}{more}; {how_to_get(info)}")
    folder = data_folder(info.name, root)
    if info.open is not None:
        return open_foreign(info, folder)
    if info.class_folders:
        sources = open_folders(folder)
        check_class_names(info, sources[0].class_names, folder)
        for part, source in zip(info.files, sources):
            if source.left_out.images():
                log.warning("%s: images of other formats are not read: %s", folder / part, source.left_out.images())
        return sources
    return _torchvision(info, folder, download=False)


def open_folders(folder: Path) -> tuple[FolderSource, FolderSource]:
    """train/ and val/ with the same class folders; val/ also as the official Tiny ImageNet has it."""
    train = scan_folder(folder / "train")
    annotations = folder / "val" / "val_annotations.txt"
    if annotations.is_file() and class_folders(folder / "val") == ["images"]:
        return train, _annotated(annotations, train.class_names)
    found = class_folders(folder / "val")
    if found and found != list(train.class_names):
        raise DataError(f"the class folders of {folder / 'val'} are not those of train: "
                        f"{difference(found, train.class_names)}")  # fmt: skip
    return train, scan_folder(folder / "val", train.class_names)


def _annotated(path: Path, classes: tuple[str, ...]) -> FolderSource:
    """Tiny ImageNet's own validation layout: images/ and a file of 'name wnid x0 y0 x1 y1' lines."""
    index = {name: number for number, name in enumerate(classes)}
    samples = []
    for number, line in enumerate(text_lines(path), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) < 2 or fields[1] not in index:
            raise DataError(f"{path}, line {number}: expected 'image class ...' with a class of train/, "
                            f"found '{line.strip()[:60]}'")  # fmt: skip
        samples.append((index[fields[1]], str(path.parent / "images" / fields[0])))
    samples.sort()
    absent = next((name for _, name in samples if not Path(name).is_file()), None)
    if not samples or absent:
        raise DataError(f"{path} names {absent}, which is not there" if absent else f"{path} names no image")
    return FolderSource([name for _, name in samples], [label for label, _ in samples], classes)


def read_mini() -> tuple[ArraySource, ArraySource]:
    """The embedded Fashion-MNIST images: one lossless mosaic and a table of labels and parts."""
    try:
        facts = json.loads((ASSETS / "fashion_mnist_mini.json").read_text("utf-8"))
        table = np.load(ASSETS / "fashion_mnist_mini.npy", allow_pickle=False)
        with Image.open(ASSETS / "fashion_mnist_mini.webp") as file:
            grey = np.asarray(file.convert("L"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the embedded images in {ASSETS} cannot be read ({error}); install the package anew, "
                        "with a Pillow that knows WebP") from error  # fmt: skip
    rows, columns, side = facts["rows"], facts["columns"], facts["side"]
    tiles = grey.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side, side)
    return _split_mini(pad_grey(tiles), table)


def _split_mini(data: np.ndarray, table: np.ndarray) -> tuple[ArraySource, ArraySource]:
    parts = []
    for number, part in enumerate(("train", "test")):
        chosen = np.flatnonzero(table[1] == number)
        parts.append(ArraySource(f"fashion_mnist_mini {part}", data[chosen], table[0][chosen].astype(np.int64),
                                 FASHION_CLASSES))  # fmt: skip
    return parts[0], parts[1]


def pad_grey(images: np.ndarray, size: int = 32) -> np.ndarray:
    """Grey uint8 [N, h, w] in the middle of black [N, 1, size, size]."""
    top, left = (size - images.shape[1]) // 2, (size - images.shape[2]) // 2
    out = np.zeros((len(images), 1, size, size), dtype=np.uint8)
    out[:, 0, top : top + images.shape[1], left : left + images.shape[2]] = images
    return out


def _fetch(info: DatasetInfo, root: Path) -> tuple[Source, Source]:
    """Through torchvision, which verifies checksums. One process fetches, the others wait and find it there; the
    files go where they belong only when all of them have come."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(root / f".{info.name}.lock"):
            if not missing_files(info.name, root):
                return _torchvision(info, data_folder(info.name, root), download=False)
            temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{info.name}-"))
            try:
                sources = _torchvision(info, temporary, download=True)
                for file in info.files:
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(temporary / file, root / file)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return sources
    except OSError as error:
        raise DataError(f"cannot fetch {info.name} into {root}: {_line(error)}; {how_to_get(info)}") from error


def _torchvision(info: DatasetInfo, folder: Path, *, download: bool) -> tuple[Source, Source]:
    from torchvision import datasets

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sets: list[Any]
            if info.name in ("cifar10", "cifar100"):
                kind = datasets.CIFAR10 if info.name == "cifar10" else datasets.CIFAR100
                sets = [kind(str(folder), train=train, download=download) for train in (True, False)]
            elif info.name in SVHN_PARTS:
                sets = [_svhn(folder, parts, download) for parts in (SVHN_PARTS[info.name], ("test",))]
            else:
                sets = [datasets.FashionMNIST(str(folder), train=train, download=download) for train in (True, False)]
    except ImportError as error:
        raise DataError(f"{info.name} is stored in MATLAB files and needs scipy: install depthbench[svhn] "
                        f"({_line(error)})") from error  # fmt: skip
    except Exception as error:  # RuntimeError for a wrong checksum, URLError, pickle and zlib errors, ...
        if download:
            raise DataError(f"cannot fetch {info.name}: {_line(error)}; {how_to_get(info)}") from error
        damaged = _damaged(info, folder)
        if damaged:
            raise DataError(f"{damaged} is damaged (wrong checksum): delete it; {how_to_get(info)}") from error
        raise DataError(f"cannot read {info.name} in {folder}: {_line(error)}; {how_to_get(info)}") from error
    train, test = _as_source(info, sets[0], "train"), _as_source(info, sets[1], "test")
    if info.name == "fashion_mnist":
        images, labels = np.concatenate([train.data, test.data]), np.concatenate([train.labels, test.labels])
        check_known_images(info, folder, images, labels, read_mini())
    return train, test


def _svhn(folder: Path, parts: tuple[str, ...], download: bool) -> Any:
    """SVHN's parts as one, in their order: torchvision's data set of the first, with the others' images behind."""
    from torchvision import datasets

    sets = [datasets.SVHN(str(folder), split=part, download=download) for part in parts]
    if len(sets) > 1:
        sets[0].labels = np.concatenate([one.labels for one in sets])
        pixels = np.empty((len(sets[0].labels), *sets[0].data.shape[1:]), np.uint8)
        first = 0
        for one in sets:
            pixels[first : first + len(one.data)] = one.data
            first += len(one.data)
            one.data = None  # the extra part is 1.5 GiB: never three times in memory
        sets[0].data = pixels
    return sets[0]


def _damaged(info: DatasetInfo, folder: Path) -> Path | None:
    """The first file whose checksum is not the one that torchvision knows."""
    from torchvision import datasets

    sums: dict[str, str] = {}
    if info.name in ("cifar10", "cifar100"):
        kind = datasets.CIFAR10 if info.name == "cifar10" else datasets.CIFAR100
        sums = dict((*kind.train_list, *kind.test_list))
        sums[kind.meta["filename"]] = kind.meta["md5"]
    elif info.name in SVHN_PARTS:
        sums = {name: md5 for _, name, md5 in datasets.SVHN.split_list.values()}
    for file in (folder / name for name in info.files):
        known = sums.get(file.name)
        if known and file.is_file() and md5_of(file) != known:
            return file
    return None


def _as_source(info: DatasetInfo, data: Any, part: str) -> ArraySource:
    labels = np.asarray(data.labels if info.name in SVHN_PARTS else data.targets, dtype=np.int64)
    pixels = np.asarray(data.data)
    if info.name == "fashion_mnist":
        pixels = pad_grey(pixels)
    elif info.name not in SVHN_PARTS:  # SVHN is [N, 3, 32, 32] already
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    expected = info.train_count if part == "train" else info.test_count
    if not len(pixels) == len(labels) == expected:
        raise DataError(f"{info.name} has {len(pixels)} {part} images and {len(labels)} labels instead of {expected}")
    names = getattr(data, "classes", None) or [str(n) for n in range(10)]
    return ArraySource(f"{info.name} {part}", pixels, labels, tuple(names))


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with locked(path, lambda holder: time.sleep(_PAUSE)):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
