"""Class folders -> the images in them: each real file once, nothing hidden, and an account of what was left out.

Opens no file. An entry's kind comes with the listing of its folder; only links, and files that share an inode number
with another, cost a look at the file system of their own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.data.sources import EXTENSIONS, FolderSource, LeftOut
from bench.errors import DataError

#: Folders that systems and programs leave beside a user's files; names that begin with a dot are hidden as well.
_JUNK = frozenset({"__MACOSX", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information",
                   "lost+found"})  # fmt: skip
_Place = tuple[int, int]  # device, inode


@dataclass
class _Class:
    """The images of one class, in no order: (folder, name, inode, whether a link)."""

    name: str
    files: list[tuple[str, str, int, bool]] = field(default_factory=list)


def scan_folder(folder: Path, classes: Sequence[str] | None = None) -> FolderSource:
    """Images below ``folder`` in class folders, in torchvision's order (classes, then folders, then names, sorted).

    classes: the classes that must be there; default: as found. Raises DataError if a class is empty, if a folder
    cannot be read, and for what cannot be meant: images outside class folders, one file in two classes, links to
    nothing, pipes and devices. The source's ``left_out`` says what was passed over.
    """
    found, loose = class_folders(folder), loose_images(folder)
    if loose:
        raise DataError(f"{len(loose)} images lie loose in {folder} instead of in class folders (the first: "
                        f"{loose[0]}); `bench data imagenet` sorts the flat validation set of ImageNet")  # fmt: skip
    if not found:
        raise DataError(f"no class folders in {folder}: put the images of each class into a folder of its own")
    if len(found) < 2:
        raise DataError(f"only one class folder in {folder} ({found[0]}): there is nothing to tell apart")
    names = list(classes) if classes is not None else found
    if found != names:
        raise DataError(f"class folders of {folder} differ: " + difference(found, names))
    left = LeftOut(hidden=sum(is_hidden(entry.name) for entry in _entries(folder)))
    scanned = _Scan(left).run(folder, names)
    paths, labels = _once_each(scanned, left)
    source = FolderSource(paths, labels, names, left)
    empty = np.flatnonzero(np.bincount(source.labels, minlength=len(names)) == 0)
    if len(empty):
        more = f" and {len(empty) - 1} more class folders" if len(empty) > 1 else ""
        other = f"; left out: {left}" if str(left) else ""
        raise DataError(f"no images in {folder / names[empty[0]]}{more} (looked for {', '.join(EXTENSIONS)}{other})")
    return source


class _Scan:
    """Walks the class folders. Links to folders wait until every real folder is known: images belong to the class in
    which they really lie, and a folder that was seen is not entered a second time."""

    def __init__(self, left: LeftOut) -> None:
        self.left = left
        self.seen: set[_Place] = set()
        self.links: list[tuple[_Class, str]] = []

    def run(self, folder: Path, names: Sequence[str]) -> list[_Class]:
        places = [(_Class(name), os.path.join(folder, name)) for name in names]
        for one, path in places:
            if not os.path.islink(path):
                self._walk(one, path)
        waiting = deque([(one, path) for one, path in places if os.path.islink(path)] + self.links)
        while waiting:
            one, path = waiting.popleft()
            self.links = []
            if _leads_up(path):
                self.left.links += 1
            else:
                self._walk(one, path)
            waiting.extend(self.links)
        return [one for one, _ in places]

    def _walk(self, one: _Class, top: str) -> None:
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            place = _place(folder)
            if place in self.seen:
                self.left.links += 1
                continue
            self.seen.add(place)
            for entry in _entries(folder):
                if is_hidden(entry.name):
                    self.left.hidden += 1
                elif entry.is_symlink():
                    self._link(one, folder, entry)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not self._is_image(entry.name):
                    continue
                elif entry.is_file(follow_symlinks=False):
                    one.files.append((folder, entry.name, entry.inode(), False))
                else:
                    raise not_a_file(entry.path)

    def _link(self, one: _Class, folder: str, entry: os.DirEntry[str]) -> None:
        target = _stat(entry.path)
        if stat.S_ISDIR(target.st_mode):
            self.links.append((one, entry.path))
        elif self._is_image(entry.name):
            if not stat.S_ISREG(target.st_mode):
                raise not_a_file(entry.path)
            one.files.append((folder, entry.name, target.st_ino, True))

    def _is_image(self, name: str) -> bool:
        if name.lower().endswith(EXTENSIONS):
            return True
        self.left.extensions[os.path.splitext(name)[1].lower()] += 1
        return False


def _once_each(scanned: list[_Class], left: LeftOut) -> tuple[list[str], list[int]]:
    """Paths and labels in order, without further names of a file that is there already."""
    paths, labels, inodes, linked = [], [], [], []
    for number, one in enumerate(scanned):
        for folder, name, inode, link in sorted(one.files):
            paths.append(os.path.join(folder, name))
            labels.append(number)
            inodes.append(inode)
            linked.append(link)
    spare = set(_further_names(paths, labels, inodes, linked))
    if not spare:
        return paths, labels
    left.links += len(spare)
    kept = [index for index in range(len(paths)) if index not in spare]
    return [paths[index] for index in kept], [labels[index] for index in kept]


def _further_names(paths: list[str], labels: list[int], inodes: list[int], linked: list[bool]) -> Iterator[int]:
    """Positions of links, hard or symbolic, to a file that has another name in the list."""
    values, counts = np.unique(np.array(inodes, dtype=np.uint64), return_counts=True)
    shared = set(values[counts > 1].tolist())
    if not shared:
        return
    first: dict[_Place, int] = {}
    # Equal numbers may be of two file systems, or a file system's way to say that it has none: only stat is sure.
    for index in sorted((i for i, inode in enumerate(inodes) if inode in shared), key=lambda i: (linked[i], i)):
        place = _place(paths[index])
        other = first.setdefault(place, index)
        if labels[other] != labels[index]:
            raise DataError(f"{paths[index]} is the same file as {paths[other]}, in another class; remove one of them")
        if other != index:
            yield index


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted; hidden ones do not count. DataError if the folder cannot be read."""
    return sorted(entry.name for entry in _entries(folder) if not is_hidden(entry.name) and _is_folder(entry))


def loose_images(folder: Path) -> list[str]:
    """Names of image files that lie directly in a folder, sorted; hidden ones do not count."""
    return sorted(entry.name for entry in _entries(folder)
                  if entry.name.lower().endswith(EXTENSIONS) and not is_hidden(entry.name)
                  and not _is_folder(entry))  # fmt: skip


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set: ``.ipynb_checkpoints``, ``._a.png``, ..."""
    return name.startswith(".") or name in _JUNK


def difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """'2 missing (a, b), 1 more (c)': how found class folders differ from the expected ones."""
    parts = []
    for label, names in (("missing", set(expected) - set(found)), ("too many", set(found) - set(expected))):
        if names:
            some = sorted(names)
            parts.append(f"{len(some)} {label} ({', '.join(some[:3])}{', ...' if len(some) > 3 else ''})")
    return ", ".join(parts)


def not_a_file(path: str | Path) -> DataError:
    """The error for a pipe, a socket or a device in the place of a file."""
    return DataError(f"{path} is a {kind_of(os.stat(path).st_mode)}, not a file: remove it")


def kind_of(mode: int) -> str:
    """What a mode of ``os.stat`` is, for a message."""
    kinds = ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISDIR, "folder"), (stat.S_ISREG, "file"))
    return next((name for test, name in kinds if test(mode)), "device")


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return stat.S_ISDIR(_stat(entry.path).st_mode) if entry.is_symlink() else entry.is_dir()


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            where = "in a circle" if error.errno == errno.ELOOP else f"to {os.readlink(path)}, which is not there"
            raise DataError(f"the link {path} leads {where}: remove it or correct it") from error
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _place(path: str) -> _Place:
    found = _stat(path)
    return found.st_dev, found.st_ino


def _leads_up(link: str) -> bool:
    """Whether a link to a folder leads to one that the link itself lies in."""
    target, place = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return os.path.commonpath([target, place]) == target
