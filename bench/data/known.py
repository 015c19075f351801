"""Whether a data set is the one that its name says: checksums, images that are known to be in it, names of classes."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.data.catalog import DatasetInfo, how_to_get
from bench.data.sources import ArraySource
from bench.errors import DataError

_WNID = re.compile(r"n\d{8}")
#: sha256 over ImageNet-1k's 1000 wnids, sorted, one a line.
_IMAGENET_WNIDS = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


def check_class_names(info: DatasetInfo, names: Sequence[str], folder: Path) -> None:
    """DataError if class folders are not named by the wnids of ImageNet, which say what the classes are: weights that
    were trained elsewhere count them in this order."""
    if info.name not in ("imagenet", "tiny_imagenet"):
        return
    other = next((name for name in names if not _WNID.fullmatch(name)), None)
    if other is not None:
        raise DataError(f"{folder / 'train' / other}: the class folders of {info.name} are named by wnids (n01440764); "
                        "for other names use `name: image_folder`")  # fmt: skip
    whole = len(names) == info.num_classes and info.name == "imagenet"
    if whole and hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest() != _IMAGENET_WNIDS:
        raise DataError(f"the {len(names):,} class folders of {folder / 'train'} are not those of ImageNet-1k; for "
                        "other classes use `name: image_folder`")  # fmt: skip


def check_known_images(info: DatasetInfo, folder: Path, images: np.ndarray, labels: np.ndarray,
                       known: Sequence[ArraySource]) -> None:  # fmt: skip
    """DataError unless all images of ``known`` are among ``images``, with their labels.

    images: uint8 [N, 1, H, W]; labels: int64 [N]. MNIST and others use the same file names as Fashion-MNIST.
    """
    found: dict[bytes, set[int]] = {}
    for image, label in zip(images, labels.tolist()):
        found.setdefault(image_digest(image), set()).add(label)
    wanted = [(image_digest(image), label) for one in known for image, label in zip(one.data, one.labels.tolist())]
    there = [(digest, label) for digest, label in wanted if digest in found]
    right = sum(label in found[digest] for digest, label in there)
    if right == len(wanted):
        return
    raise DataError(f"the files in {folder} are not those of {info.name}, though they have their names, which MNIST "
                    f"uses too: of {len(wanted):,} images that must be there, {len(there):,} are, {right:,} with the "
                    f"right label; {how_to_get(info)}")  # fmt: skip


def image_digest(image: np.ndarray) -> bytes:
    """A short digest of an image's bytes: equal for equal images, and for no others that occur."""
    return hashlib.blake2b(image.tobytes(), digest_size=8).digest()


def check_archives(info: DatasetInfo, folder: Path) -> int:
    """Compare Fashion-MNIST's files with the .gz archives beside them, and those with their checksums. -> how many
    archives there are. DataError that names a file which is not what it should be."""
    count = 0
    for file in (folder / name for name in info.files):
        packed = file.with_name(file.name + ".gz")
        if packed.is_file():
            count += 1
            check_archive(packed)
            if file.is_file() and file.read_bytes() != gzip.decompress(packed.read_bytes()):
                raise DataError(f"{file} is not what {packed} holds: delete it and run `bench data {info.name}` again")
    return count


def check_archive(path: Path) -> None:
    """DataError unless a .gz file is the one of Fashion-MNIST that its name says."""
    from torchvision.datasets import FashionMNIST

    if md5_of(path) != dict(FashionMNIST.resources)[path.name]:
        raise DataError(f"{path} is not Fashion-MNIST's file of this name (wrong checksum; MNIST uses the same names): "
                        "delete it and fetch it again")  # fmt: skip


def md5_of(path: Path) -> str:
    """Of a file's bytes; hex."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
