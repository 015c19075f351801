"""Folders of class folders: image folders, and Tiny ImageNet sorted or as its archive has it."""

import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from data_helpers import CPU, batches, make_folder, open_folder, recipe, refused

from bench.config.schema import Data
from bench.data import missing_files, open_data
from bench.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch):
    monkeypatch.delenv("BENCH_DATA_ROOT", raising=False)


@pytest.fixture(scope="session")
def tiny_root(shared_dir, tmp_path_factory):
    """Ten classes of Tiny ImageNet as an image folder."""
    out = tmp_path_factory.mktemp("tiny")
    with tarfile.open(shared_dir / "data" / "tiny_imagenet" / "tiny_imagenet_10.tar.xz") as archive:
        archive.extractall(out, filter="data")
    return out / "tiny_imagenet_10"


# ---- class folders --------------------------------------------------------------------------------------------
def test_image_folder(tmp_path):
    bundle = open_folder(make_folder(tmp_path))
    assert bundle.counts == {"train": 18, "val": 6, "test": 12}
    assert bundle.class_names == ("ant", "bee", "cat")
    assert bundle.spec(recipe()).image_size == 224
    assert bundle.spec(recipe(train_crop_size=64)).image_size == 64
    assert bundle.spec(recipe(train_crop_size=176, val_crop_size=224)).image_size == 224
    assert bundle.spec(recipe()).num_classes == 3
    assert open_folder(tmp_path, num_classes=3).num_classes == 3


def test_opening_a_folder_opens_no_image(tmp_path, monkeypatch):
    from PIL import Image

    make_folder(tmp_path)

    def fail(*args, **kwargs):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", fail)
    open_folder(tmp_path)
    missing_files("image_folder", tmp_path)


def test_the_order_is_torchvisions(tmp_path):
    from torchvision.datasets import ImageFolder

    bundle = open_folder(make_folder(tmp_path))
    reference = ImageFolder(str(tmp_path / "train"))
    source = bundle._sources["train"]
    assert [(source.where(i), int(source.labels[i])) for i in range(len(source))] == reference.samples


def test_names_with_odd_letters(tmp_path):
    make_folder(tmp_path)
    source = tmp_path / "train" / "ant" / "000.jpg"
    for name in ("ä ö.jpg", "x\udcff.JPG"):
        try:
            shutil.copy(source, tmp_path / "train" / "ant" / name)
        except (OSError, UnicodeError):
            pytest.skip("the file system knows no such names")
    bundle = open_folder(tmp_path)
    assert bundle.counts["train"] == 20
    assert sum(len(batch.labels) for batch in batches(bundle, recipe(train_crop_size=16))) == 20


def break_folder(root: Path, how: str) -> None:
    if how == "no train":
        shutil.rmtree(root / "train")
    elif how == "empty val":
        shutil.rmtree(root / "val")
        (root / "val").mkdir()
    elif how == "other classes":
        (root / "val" / "cat").rename(root / "val" / "dog")
    elif how == "one class less":
        shutil.rmtree(root / "val" / "cat")
    elif how == "empty class":
        for path in (root / "train" / "bee").iterdir():
            path.unlink()
    elif how == "one class":
        for name in ("bee", "cat"):
            shutil.rmtree(root / "train" / name)
    elif how == "flat val":
        for path in sorted((root / "val").rglob("*.jpg")):
            path.rename(root / "val" / f"{path.parent.name}_{path.name}")
        for name in ("ant", "bee", "cat"):
            (root / "val" / name).rmdir()
    elif how == "no classes":
        shutil.rmtree(root / "train")
        (root / "train").mkdir()
        (root / "train" / "readme.txt").touch()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("no train", "there is no {root}/train (class folders)"),
        ("empty val", "there is no {root}/val (class folders)"),
        ("other classes", "the class folders of {root}/val are not those of train: 1 missing (cat), 1 too many (dog)"),
        ("one class less", "the class folders of {root}/val are not those of train: 1 missing (cat)"),
        ("empty class", "no images in {root}/train/bee"),
        ("one class", "only one class folder in {root}/train (ant): there is nothing to tell apart"),
        ("flat val", "12 images lie loose in {root}/val"),
        ("no classes", "no class folders in {root}/train"),
    ],
)
def test_bad_folders(tmp_path, how, text):
    break_folder(make_folder(tmp_path), how)
    message = refused(DataError, name="image_folder", root=str(tmp_path))
    assert text.format(root=tmp_path) in message


def test_class_counts_are_checked(tmp_path, caplog):
    make_folder(tmp_path)
    text = refused(DataError, name="image_folder", root=str(tmp_path), num_classes=4)
    assert text == "data.num_classes says 4 classes, but there are 3"
    make_folder(tmp_path / "imagenet", classes=("n01440764", "n01443537", "n01484850"))
    with caplog.at_level("WARNING"):
        part = open_data(Data(name="imagenet", root=str(tmp_path / "imagenet"), val_size=6))
    assert part.num_classes == 3
    assert "3 of its 1000 classes" in caplog.text
    assert open_data(Data(name="imagenet", root=str(tmp_path / "imagenet"), num_classes=3, val_size=6)).num_classes == 3
    assert refused(DataError, name="synthetic", num_classes=11) == "data.num_classes says 11 classes, but there are 10"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"batch_size": 901}, "recipe.batch_size: a batch of 901 is larger than the training part of synthetic (900"),
        ({"loader": "resident", "train_crop_size": 64}, "recipe.loader: images of 64 instead of 32 pixels needs"),
        ({"loader": "resident", "train_crop": "resized"}, "recipe.loader: train_crop: resized needs loader: workers"),
        ({"val_resize_size": 24}, "recipe.val_resize_size: val_resize_size (24) is smaller than the evaluation crop"),
    ],
)
def test_impossible_recipes(values, text):
    bundle = open_data(Data(name="synthetic"))
    for attempt in (bundle.check, lambda r: bundle.train_loader(r, seed=0, device=CPU)):
        with pytest.raises(ConfigError) as error:
            attempt(recipe(**values))
        assert str(error.value).startswith(text)


def test_large_images_cannot_be_resident(tmp_path):
    bundle = open_folder(make_folder(tmp_path))
    with pytest.raises(ConfigError, match="loader: resident holds small images of one size, not image_folder"):
        bundle.check(recipe(loader="resident"))


# ---- Tiny ImageNet ----------------------------------------------------------------------------------------------
def test_tiny_imagenet(tiny_root):
    data = Data(name="tiny_imagenet", root=str(tiny_root), num_classes=10)
    bundle = open_data(data)
    assert bundle.counts == {"train": 4_500, "val": 500, "test": 500}
    assert bundle.spec(recipe()).image_size == 64
    batch = next(iter(bundle.train_loader(recipe(batch_size=8), seed=0, device=CPU).epoch(0)))
    assert batch.images.shape == (8, 3, 64, 64)
    # The ImageNet path on it: enlarged crops.
    sizes = recipe(train_crop_size=96, val_resize_size=112, val_crop_size=96, batch_size=8, auto_augment="ta_wide")
    assert next(iter(bundle.train_loader(sizes, seed=0, device=CPU).epoch(0))).images.shape == (8, 3, 96, 96)
    assert next(iter(bundle.eval_loader("test", sizes, batch_size=8, device=CPU)))[0].shape == (8, 3, 96, 96)
    text = refused(DataError, name="tiny_imagenet", root=str(tiny_root), num_classes=200)
    assert text == "data.num_classes says 200 classes, but there are 10"


def test_tiny_imagenet_may_be_resident(tiny_root):
    bundle = open_data(Data(name="tiny_imagenet", root=str(tiny_root), num_classes=10))
    r = recipe(batch_size=64, loader="resident", train_crop="pad")
    batch = next(iter(bundle.train_loader(r, seed=0, device=CPU).epoch(0)))
    assert batch.images.shape == (64, 3, 64, 64)
    clean = next(iter(bundle.eval_loader("test", r, batch_size=32, device=CPU)))
    same = next(iter(bundle.eval_loader("test", recipe(), batch_size=32, device=CPU)))
    assert all(torch.equal(a, b) for a, b in zip(clean, same))


def test_tiny_imagenet_as_its_archive_has_it(tiny_root, tmp_path):
    """val/images is flat, a file says the classes; train has one folder more."""
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    (root / "val" / "images").mkdir(parents=True)
    for label in sorted(path.name for path in (tiny_root / "train").iterdir()):
        (root / "train" / label).mkdir(parents=True)
        (root / "train" / label / "images").symlink_to(tiny_root / "train" / label)
        (root / "train" / label / f"{label}_boxes.txt").touch()
        for path in sorted((tiny_root / "val" / label).iterdir())[:5]:
            shutil.copy(path, root / "val" / "images" / path.name)
            lines.append(f"{path.name}\t{label}\t0\t0\t62\t62")
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("\n".join(lines) + "\n")
    data = {"name": "tiny_imagenet", "root": str(tmp_path), "num_classes": 10}
    bundle, sorted_one = open_data(Data(**data)), open_data(Data(**{**data, "root": str(tiny_root)}))
    assert bundle.counts == {"train": 4_500, "val": 500, "test": 50}
    assert bundle.class_names == sorted_one.class_names
    source = bundle._sources["test"]
    for index in range(50):
        path = Path(source.where(index))
        label = source.class_names[source.labels[index]]
        assert (tiny_root / "val" / label / path.name).read_bytes() == path.read_bytes()
    annotations.write_text("\n".join(lines) + "\n", "utf-8-sig")
    assert open_data(Data(**data)).counts == bundle.counts
    annotations.write_text("\n".join(lines) + "\nval_x.JPEG\tn99999999\t0\t0\t1\t1\n")
    assert "line 51" in refused(DataError, **data)
    annotations.write_text("\n".join(lines) + f"\nval_x.JPEG\t{label}\t0\t0\t1\t1\n")
    assert "val_x.JPEG, which is not there" in refused(DataError, **data)
