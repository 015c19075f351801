"""Small image folders and comparisons for the tests of the data room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.config.schema import Data, Recipe
from bench.data import DataBundle, open_data
from bench.data.opening import read_mini

CPU = torch.device("cpu")


def make_folder(root: Path, *, classes: tuple[str, ...] = ("ant", "bee", "cat"), train: int = 8, val: int = 4) -> Path:
    """Class folders of noisy JPEGs of different sizes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                shape = (int(rng.integers(40, 70)), int(rng.integers(40, 70)), 3)
                pixels = rng.integers(0, 128, shape) + 60 * label % 128
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{number:03d}.jpg")
    return root


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as MNIST's files have it."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def fashion_files() -> dict[str, bytes]:
    """Fashion-MNIST's four files, with the embedded images over and over."""
    files = {}
    for source, prefix, count in zip(read_mini(), ("train", "t10k"), (60_000, 10_000)):
        files[f"{prefix}-images-idx3-ubyte"] = idx(np.resize(source.data[:, 0, 2:-2, 2:-2], (count, 28, 28)))
        files[f"{prefix}-labels-idx1-ubyte"] = idx(np.resize(source.labels, count))
    return files


def open_folder(root: Path, **data: Any) -> DataBundle:
    return open_data(Data(name="image_folder", root=str(root), **{"val_size": 6, **data}))


def recipe(**values: Any) -> Recipe:
    return Recipe(**{"batch_size": 4, "workers": 0, **values})


def batches(bundle: DataBundle, recipe: Recipe, epoch: int = 0, start: int = 0, **more: Any) -> list[Any]:
    loader = bundle.train_loader(recipe, **{"seed": 7, "device": CPU, **more})
    return list(loader.epoch(epoch, start))


def same(one: list[Any], two: list[Any]) -> bool:
    """Whether two lists of tuples of tensors are equal bit for bit."""
    return len(one) == len(two) and all(
        len(a) == len(b) and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a, b))
        for a, b in zip(one, two)
    )


def refused(error, **data):
    with pytest.raises(error) as caught:
        open_data(Data(**data))
    assert "\n" not in str(caught.value)
    return str(caught.value)
