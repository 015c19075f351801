"""``open_data``: one data set, divided, ready to be loaded. The only door of this room that others use."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bench.config.data import DataSpec
from bench.config.schema import Data, Recipe
from bench.data import splits
from bench.data.catalog import DatasetInfo, dataset_info, find_root
from bench.data.geometry import eval_loader_kind, image_sizes, train_crop, train_loader_kind
from bench.data.mixing import Mixer
from bench.data.opening import open_sources
from bench.data.order import BatchPlan
from bench.data.resident import Normaliser, ResidentEvalLoader, ResidentTrainLoader
from bench.data.sources import Source
from bench.data.transforms import eval_transform, train_transform
from bench.data.workers import WorkerEvalLoader, WorkerTrainLoader
from bench.errors import DataError
from bench.method import Batch

log = logging.getLogger(__name__)


class TrainLoader(Protocol):
    """Training batches of one process.

    epoch(e, start) yields the batches of epoch e from ``start`` on: the same ones, bit for bit, whether reached by
    iteration or by starting there, and for any number of loader processes. A process's batch is its share (every
    ``world``-th sample) of the global batch, which is the same for any number of processes. global_size(step):
    samples of that global batch; only the last one of an epoch may be smaller than ``batch_size``.
    """

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...
    def global_size(self, step: int) -> int: ...


class EvalLoader(Protocol):
    """Clean batches in a fixed order: images [b, 3, H, W] float, labels int64 [b], indices int64 [b], on the device.
    indices count in the file order of the training set (train, val) or the test set. ``len`` counts batches."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]: ...


class DataBundle:
    """A data set with its split and normalisation. Made by ``open_data``."""

    def __init__(self, info: DatasetInfo, sources: tuple[Source, Source], split: splits.Split,
                 mean: tuple[float, ...], std: tuple[float, ...]) -> None:  # fmt: skip
        self.info = info
        self.split = split
        self.mean, self.std = mean, std
        self.class_names = sources[0].class_names
        self.num_classes = len(self.class_names)
        self._sources: dict[str, Source] = {"train": sources[0], "val": sources[0], "test": sources[1]}
        self._resident: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    @property
    def sources(self) -> tuple[Source, Source]:
        """The whole training set, of which the validation part is a part, and the test set."""
        return self._sources["train"], self._sources["test"]

    @property
    def split_hash(self) -> str:
        """sha256 (hex) over data set, counts, validation indices and subsets."""
        return self.split.hash

    @property
    def counts(self) -> dict[str, int]:
        """Images of each part: train, val, test."""
        return self.split.counts

    def spec(self, recipe: Recipe) -> DataSpec:
        """What a network must know. image_size is the side of evaluation images, at which costs are counted too."""
        size = image_sizes(self.info, recipe).crop
        return DataSpec(self.info.name, self.num_classes, size, mean=self.mean, std=self.std)

    def with_normalisation(self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> DataBundle:
        """The same data, sharing memory, normalised otherwise (None: unchanged)."""
        other = copy.copy(self)
        other.mean, other.std = mean or self.mean, std or self.std
        return other

    def save_split(self, folder: str | Path) -> Path:
        """Store the split as ``split-<dataset>-<hash12>.npz``, for ``data.split_file``."""
        return splits.save_split(self.split, folder)

    def check(self, recipe: Recipe, world: int = 1) -> None:
        """Everything about this recipe on this data that can be known before training; raises ConfigError."""
        train_loader_kind(self.info, recipe)
        eval_loader_kind(self.info, recipe)
        self._plan(recipe, seed=0, rank=0, world=world)

    def _plan(self, recipe: Recipe, *, seed: int, rank: int, world: int) -> BatchPlan:
        plan = BatchPlan(len(self.split.train), recipe.batch_size, seed, recipe.drop_last, recipe.ra_reps, rank, world)
        plan.check(self.info.name)
        return plan

    def train_loader(
        self, recipe: Recipe, *, seed: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> TrainLoader:
        """Augmented batches of the training part; order and augmentation are functions of (seed, epoch, sample)."""
        info, source, indices = self.info, self._sources["train"], self.split.train
        plan = self._plan(recipe, seed=seed, rank=rank, world=world)
        mixer = Mixer(recipe, self.num_classes, seed)
        if train_loader_kind(info, recipe) == "workers":
            transform = train_transform(info, recipe, (self.mean, self.std))
            return WorkerTrainLoader(source, indices, plan, transform, mixer, size=image_sizes(info, recipe).train,
                                     workers=recipe.workers, device=device)  # fmt: skip
        pixels, labels = self._on_device(source, device)
        return ResidentTrainLoader(
            pixels, labels, torch.from_numpy(indices).to(device), plan, Normaliser(self.mean, self.std, device), mixer,
            padding=recipe.crop_padding if train_crop(info, recipe) == "pad" else 0,
            hflip_prob=info.hflip_prob if recipe.hflip_prob is None else recipe.hflip_prob,
            random_erase=recipe.random_erase,
        )  # fmt: skip

    def eval_loader(
        self, split: str, recipe: Recipe, *, batch_size: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> EvalLoader:
        """Clean batches of a part: train, val or test. The processes' shares are disjoint and hold it all together."""
        info, source = self.info, self._sources[split]
        indices = getattr(self.split, split)[rank::world]
        if eval_loader_kind(info, recipe) == "workers":
            transform = eval_transform(info, recipe, (self.mean, self.std))
            return WorkerEvalLoader(source, indices, transform, batch_size, size=image_sizes(info, recipe).crop,
                                    workers=recipe.workers, device=device)  # fmt: skip
        pixels, labels = self._on_device(source, device)
        return ResidentEvalLoader(pixels, labels, torch.from_numpy(indices).to(device),
                                  Normaliser(self.mean, self.std, device), batch_size)  # fmt: skip

    def _on_device(self, source: Source, device: torch.device) -> tuple[Tensor, Tensor]:
        """The whole source as uint8 [N, 3, S, S] and its labels, once per device for all loaders of the bundle."""
        place = (id(source), str(device))
        if place not in self._resident:
            pixels = np.ascontiguousarray(source.pixels(self.info.image_size))
            self._resident[place] = torch.from_numpy(pixels).to(device), torch.from_numpy(source.labels).to(device)
        return self._resident[place]


def open_data(
    config: Data, *, protocol: str = "holdout", data_root: str | None = None, allow_download: bool | None = None
) -> DataBundle:
    """Find, read and divide the data of a configuration.

    protocol: ``holdout`` cuts a validation part from the training set, ``published`` does not. data_root wins over
    ``config.root``; allow_download over ``config.download``. Raises ConfigError where the configuration is wrong,
    DataError where files are missing or bad; each says in one line what to do.
    """
    info = dataset_info(config.name)
    download = config.download if allow_download is None else allow_download
    sources = open_sources(info, find_root(config, data_root), download)
    for source, part in zip(sources, ("training", "test")):
        if not len(source):
            raise DataError(f"the {part} part of {info.name} is empty")
    _check_classes(info, config.num_classes, len(sources[0].class_names))
    split = splits.make_split(config, sources[0].labels, sources[1].labels, protocol)
    return DataBundle(info, sources, split, config.mean or info.mean, config.std or info.std)


def _check_classes(info: DatasetInfo, asked: int | None, found: int) -> None:
    """DataError where the classes are not those asked for, or a known data set's. A folder may hold a part of a
    known set's classes: that is another task, which the split's hash and a warning say."""
    if asked is not None and found != asked:
        raise DataError(f"data.num_classes says {asked} classes, but there are {found}")
    if asked is not None or info.num_classes is None or found == info.num_classes:
        return
    if found > info.num_classes or not info.class_folders:
        raise DataError(f"{info.name} has {info.num_classes} classes, but there are {found}")
    log.warning("%s: %d of its %d classes are there; results are not comparable with those of the whole set",
                info.name, found, info.num_classes)  # fmt: skip
