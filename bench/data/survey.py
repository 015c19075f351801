"""What `bench data` finds out about the images: whether all can be read, of what kinds they are, which are alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from bench.config.schema import Data
from bench.data.known import image_digest
from bench.data.pictures import Facts, examine_image
from bench.data.sources import ArraySource, FolderSource, Source
from bench.data.splits import make_split
from bench.errors import ConfigError, DataError

Progress = Callable[[int, int], None]
_WINDOW = 4096  # images in flight: a future for each of a million would fill the memory


def survey(name: str, train: Source, test: Source, progress: Progress | None = None) -> list[str]:
    """Lines about every image of a data set: what was left out, kinds, duplicates across train, validation and test.

    The images of folders are decoded, and progress(done, total) is called with each. Raises DataError that counts and
    names those that cannot be read.
    """
    lines: list[str] = []
    if isinstance(train, FolderSource) and isinstance(test, FolderSource):
        for part, source in (("train", train), ("val", test)):
            if str(source.left_out):
                lines.append(f"left out of {part}/: {source.left_out}")
        found = _decode(train, test, progress)
        lines += found.lines()
        digests = np.frombuffer(b"".join(found.digests), dtype=np.uint64)
    elif isinstance(train, ArraySource) and isinstance(test, ArraySource):
        digests = np.frombuffer(b"".join(image_digest(image) for one in (train, test) for image in one.data), np.uint64)
    else:
        return lines
    return [*lines, _duplicates(name, train, test, digests)]


@dataclass
class _Found:
    """Sums over the facts of all images."""

    modes: Counter[str]
    sides: tuple[int, int]
    notes: Counter[str]
    digests: list[bytes]

    def add(self, facts: Facts) -> None:
        self.modes[facts.mode] += 1
        self.sides = min(self.sides[0], *facts.size), max(self.sides[1], *facts.size)
        self.notes[_ROTATED] += facts.rotated
        self.notes[_TRANSPARENT] += facts.transparent
        self.notes[_FRAMES] += facts.frames
        self.digests.append(facts.digest)

    def lines(self) -> list[str]:
        modes = ", ".join(f"{count:,} {mode}" for mode, count in self.modes.most_common())
        lines = [f"decoded {len(self.digests):,} images: all readable",
                 f"modes: {modes}; sides of {self.sides[0]:,} to {self.sides[1]:,} pixels"]  # fmt: skip
        return lines + [f"{count:,} {note}" for note, count in self.notes.items() if count]


_ROTATED = "with an EXIF rotation, which is not applied (as in torchvision)"
_TRANSPARENT = "with transparency, which is dropped: the colour under it counts (as in torchvision)"
_FRAMES = "with several frames or pages: the first is read"


def _decode(train: FolderSource, test: FolderSource, progress: Progress | None) -> _Found:
    """Decode every image; DataError with the bad ones. Threads do: Pillow's decoders let go of the interpreter."""
    total = len(train) + len(test)
    found, bad = _Found(Counter(), (2**62, 0), Counter(), []), []
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(_examined(pool, (train, test)), 1):
            if isinstance(result, Facts):
                found.add(result)
            else:
                bad.append(result)
            if progress:
                progress(done, total)
    if bad:
        shown = "; ".join(bad[:10]) + ("; ..." if len(bad) > 10 else "")
        raise DataError(f"{len(bad)} of {total:,} images cannot be read: {shown}")
    return found


def _examined(pool: ThreadPoolExecutor, sources: tuple[FolderSource, ...]) -> Iterator[Facts | str]:
    for source in sources:
        for start in range(0, len(source), _WINDOW):
            window = range(start, min(start + _WINDOW, len(source)))
            yield from pool.map(_examine, [source.where(index) for index in window])


def _examine(path: str) -> Facts | str:
    try:
        return examine_image(path)
    except DataError as error:
        return str(error).removeprefix("cannot read image ")


def _duplicates(name: str, train: Source, test: Source, digests: np.ndarray) -> str:
    """Images of the same content: across the parts, within them, under different classes."""
    ours, theirs = digests[: len(train)], digests[len(train) :]
    said = []
    shared = np.flatnonzero(np.isin(theirs, ours))
    if len(shared):
        twin = int(np.flatnonzero(ours == theirs[shared[0]])[0])
        said.append(f"{len(shared):,} of the test part are in the training set too ({test.where(int(shared[0]))} is "
                    f"{train.where(twin)})")  # fmt: skip
    with suppress(ConfigError):  # too few images to cut a validation part
        split = make_split(Data(name=name), train.labels, test.labels, "holdout")
        both = int(np.isin(ours[split.val], ours[split.train]).sum())
        if both:
            said.append(f"{both:,} of the validation part (default split) are trained on too")
    for part, own in (("training set", ours), ("test part", theirs)):
        further = len(own) - len(np.unique(own))
        if further:
            said.append(f"{further:,} further {'copy' if further == 1 else 'copies'} within the {part}")
    pairs = np.unique(np.stack([digests, np.concatenate([train.labels, test.labels]).astype(np.uint64)], 1), axis=0)
    ambiguous = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    if ambiguous:
        said.append(f"{ambiguous:,} {'image is' if ambiguous == 1 else 'images are'} in several classes")
    return f"duplicates (equal bytes): {'; '.join(said) or 'none'}"
