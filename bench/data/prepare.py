"""What `bench data NAME` does: fetch or say which files to put where, put in order, verify, count."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from bench.data.catalog import DatasetInfo, data_folder, dataset_info, how_to_get, missing_files
from bench.data.known import check_archive, check_archives
from bench.data.opening import open_sources
from bench.data.sorting import sort_validation
from bench.data.sources import Source
from bench.data.survey import Progress, survey
from bench.errors import ConfigError, DataError

_ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
#: How opening a data set makes sure that it is the one of its name.
_VERIFIED = {
    **dict.fromkeys(("cifar10", "cifar100", "svhn", "svhn_extra"), "the files have the published checksums (MD5)"),
    "fashion_mnist": "14,000 known images are among them, with their labels (no .gz archives to compare with)",
    "imagenet": "the class folders have ImageNet's names",
    "tiny_imagenet": "the class folders have ImageNet's names",
}  # fmt: skip


def prepare(
    name: str,
    root: str | Path | None,
    *,
    download: bool,
    val_map: str | Path | None = None,
    num_classes: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Make a data set ready and verify it. Returns the lines of a report.

    download: fetch what is missing, where torchvision can. val_map: where a flat val/ gets its classes from (see
    ``sort_validation``). num_classes: the classes that must be there; default: the data set's own. progress(done,
    total) is called while the images of a folder data set are decoded, every one of them. Raises ConfigError and
    DataError: what is missing and where to put it, how many images cannot be read and which.
    """
    info = dataset_info(name)
    lines = [f"{info.name}: {info.description}"]
    folder: Path | None = None
    if info.needs_root:
        if root is None:
            raise ConfigError(f"{name} needs a folder: --data-root or BENCH_DATA_ROOT; {how_to_get(info)}",
                              where="data.root")  # fmt: skip
        lines += _put_in_order(info, Path(root).expanduser(), download, Path(val_map) if val_map else None)
        folder = data_folder(name, Path(root).expanduser())
        lines.append(f"folder: {folder}")
    train, test = open_sources(info, Path(root).expanduser() if root else None, download)
    lines += _count(info, train, test, num_classes)
    if folder is not None and info.name in _VERIFIED:
        lines.append(f"verified: {_verify(info, folder)}")
    lines += survey(name, train, test, progress)
    lines.append(f"licence: {info.licence}")
    return lines


def _verify(info: DatasetInfo, folder: Path) -> str:
    """What opening the data set has not verified yet, and how all of it was."""
    if info.name == "fashion_mnist" and check_archives(info, folder) == len(info.files):
        return "the files are those of the published archives (MD5)"
    return _VERIFIED[info.name]


def _put_in_order(info: DatasetInfo, root: Path, download: bool, val_map: Path | None) -> list[str]:
    """Unpack archives that lie there, sort a flat validation folder."""
    lines = []
    if missing_files(info.name, root) and root.is_dir():
        lines += _unpack(info, data_folder(info.name, root))
    missing = missing_files(info.name, root)
    if missing and download and not info.download:
        raise DataError(f"{info.name} cannot be fetched: its owners give it to registered users; {how_to_get(info)}")
    if info.class_folders and not missing:
        folder = data_folder(info.name, root)
        moved = sort_validation(folder, val_map) if info.name == "imagenet" or val_map else 0
        if moved:
            lines.append(f"sorted {moved:,} validation images into class folders")
    return lines


def _count(info: DatasetInfo, train: Source, test: Source, num_classes: int | None) -> list[str]:
    found, expected = len(train.class_names), num_classes or info.num_classes
    if expected is not None and found != expected:
        raise DataError(f"{info.name} should have {expected} classes, found {found}")
    lines = [f"classes: {found}"]
    for part, source, usual in (("train", train, info.train_count), ("test", test, info.test_count)):
        sizes = np.bincount(source.labels, minlength=found)
        note = f" (the complete set has {usual:,})" if usual is not None and usual != len(source) else ""
        lines.append(f"{part}: {len(source):,} images, {sizes.min():,} to {sizes.max():,} a class{note}")
    return lines


def _unpack(info: DatasetInfo, folder: Path) -> list[str]:
    """Archives as their owners ship them, where they lie in the folder: unpacked whole or not at all."""
    done = []
    try:
        archive = folder / _ARCHIVES.get(info.name, "")
        if info.name in _ARCHIVES and archive.is_file():
            _unpack_tar(archive, folder, set(info.files))
            done.append(f"unpacked {archive}")
        if info.name == "fashion_mnist":
            for file in (folder / name for name in info.files):
                packed = file.with_name(file.name + ".gz")
                if packed.is_file() and not file.is_file():
                    check_archive(packed)
                    _unpack_gzip(packed, file)
                    done.append(f"unpacked {packed}")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"cannot unpack the archives in {folder}: {error}") from error
    return done


def _unpack_tar(archive: Path, folder: Path, wanted: set[str]) -> None:
    top = next(iter(wanted)).split("/")[0]
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{top}-"))
    try:
        with tarfile.open(archive) as file:
            for member in file:
                content = file.extractfile(member) if member.isfile() and member.name in wanted else None
                if content is not None:
                    with open(temporary / Path(member.name).name, "wb") as out:
                        shutil.copyfileobj(content, out)
        os.chmod(temporary, 0o755)
        (folder / top).mkdir(exist_ok=True)
        for path in temporary.iterdir():
            os.replace(path, folder / top / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_gzip(packed: Path, file: Path) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with gzip.open(packed) as content, open(temporary, "wb") as out:
            shutil.copyfileobj(content, out)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
