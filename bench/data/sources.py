"""Where images come from: arrays in memory or files in class folders, behind one small interface.

A source knows labels, class names and one image at a time; it opens no image file before it is asked to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from bench.data.pictures import read_image
from bench.errors import ConfigError, DataError

#: What counts as an image file in a class folder (torchvision's list).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

#: Image formats that are not read, so that a class which lacks some of its images does not go unnoticed.
_UNREAD = (".apng", ".avif", ".dcm", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".npy", ".tga")


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


@dataclass
class LeftOut:
    """What a scan passed over. extensions: files per ending ('' for none); hidden: files and folders, whatever hidden
    folders hold; links: links to images or folders that are counted under their own name."""

    extensions: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    links: int = 0

    def __str__(self) -> str:
        """'12 .gif, 3 .txt, 2 hidden, 1 link to images counted elsewhere', or ''."""
        kinds = sorted(self.extensions.items(), key=lambda item: (-item[1], item[0]))
        said = [f"{count:,} {ending or 'without an extension'}" for ending, count in kinds]
        if self.hidden:
            said.append(f"{self.hidden:,} hidden")
        if self.links:
            said.append(f"{self.links:,} {'link' if self.links == 1 else 'links'} to images counted elsewhere")
        return ", ".join(said)

    def images(self) -> str:
        """The same for image formats that are not read: '12 .gif', or ''."""
        return str(LeftOut(Counter({ending: n for ending, n in self.extensions.items() if ending in _UNREAD})))


class FolderSource:
    """Image files with a label each. The paths are kept as one block of bytes: millions of Python strings
    would be copied into every worker process, page by page, as their reference counts change. left_out: what the
    scan of the folders passed over."""

    def __init__(
        self, paths: Sequence[str], labels: Sequence[int] | np.ndarray, class_names: Sequence[str],
        left_out: LeftOut | None = None,
    ) -> None:  # fmt: skip
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_names = tuple(class_names)
        self.left_out = left_out or LeftOut()

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
