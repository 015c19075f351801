"""Where images come from: arrays in memory or files in class folders, behind one small interface.

A source knows labels, class names and one image at a time; it opens no image file before it is asked to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from bench.errors import ConfigError, DataError

#: What counts as an image file in a class folder (torchvision's list).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Source(Protocol):
    """The training or test images of a data set, in a fixed order.

    labels: int64 [N]. class_names: one per class. image(i): the RGB picture, or DataError naming the file.
    where(i): how a message names image i. pixels(size): all of it as uint8 [N, 3, size, size].
    """

    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...
    def image(self, index: int) -> Image.Image: ...
    def where(self, index: int) -> str: ...
    def pixels(self, size: int) -> np.ndarray: ...


@dataclass
class ArraySource:
    """Images that lie in memory. data: uint8 [N, 3, H, W]; grey ones [N, 1, H, W] are seen as three channels."""

    name: str
    data: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        picture = self.data[index].transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3))))

    def where(self, index: int) -> str:
        return f"{self.name} image {index}"

    def pixels(self, size: int) -> np.ndarray:
        if self.data.shape[2:] != (size, size):
            raise DataError(f"{self.name}: images of {self.data.shape[2:]} instead of {size} pixels")
        return self.data if self.data.shape[1] == 3 else np.repeat(self.data, 3, axis=1)


class FolderSource:
    """Image files with a label each. The paths are kept as one block of bytes: millions of Python strings
    would be copied into every worker process, page by page, as their reference counts change."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int] | np.ndarray, class_names: Sequence[str]) -> None:
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].tobytes().decode("utf-8", "surrogateescape")

    def image(self, index: int) -> Image.Image:
        return read_image(self.where(index))

    def pixels(self, size: int) -> np.ndarray:
        out = np.empty((len(self), 3, size, size), dtype=np.uint8)
        for index in range(len(self)):
            picture = self.image(index)
            if picture.size != (size, size):
                raise ConfigError(f"loader: resident needs images of {size}x{size}; {self.where(index)} is "
                                  f"{picture.size[0]}x{picture.size[1]}", where="recipe.loader")  # fmt: skip
            out[index] = np.asarray(picture).transpose(2, 0, 1)
        return out


def read_image(path: str | Path) -> Image.Image:
    """A file as an RGB picture, fully decoded; DataError that names the file and the cause."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"cannot read image {path}: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image, or one of an unknown format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def scan_folder(folder: Path, classes: Sequence[str] | None = None) -> FolderSource:
    """Images below ``folder`` in class folders, in torchvision's order (classes, then paths, sorted).

    classes: the classes that must be there; default: as found. Raises DataError where a class is empty.
    """
    from torchvision.datasets.folder import make_dataset

    found, loose = class_folders(folder), loose_images(folder)
    if loose:
        raise DataError(f"{len(loose)} images lie loose in {folder} instead of in class folders (the first: "
                        f"{loose[0]}); `bench data imagenet` sorts the flat validation set of ImageNet")  # fmt: skip
    if not found:
        raise DataError(f"no class folders in {folder}: put the images of each class into a folder of its own")
    names = list(classes) if classes is not None else found
    if found != names:
        raise DataError(f"class folders of {folder} differ: " + difference(found, names))
    index = {name: number for number, name in enumerate(names)}
    samples = make_dataset(str(folder), index, extensions=EXTENSIONS, allow_empty=True)
    source = FolderSource([path for path, _ in samples], [label for _, label in samples], names)
    empty = np.flatnonzero(np.bincount(source.labels, minlength=len(names)) == 0)
    if len(empty):
        more = f" and {len(empty) - 1} more class folders" if len(empty) > 1 else ""
        raise DataError(f"no images in {folder / names[empty[0]]}{more} (looked for {', '.join(EXTENSIONS)})")
    return source


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted; hidden ones do not count. DataError if the folder cannot be read."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error


def loose_images(folder: Path) -> list[str]:
    """Names of image files that lie directly in a folder, sorted."""
    return sorted(entry.name for entry in folder.iterdir() if entry.name.lower().endswith(EXTENSIONS))


def difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """'2 missing (a, b), 1 more (c)': how found class folders differ from the expected ones."""
    parts = []
    for label, names in (("missing", set(expected) - set(found)), ("too many", set(found) - set(expected))):
        if names:
            some = sorted(names)
            parts.append(f"{len(some)} {label} ({', '.join(some[:3])}{', ...' if len(some) > 3 else ''})")
    return ", ".join(parts)
