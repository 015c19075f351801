"""`bench data NAME`: putting in order, verifying, counting."""

import gzip
import io
import json
import os
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from data_helpers import fashion_files, make_folder
from torchvision.datasets import FashionMNIST

from bench.config.schema import Data
from bench.data import open_data
from bench.data.known import md5_of
from bench.data.prepare import prepare
from bench.data.sorting import GROUND_TRUTH
from bench.errors import ConfigError, DataError

# Class numbers of the devkit do not follow the wnids' order, in ImageNet as here.
WNIDS = ("n03000000", "n01000000", "n02000000")
COUNT = 12


@pytest.fixture
def imagenet(tmp_path):
    """train/ in class folders and val/ flat, with ImageNet's names. -> root, the right class of each image."""
    root = make_folder(tmp_path / "imagenet", classes=WNIDS, val=COUNT // 3)
    images = sorted((root / "val").rglob("*.jpg"))
    random.Random(0).shuffle(images)
    truth = {}
    for number, path in enumerate(images, 1):
        truth[f"ILSVRC2012_val_{number:08d}.JPEG"] = path.parent.name
        path.rename(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for name in WNIDS:
        (root / "val" / name).rmdir()
    return root, truth


def devkit(folder: Path, truth: dict[str, str], synsets: str | None = None) -> Path:
    (folder / "data").mkdir(parents=True)
    lines = [str(WNIDS.index(truth[name]) + 1) for name in sorted(truth)]
    (folder / "data" / GROUND_TRUTH).write_text("\n".join(lines) + "\n")
    (folder / "data" / "synsets.txt").write_text("\n".join(WNIDS) if synsets is None else synsets)
    return folder


def layout(root: Path) -> dict[str, str]:
    return {path.name: path.parent.name for path in (root / "val").rglob("*.JPEG")}


def run(root, **more):
    return prepare("imagenet", root, **{"download": False, "num_classes": 3, **more})


def refused(root, error=DataError, **more):
    before = sorted(path for path in root.rglob("*"))
    with pytest.raises(error) as caught:
        run(root, **more)
    assert "\n" not in str(caught.value)
    assert sorted(path for path in root.rglob("*")) == before, "something was moved"
    return str(caught.value)


@pytest.mark.parametrize("place", ["inside", "beside", "archive", "given", "given file"])
def test_the_devkit_sorts_the_validation_folder(imagenet, tmp_path, place):
    root, truth = imagenet
    where = {"inside": root, "beside": tmp_path, "archive": tmp_path / "x", "given": tmp_path / "y"}.get(
        place, tmp_path / "z")  # fmt: skip
    kit = devkit(where / "ILSVRC2012_devkit_t12", truth)
    more = {}
    if place == "archive":
        with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
            archive.add(kit, "ILSVRC2012_devkit_t12")
    elif place == "given":
        more["val_map"] = kit
    elif place == "given file":
        more["val_map"] = kit / "data" / GROUND_TRUTH
    lines = run(root, **more)
    assert "sorted 12 validation images into class folders" in lines
    assert "decoded 36 images: all readable" in lines
    assert layout(root) == truth
    assert not any("sorted" in line for line in run(root, **more))  # idempotent
    assert open_data(Data(name="imagenet", root=str(root), num_classes=3, val_size=3)).counts["test"] == 12


@pytest.mark.parametrize(
    "write",
    [
        lambda truth: "".join(f"{name} {label}\n" for name, label in truth.items()),
        lambda truth: "".join(f"{Path(name).stem}\t{label}\n\n" for name, label in truth.items()),
        lambda truth: "".join(f"val/{name},{label}\n" for name, label in truth.items()),
        # As a well-known competition ships it: headings, no extension, boxes behind the class.
        lambda truth: "ImageId,PredictionString\n" + "".join(
            f"{Path(name).stem},{label} 85 1 499 272 \n" for name, label in truth.items()),
    ],
)  # fmt: skip
def test_a_mapping_file_sorts_too(imagenet, tmp_path, write):
    root, truth = imagenet
    (tmp_path / "map.txt").write_text(write(truth))
    run(root, val_map=tmp_path / "map.txt")
    assert layout(root) == truth


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])  # Notepad, PowerShell
@pytest.mark.parametrize("where", ["mapping", "ground truth", "synsets"])
def test_a_byte_order_mark_is_no_text(imagenet, tmp_path, where, encoding):
    root, truth = imagenet
    if where == "mapping":
        lines = "".join(f"{name} {label}\n" for name, label in truth.items())
        (tmp_path / "map.txt").write_text(lines, encoding)
        run(root, val_map=tmp_path / "map.txt")
    else:
        kit = devkit(root / "devkit", truth) / "data"
        file = kit / ("synsets.txt" if where == "synsets" else GROUND_TRUTH)
        file.write_text(file.read_text(), encoding)
        run(root)
    assert layout(root) == truth


def test_a_mapping_that_is_not_text_is_one_line(imagenet, tmp_path):
    root, _ = imagenet
    given = tmp_path / "map.txt"
    given.write_bytes(b"a.JPEG n01000000\ncaf\xe9.JPEG n01000000\n")
    assert refused(root, val_map=given) == f"{given}: line 2 is not UTF-8 text: save the file as UTF-8"
    given.unlink()
    os.mkfifo(given)
    assert refused(root, val_map=given) == f"cannot read {given}: a pipe or a device, not a file"
    kit = devkit(root / "devkit", truth=imagenet[1]) / "data"
    (kit / GROUND_TRUTH).write_bytes(b"\xff\xfe\xff")
    assert "is not UTF-8 text" in refused(root)


def test_sorting_goes_on_where_it_stopped(imagenet, tmp_path, monkeypatch):
    root, truth = imagenet
    devkit(root / "devkit", truth)
    rename, calls = os.rename, []

    def fail(source, target):
        calls.append(source)
        if len(calls) == 6:
            raise OSError(5, "Input/output error", str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(DataError, match="the same command goes on"):
        run(root)
    monkeypatch.undo()
    assert len([path for path in (root / "val").iterdir() if path.is_file()]) == 7
    with pytest.raises(DataError, match=r"7 images lie loose in .*bench data imagenet"):
        open_data(Data(name="imagenet", root=str(root), num_classes=3))
    assert "sorted 7 validation images into class folders" in run(root)
    assert layout(root) == truth


def test_without_a_devkit_it_says_what_is_needed(imagenet):
    root, _ = imagenet
    text = refused(root)
    assert f"{root / 'val'} is not sorted into class folders and no devkit is there" in text
    assert "ILSVRC2012_devkit_t12.tar.gz" in text
    assert "no-such-map" in refused(root, ConfigError, val_map=root / "no-such-map")


def test_a_wrong_map_moves_nothing(imagenet, tmp_path):
    root, truth = imagenet
    names = sorted(truth)
    given = tmp_path / "map.txt"
    given.write_text("".join(f"{name} {truth[name]}\n" for name in names[1:]))
    assert f"says nothing about {root / 'val' / names[0]}; nothing was moved" in refused(root, val_map=given)
    given.write_text("".join(f"{name} n09999999\n" for name in names))
    assert "into class n09999999, which train/ does not have" in refused(root, val_map=given)
    given.write_text(f"{names[0]}\n")
    assert f"{given}, line 1: expected 'image class'" in refused(root, val_map=given)
    given.write_text(f"{names[0]} {WNIDS[0]}\n{names[0]} {WNIDS[1]}\n")
    assert f"line 2: {names[0]} is already of class {WNIDS[0]}" in refused(root, val_map=given)
    given.write_text("".join(f"{name} {truth[name]}\n" for name in names))
    (root / "val" / truth[names[0]]).mkdir()
    shutil.copy(root / "val" / names[0], root / "val" / truth[names[0]] / names[0])
    assert f"{names[0]} lies both in" in refused(root, val_map=given)


def test_a_list_in_the_order_of_the_folders_is_not_the_devkits(imagenet, tmp_path):
    """The trap of ImageNet: frameworks number the classes by sorted wnid, the devkit does not."""
    root, truth = imagenet
    devkit(root / "devkit", truth, synsets="\n".join(sorted(WNIDS)))
    assert "sorted by wnid, which is not the order of the devkit's class numbers" in refused(root)
    numbered = "".join(f"{WNIDS.index(w) + 1} {w} a name\n" for w in sorted(WNIDS))
    (root / "devkit" / "data" / "synsets.txt").write_text(numbered)
    run(root)
    assert layout(root) == truth


def test_meta_mat(imagenet, monkeypatch):
    root, truth = imagenet
    kit = devkit(root / "devkit", truth)
    (kit / "data" / "synsets.txt").unlink()
    assert "neither meta.mat nor synsets.txt" in refused(root)
    scipy_io = pytest.importorskip("scipy.io")
    rows = np.array([(n, w, 0) for n, w in enumerate(WNIDS, 1)] + [(4, "n00000001", 3)],
                    dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])  # fmt: skip
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {"synsets": rows})
    (kit / "data" / "meta.mat").write_bytes(buffer.getvalue())
    run(root)
    assert layout(root) == truth


def test_meta_mat_without_scipy_names_the_extra(imagenet, monkeypatch):
    import sys

    root, truth = imagenet
    kit = devkit(root / "devkit", truth)
    (kit / "data" / "synsets.txt").rename(kit / "data" / "meta.mat")
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert "install depthbench[svhn]" in refused(root)


def test_unreadable_images_are_counted_and_named(imagenet):
    root, truth = imagenet
    devkit(root / "devkit", truth)
    run(root)
    for part, keep in (("train", 200), ("val", 0)):
        victim = sorted((root / part / WNIDS[0]).iterdir())[1]
        victim.write_bytes(victim.read_bytes()[:keep])
    seen = []
    with pytest.raises(DataError) as error:
        run(root, progress=lambda done, total: seen.append((done, total)))
    assert str(error.value).startswith("2 of 36 images cannot be read: ")
    assert str(victim) in str(error.value)
    assert seen == [(n, 36) for n in range(1, 37)]


def test_class_and_image_counts_are_reported(imagenet):
    root, truth = imagenet
    devkit(root / "devkit", truth)
    with pytest.raises(DataError, match="imagenet should have 1000 classes, found 3"):
        run(root, num_classes=None)
    lines = run(root)
    assert "classes: 3" in lines
    assert "train: 24 images, 8 to 8 a class (the complete set has 1,281,167)" in lines


def test_embedded_data_are_ready_at_once():
    lines = prepare("fashion_mnist_mini", None, download=False)
    assert "train: 12,000 images, 1,200 to 1,200 a class" in lines
    assert any("not comparable" in line for line in lines)
    assert json.dumps(lines)


def test_missing_data_say_what_to_put_where(tmp_path):
    with pytest.raises(ConfigError, match="cifar10 needs a folder"):
        prepare("cifar10", None, download=False)
    with pytest.raises(DataError, match=r"there is no .*data_batch_1 and 6 more; fetch it with"):
        prepare("cifar10", tmp_path, download=False)
    with pytest.raises(DataError, match="imagenet cannot be fetched"):
        prepare("imagenet", tmp_path, download=True)
    with pytest.raises(ConfigError, match="did you mean 'imagenet'"):
        prepare("imagnet", tmp_path, download=False)


def test_an_archive_is_unpacked(cifar_root, tmp_path):
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=0) as file:
        file.add(cifar_root / "cifar-100-python", "cifar-100-python")
        file.add(cifar_root / "cifar-100-python" / "meta", "../outside")
    lines = prepare("cifar100", tmp_path, download=False)
    assert f"unpacked {archive}" in lines
    assert "test: 10,000 images, 100 to 100 a class" in lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-100-python", "cifar-100-python.tar.gz"]
    assert not (tmp_path.parent / "outside").exists()


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Fashion-MNIST's archives, with contents of ours and their checksums. -> the folder."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in fashion_files().items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(content, 0))
    monkeypatch.setattr(FashionMNIST, "resources", [(path.name, md5_of(path)) for path in raw.iterdir()])
    return raw


def test_packed_idx_files_are_unpacked(packed, tmp_path):
    lines = prepare("fashion_mnist", tmp_path, download=False)
    assert "train: 60,000 images, 6,000 to 6,000 a class" in lines
    assert "verified: the files are those of the published archives (MD5)" in lines
    file = packed / "train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # one bit, of an image that is there four times more
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{file} is not what .*gz holds"):
        prepare("fashion_mnist", tmp_path, download=False)


def test_a_damaged_archive_is_not_unpacked(packed, tmp_path, monkeypatch):
    broken = packed / "t10k-labels-idx1-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError, match=f"{broken} is not Fashion-MNIST's file of this name"):
        prepare("fashion_mnist", tmp_path, download=False)
    monkeypatch.setattr(FashionMNIST, "resources", [(path.name, md5_of(path)) for path in packed.glob("*.gz")])
    with pytest.raises(DataError, match="cannot unpack"):
        prepare("fashion_mnist", tmp_path, download=False)
    assert not [path for path in packed.iterdir() if path.name.startswith(".")]
