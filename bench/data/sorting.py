"""Sorting a flat validation folder into class folders, from the devkit's ground truth or a mapping file."""

from __future__ import annotations

import csv
import io
import os
import tarfile
from pathlib import Path

from bench.data.scanning import class_folders, loose_images
from bench.data.sources import EXTENSIONS
from bench.errors import ConfigError, DataError
from bench.files import decode_text, read_text

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_DEVKIT = "ILSVRC2012_devkit_t12"
_HOW = (
    f"unpack the devkit ({_DEVKIT}.tar.gz) beside train/ and val/, or give a mapping file with a line "
    "'image class' for every image"
)


def sort_validation(folder: Path, val_map: Path | None) -> int:
    """Move the loose images of ``folder/val`` into class folders and return how many were moved.

    Everything is checked before the first file moves, and each file moves by one rename: interrupted, it goes on
    where it stopped; finished, it does nothing. val_map: a mapping file, a devkit folder or archive, or None to
    look for the devkit beside val/.
    """
    val = folder / "val"
    loose = loose_images(val)
    if not loose:
        return 0
    classes = class_folders(folder / "train")
    if not classes:
        raise DataError(f"no class folders in {folder / 'train'}: the training set says which classes there are")
    mapping, origin = _mapping(folder, val_map)
    moves = []
    for name in loose:
        label = mapping.get(name) or mapping.get(Path(name).stem)
        if label is None:
            raise DataError(f"{origin} says nothing about {val / name}; nothing was moved")
        if label not in classes:
            raise DataError(f"{origin} puts {name} into class {label}, which train/ does not have; nothing was moved")
        if (val / label / name).exists():
            raise DataError(f"{name} lies both in {val} and in {val / label}; remove one; nothing was moved")
        moves.append((val / name, val / label / name))
    try:
        for place in sorted({target.parent for _, target in moves}):
            place.mkdir(exist_ok=True)
        for path, target in moves:
            os.rename(path, target)
    except OSError as error:
        raise DataError(f"cannot sort {val}: {error.strerror} ({error.filename}); the same command goes on") from error
    return len(moves)


def _mapping(folder: Path, val_map: Path | None) -> tuple[dict[str, str], str]:
    """Image name (or its stem) -> class, and what a message calls the origin."""
    if val_map is not None:
        if not val_map.exists():
            raise ConfigError(f"there is no {val_map}", where="--val-map")
        if val_map.name == GROUND_TRUTH:
            return _from_devkit(val_map.parent), str(val_map)
        if val_map.is_dir() or val_map.name.endswith((".tar.gz", ".tgz", ".tar")):
            return _from_devkit(val_map), str(val_map)
        return _from_file(val_map), str(val_map)
    for place in (folder, folder.parent):
        for name in (_DEVKIT, "devkit", ".", f"{_DEVKIT}.tar.gz"):
            if _devkit_file(place / name, GROUND_TRUTH) is not None:
                return _from_devkit(place / name), str(place / name)
    raise DataError(f"{folder / 'val'} is not sorted into class folders and no devkit is there; {_HOW}")


def _from_file(path: Path) -> dict[str, str]:
    """Lines 'image class', separated by blanks or commas; more columns and one line of headings are let pass."""
    mapping: dict[str, str] = {}
    lines = text_lines(path)
    rows = csv.reader(lines) if any("," in line for line in lines[:2]) else (line.split(maxsplit=1) for line in lines)
    for number, row in enumerate(rows, 1):
        fields = [field.strip() for field in row]
        if not any(fields):
            continue
        if len(fields) < 2 or not fields[0] or not fields[1]:
            raise DataError(f"{path}, line {number}: expected 'image class', found '{' '.join(fields)[:60]}'")
        name, label = Path(fields[0]).name, fields[1].split()[0]
        if number == 1 and not name.lower().endswith(EXTENSIONS) and not any(c.isdigit() for c in name):
            continue  # a heading such as 'ImageId,PredictionString'
        if mapping.setdefault(name, label) != label:
            raise DataError(f"{path}, line {number}: {name} is already of class {mapping[name]}")
    return mapping


def _from_devkit(place: Path) -> dict[str, str]:
    """ILSVRC 2012: line i of the ground truth is the class number of image i; meta.mat numbers the classes."""
    truth = _devkit_file(place, GROUND_TRUTH)
    if truth is None:
        raise DataError(f"there is no {GROUND_TRUTH} in {place}; {_HOW}")
    wnids = _synsets(place)
    mapping = {}
    for number, line in enumerate(_text(truth, place / GROUND_TRUTH).split(), 1):
        if not line.isdecimal() or int(line) not in wnids:
            raise DataError(f"{place / GROUND_TRUTH}, line {number}: '{line[:20]}' is no class number of the synsets")
        mapping[f"ILSVRC2012_val_{number:08d}"] = wnids[int(line)]
    return mapping


def _synsets(place: Path) -> dict[int, str]:
    """Class number -> wnid, from meta.mat (needs scipy) or a synsets.txt in the order of the class numbers."""
    listed = _devkit_file(place, "synsets.txt")
    if listed is not None:
        text = _text(listed, place / "synsets.txt")
        rows = [line.split() for line in text.splitlines() if line.strip()]
        if all(len(row) > 1 and row[0].isdecimal() for row in rows):
            return {int(row[0]): row[1] for row in rows}
        names = [row[0] for row in rows]
        if names == sorted(names) and len(names) > 2:
            raise DataError(f"synsets.txt in {place} is sorted by wnid, which is not the order of the devkit's class "
                            "numbers; put the number before each wnid, or use meta.mat")  # fmt: skip
        return dict(enumerate(names, 1))
    meta = _devkit_file(place, "meta.mat")
    if meta is None:
        raise DataError(f"there is neither meta.mat nor synsets.txt in {place}; {_HOW}")
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"reading meta.mat in {place} needs scipy: install depthbench[svhn], or put a synsets.txt with "
                        "lines 'number wnid' beside it") from error  # fmt: skip
    rows = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    # Leaves only (no children): the inner nodes of the hierarchy have numbers above 1000.
    return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows if int(row["num_children"]) == 0}


def text_lines(path: Path) -> list[str]:
    """The lines of a text file; DataError that names it if it is not one."""
    try:
        return read_text(path).splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _text(content: bytes, path: Path) -> str:
    try:
        return decode_text(content)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _devkit_file(place: Path, name: str) -> bytes | None:
    """A file of the devkit, which may be a folder (with or without data/) or the archive."""
    try:
        if place.is_dir():
            found = next((path for path in (place / "data" / name, place / name) if path.is_file()), None)
            return found.read_bytes() if found else None
        if not place.is_file():
            return None
        with tarfile.open(place) as archive:
            member = next((m for m in archive.getmembers() if m.isfile() and Path(m.name).name == name), None)
            file = archive.extractfile(member) if member else None
            return file.read() if file else None
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot read the devkit {place}: {error}") from error
