"""The data sets: what they are, where their files go, what is missing. Imports neither torch nor torchvision."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench import doors
from bench.config.schema import Data
from bench.data.foreign import check_info

if TYPE_CHECKING:
    from bench.data.sources import ArraySource, FolderSource

ENVIRONMENT = "BENCH_DATA_ROOT"

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DatasetInfo:
    """One data set of `bench list datasets`.

    num_classes: None where the folder decides. image_size: side of the square image a network sees by default.
    one_size: all images are squares of that side. small: and they fit into memory together as a matter of course, so
    that the resident loader is the usual one.
    mean, std: of the training pixels in [0, 1], per channel. hflip_prob: the flip that the recipe's default means.
    train_count, test_count: images of the complete set, None where the folder decides; the "test" part of a
    folder data set is its val/ folder. layout: which files go where. needs_root: reads files of the user's.
    folders: names below the root that are looked into besides the root itself. files: what must be there,
    relative to such a folder; for class folders, ``train`` and ``val``. download: torchvision can fetch it.
    open: for a data set of another package: takes the folder that has the files (None without ``needs_root``) and
    returns training and test images. None: the harness knows how.
    """

    name: str
    description: str
    num_classes: int | None
    image_size: int
    small: bool
    one_size: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    hflip_prob: float
    train_count: int | None
    test_count: int | None
    licence: str
    layout: str
    needs_root: bool = True
    download: bool = False
    folders: tuple[str, ...] = field(default=(), repr=False)
    files: tuple[str, ...] = field(default=(), repr=False)
    open: Callable[[Path | None], tuple[ArraySource | FolderSource, ArraySource | FolderSource]] | None = field(
        default=None, repr=False
    )

    @property
    def class_folders(self) -> bool:
        """Whether the images lie in class folders below train/ and val/."""
        return self.files == ("train", "val") and self.open is None


_CIFAR_NOTE = "No licence is stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009."
_IMAGENET_NOTE = (
    "ImageNet's terms: non-commercial research; cite Russakovsky et al., ImageNet Large Scale Visual Recognition "
    "Challenge, IJCV 2015."
)
_CLASS_FOLDERS = "ROOT/train/CLASS/*.JPEG and ROOT/val/CLASS/*.JPEG, the same class folders in both"
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

_SVHN = DatasetInfo(
    name="svhn",
    description="Street View House Numbers, cropped 32x32 digits, without the extra part.",
    num_classes=10, image_size=32, small=True, one_size=True, hflip_prob=0.0,
    train_count=73_257, test_count=26_032,
    mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970),
    licence="Non-commercial use only; cite Netzer et al., Reading Digits in Natural Images, 2011.",
    layout="train_32x32.mat and test_32x32.mat, in ROOT or ROOT/svhn (reading them needs scipy)",
    download=True, folders=("svhn",), files=("train_32x32.mat", "test_32x32.mat"),
)

_ALL = (
    DatasetInfo(
        name="cifar10",
        description="CIFAR-10: 32x32 colour photographs of 10 classes.",
        num_classes=10, image_size=32, small=True, one_size=True, hflip_prob=0.5,
        train_count=50_000, test_count=10_000,
        mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), licence=_CIFAR_NOTE,
        layout="the folder cifar-10-batches-py of cifar-10-python.tar.gz, in ROOT or ROOT/cifar10",
        download=True, folders=("cifar10",),
        files=tuple(f"cifar-10-batches-py/{name}" for name in (
            *(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")),
    ),
    DatasetInfo(
        name="cifar100",
        description="CIFAR-100: 32x32 colour photographs of 100 classes.",
        num_classes=100, image_size=32, small=True, one_size=True, hflip_prob=0.5,
        train_count=50_000, test_count=10_000,
        mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762), licence=_CIFAR_NOTE,
        layout="the folder cifar-100-python of cifar-100-python.tar.gz, in ROOT or ROOT/cifar100",
        download=True, folders=("cifar100",),
        files=tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
    ),
    _SVHN,
    # Normalised as svhn, by what the train part has, whether or not the extra part is trained on.
    replace(
        _SVHN,
        name="svhn_extra",
        description="Street View House Numbers with the easier extra part: train and extra are the training set.",
        train_count=604_388,
        layout="train_32x32.mat, extra_32x32.mat and test_32x32.mat, in ROOT or ROOT/svhn (reading them needs scipy "
               "and 4 GiB of memory)",
        files=("train_32x32.mat", "extra_32x32.mat", "test_32x32.mat"),
    ),
    DatasetInfo(
        name="fashion_mnist",
        description="Fashion-MNIST: grey 28x28 articles of clothing, zero-padded to 32x32 and three channels.",
        num_classes=10, image_size=32, small=True, one_size=True, hflip_prob=0.5,
        train_count=60_000, test_count=10_000,
        # From the well-known 0.2860 and 0.3530 of the 28x28 pixels: the padding adds 240 zeros to 784 pixels.
        mean=(0.2190, 0.2190, 0.2190), std=(0.3318, 0.3318, 0.3318),
        licence="MIT, Zalando SE; cite Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017.",
        layout="the four *-ubyte files (or their .gz), in ROOT/FashionMNIST/raw or ROOT/fashion_mnist/FashionMNIST/raw",
        download=True, folders=("fashion_mnist",), files=tuple(f"FashionMNIST/raw/{name}" for name in _IDX),
    ),
    DatasetInfo(
        name="tiny_imagenet",
        description="Tiny ImageNet: 200 ImageNet classes at 64x64.",
        num_classes=200, image_size=64, small=False, one_size=True, hflip_prob=0.5,
        train_count=100_000, test_count=10_000,
        mean=IMAGENET_MEAN, std=IMAGENET_STD, licence=_IMAGENET_NOTE,
        layout=f"{_CLASS_FOLDERS}, or as in the official archive (val/images with val/val_annotations.txt); "
               "in ROOT, ROOT/tiny_imagenet or ROOT/tiny-imagenet-200",
        folders=("tiny_imagenet", "tiny-imagenet-200"), files=("train", "val"),
    ),
    DatasetInfo(
        name="imagenet",
        description="ImageNet-1k (ILSVRC 2012); its validation set is the test part here.",
        num_classes=1000, image_size=224, small=False, one_size=False, hflip_prob=0.5,
        train_count=1_281_167, test_count=50_000,
        mean=IMAGENET_MEAN, std=IMAGENET_STD, licence=_IMAGENET_NOTE,
        layout=f"{_CLASS_FOLDERS} (named by wnid), in ROOT or ROOT/imagenet; `bench data imagenet` sorts a flat val/",
        folders=("imagenet",), files=("train", "val"),
    ),
    DatasetInfo(
        name="image_folder",
        description="Your own images in class folders; val/ is the test part.",
        num_classes=None, image_size=224, small=False, one_size=False, hflip_prob=0.5,
        train_count=None, test_count=None,
        mean=IMAGENET_MEAN, std=IMAGENET_STD, licence="As your images have it.", layout=_CLASS_FOLDERS,
        files=("train", "val"),
    ),
    DatasetInfo(
        name="fashion_mnist_mini",
        description="14,000 Fashion-MNIST images that come with the package, zero-padded to 32x32 and three "
                    "channels. Its split is its own: not comparable with published Fashion-MNIST numbers.",
        num_classes=10, image_size=32, small=True, one_size=True, hflip_prob=0.5,
        train_count=12_000, test_count=2_000,
        mean=(0.2188, 0.2188, 0.2188), std=(0.3318, 0.3318, 0.3318),
        licence="MIT, Zalando SE (the text lies beside the images); cite Xiao, Rasul and Vollgraf, 2017.",
        layout="nothing to do: the images are part of the package", needs_root=False,
    ),
    DatasetInfo(
        name="synthetic",
        description="Computed 32x32 patterns, one kind a class. For smoke tests only: no result means anything.",
        num_classes=10, image_size=32, small=True, one_size=True, hflip_prob=0.0,
        train_count=1_000, test_count=500,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), licence="None needed.",
        layout="nothing to do: the images are computed", needs_root=False,
    ),
)  # fmt: skip

#: Ours: name -> DatasetInfo, in the order of `bench list datasets`.
DATASETS: dict[str, DatasetInfo] = {info.name: info for info in _ALL}

#: Those of other packages.
DOOR = doors.Door(doors.DATASETS, "data set", "data.name", DATASETS)


def dataset_names() -> list[str]:
    """Ours, then what other packages register; nothing is imported."""
    return [*DATASETS, *DOOR.names()]


def dataset_info(name: str) -> DatasetInfo:
    """The entry of a name; ConfigError with the nearest known name if there is none, or if it cannot be used."""
    return DATASETS[name] if name in DATASETS else _foreign(name)


@cache
def _foreign(name: str) -> DatasetInfo:
    found = DOOR.load(name)
    try:
        if not isinstance(found, DatasetInfo):
            raise ValueError("is not a bench.data.DatasetInfo")
        check_info(found, name)
    except ValueError as error:
        raise DOOR.wrong(name, str(error)) from None
    return found


def find_root(config: Data, data_root: str | None = None) -> Path | None:
    """The folder that is to hold the data: the argument, else ``data.root``, else $BENCH_DATA_ROOT, else None."""
    for given in (data_root, config.root, os.environ.get(ENVIRONMENT)):
        if given:
            return Path(given).expanduser()
    return None


def data_folder(name: str, root: str | Path) -> Path:
    """Where below the root the data lies: the first candidate that has any of it, else the root itself."""
    info = dataset_info(name)
    root = Path(root)
    tops = {file.split("/")[0] for file in info.files}
    for folder in (root, *(root / below for below in info.folders)):
        if any((folder / top).exists() for top in tops):
            return folder
    return root


def missing_files(name: str, root: str | Path | None) -> list[str]:
    """What of the data set is absent, as paths; empty if all is there. Opens no file of the data itself."""
    info = dataset_info(name)
    if not info.needs_root:
        return []
    if root is None:
        return [f"the data folder of {name} (data.root, --data-root or {ENVIRONMENT})"]
    if not Path(root).is_dir():
        return [f"{root} (a folder)"]
    folder = data_folder(name, root)
    if info.class_folders:
        return [f"{folder / part} (class folders)" for part in info.files if not _has_entries(folder / part)]
    return [str(folder / file) for file in info.files if not (folder / file).is_file()]


def how_to_get(info: DatasetInfo) -> str:
    """The end of a message about missing data: what the user can do."""
    fetch = f"fetch it with `bench data {info.name} --download` or data.download: true, or " if info.download else ""
    return f"{fetch}put there: {info.layout}"


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except OSError:
        return False
