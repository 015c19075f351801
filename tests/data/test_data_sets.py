"""The catalogue, and every data set as its files lie on a disk; what is wrong with them is said in one line."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import CPU, fashion_files, idx, make_folder, recipe, refused

from bench.config.schema import Data
from bench.data import DATASETS, find_root, missing_files, open_data
from bench.data.catalog import data_folder
from bench.data.opening import ASSETS, read_mini
from bench.errors import ConfigError, DataError

NAMES = ["cifar10", "cifar100", "svhn", "svhn_extra", "fashion_mnist", "tiny_imagenet", "imagenet", "image_folder",
         "fashion_mnist_mini", "synthetic"]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch):
    monkeypatch.delenv("BENCH_DATA_ROOT", raising=False)


def mean_and_std(pixels):
    """Of bytes as numbers in [0, 1], to four digits."""
    share = np.bincount(pixels.reshape(-1), minlength=256) / pixels.size
    value = np.arange(256) / 255
    mean = (share * value).sum()
    return round(mean, 4), round(((share * value**2).sum() - mean**2) ** 0.5, 4)


# ---- the catalogue --------------------------------------------------------------------------------------------
def test_the_catalogue_is_complete():
    assert list(DATASETS) == NAMES
    for name, info in DATASETS.items():
        assert info.name == name
        assert info.description
        assert info.layout
        assert info.licence
        assert len(info.mean) == len(info.std) == 3
        assert min(info.std) > 0


def test_the_catalogue_needs_no_torch():
    code = (
        "import sys; from bench.data import DATASETS, find_root, missing_files; from bench.config.schema import Data;"
        "find_root(Data(name='cifar10'), None); missing_files('imagenet', '.');"
        "import bench.data.geometry, bench.data.splits; print('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_an_unknown_name_gets_a_suggestion():
    text = refused(ConfigError, name="cifar-10")
    assert text == "data.name: unknown data set 'cifar-10'; did you mean 'cifar10'?"


def test_who_says_where_the_data_is(monkeypatch):
    given = Data(name="cifar10", root="from_config")
    assert find_root(Data(name="cifar10"), None) is None
    monkeypatch.setenv("BENCH_DATA_ROOT", "from_environment")
    assert find_root(Data(name="cifar10"), None) == Path("from_environment")
    assert find_root(given, None) == Path("from_config")
    assert find_root(given, "from_argument") == Path("from_argument")


def test_missing_files_are_named(tmp_path):
    assert missing_files("synthetic", None) == []
    assert missing_files("cifar10", None) == ["the data folder of cifar10 (data.root, --data-root or BENCH_DATA_ROOT)"]
    assert missing_files("cifar10", tmp_path / "no") == [f"{tmp_path / 'no'} (a folder)"]
    batches = tmp_path / "cifar10" / "cifar-10-batches-py"
    assert len(missing_files("cifar10", tmp_path)) == 7
    batches.mkdir(parents=True)
    for number in range(1, 6):
        (batches / f"data_batch_{number}").touch()
    assert missing_files("cifar10", tmp_path) == [str(batches / "test_batch"), str(batches / "batches.meta")]
    assert data_folder("cifar10", tmp_path) == tmp_path / "cifar10"
    (tmp_path / "imagenet" / "train" / "n01440764").mkdir(parents=True)
    (tmp_path / "imagenet" / "val").mkdir()
    assert missing_files("imagenet", tmp_path) == [f"{tmp_path / 'imagenet' / 'val'} (class folders)"]


@pytest.mark.parametrize("name", [name for name in NAMES if DATASETS[name].needs_root])
def test_absent_data_say_what_to_put_where(tmp_path, name):
    text = refused(ConfigError, name=name)
    assert text.startswith(f"data.root: {name} needs a folder")
    assert DATASETS[name].layout in text
    text = refused(DataError, name=name, root=str(tmp_path))
    assert str(tmp_path) in text
    assert DATASETS[name].layout in text


# ---- the embedded images --------------------------------------------------------------------------------------
def test_the_embedded_images_are_what_the_manifest_says():
    facts = json.loads((ASSETS / "fashion_mnist_mini.json").read_text())
    for name, digest in facts["sha256"].items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 6 * 2**20
    assert "MIT" in (ASSETS / "LICENSE-fashion-mnist").read_text()
    train, test = read_mini()
    assert np.bincount(train.labels).tolist() == [1200] * 10
    assert np.bincount(test.labels).tolist() == [200] * 10
    pixels = train.pixels(32)
    assert pixels.shape == (12_000, 3, 32, 32)
    assert (pixels[:, 0] == pixels[:, 2]).all()
    assert not pixels[:, :, :2].any()
    assert not pixels[:, :, :, -2:].any()
    info = DATASETS["fashion_mnist_mini"]
    measured = mean_and_std(train.data)
    assert measured == (info.mean[0], info.std[0]) == (facts["mean_padded_train"], facts["std_padded_train"])
    # No image stands in both parts.
    digests = [{hashlib.md5(image.tobytes()).digest() for image in source.data} for source in (train, test)]
    assert not digests[0] & digests[1]


def test_the_embedded_images_are_made_again_byte_for_byte(shared_dir, repo_root):
    script = repo_root / "scripts" / "make_fashion_mnist_mini.py"
    command = [sys.executable, str(script), "--check", "--source", str(shared_dir / "data" / "fashion_mnist")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_embedded_images_open_without_any_folder():
    bundle = open_data(Data(name="fashion_mnist_mini"))
    assert bundle.counts == {"train": 10_800, "val": 1_200, "test": 2_000}
    assert bundle.class_names[9] == "Ankle boot"
    images, labels, _ = next(iter(bundle.eval_loader("train", recipe(), batch_size=2_000, device=CPU)))
    assert images.shape == (2_000, 3, 32, 32)
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02
    # Trousers (1) are narrow and sneakers (7) low: labels and pictures belong together.
    width = (images[:, 0] > 0).any(1).sum(1).float()
    assert width[labels == 1].mean() + 8 < width[labels == 7].mean()


def test_synthetic_images_can_be_learned():
    """A nearest-mean rule in the Fourier plane: far above chance, and deterministic."""
    one, two = open_data(Data(name="synthetic")), open_data(Data(name="synthetic"))
    assert one.split_hash == two.split_hash
    features, labels = {}, {}
    for part in ("train", "test"):
        images, labels[part], _ = next(iter(one.eval_loader(part, recipe(), batch_size=1000, device=CPU)))
        again = next(iter(two.eval_loader(part, recipe(), batch_size=1000, device=CPU)))[0]
        assert torch.equal(images, again)
        features[part] = torch.fft.rfft2(images.mean(1)).abs().flatten(1)
    means = torch.stack([features["train"][labels["train"] == c].mean(0) for c in range(10)])
    hits = (torch.cdist(features["test"], means).argmin(1) == labels["test"]).float().mean()
    assert hits > 0.9


# ---- CIFAR ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(cifar_root, name, classes):
    bundle = open_data(Data(name=name), data_root=str(cifar_root))
    assert bundle.counts == {"train": 45_000, "val": 5_000, "test": 10_000}
    assert bundle.num_classes == len(bundle.class_names) == classes
    assert bundle.spec(recipe()).image_size == 32
    labels = bundle._sources["train"].labels
    assert np.bincount(labels[bundle.split.val]).tolist() == [5_000 // classes] * classes
    for channel in range(3):
        measured = mean_and_std(bundle._sources["train"].data[:, channel])
        assert measured == (bundle.info.mean[channel], bundle.info.std[channel])
    assert bundle.split_hash == CIFAR_HASH[name]
    batch = next(iter(bundle.train_loader(recipe(batch_size=128), seed=0, device=CPU).epoch(0)))
    assert batch.images.shape == (128, 3, 32, 32)


# The split of the default configuration: every comparison on CIFAR is made on it.
CIFAR_HASH = {"cifar10": "ce9b15927831fda5cbbd54633c2192ade15ab5b47864a21b8330e26d035fba7b",
              "cifar100": "f550945e26cf05a37e903b448cc48a6b7d91453b993546442b6469d1eee0386b"}


def test_cifar_in_a_folder_of_its_name(cifar_root, tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-batches-py").symlink_to(cifar_root / "cifar-10-batches-py")
    bundle = open_data(Data(name="cifar10", root=str(tmp_path), train_subset=10, val_size=10, test_subset=10))
    assert bundle.counts == {"train": 10, "val": 10, "test": 10}


def test_a_damaged_cifar_file_is_named(cifar_root, tmp_path):
    folder = tmp_path / "cifar-100-python"
    shutil.copytree(cifar_root / "cifar-100-python", folder)
    with open(folder / "test", "r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    assert refused(DataError, name="cifar100", root=str(tmp_path)).startswith(f"{folder / 'test'} is damaged")


# ---- the others of torchvision --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fashion_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fashion")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in fashion_files().items():
        (raw / name).write_bytes(content)
    return root


def test_fashion_mnist(fashion_root):
    bundle = open_data(Data(name="fashion_mnist", root=str(fashion_root)))
    assert bundle.counts == {"train": 54_000, "val": 6_000, "test": 10_000}
    mini = open_data(Data(name="fashion_mnist_mini"))
    assert np.array_equal(bundle._sources["test"].data[:2000], mini._sources["test"].data)
    # Mean and std of the catalogue are those of the whole set; these are tiled from a fifth of it.
    assert abs(bundle.mean[0] - mini.mean[0]) < 0.002
    assert bundle.class_names == mini.class_names
    images, _, _ = next(iter(bundle.eval_loader("val", recipe(), batch_size=4, device=CPU)))
    assert images.shape == (4, 3, 32, 32)


def not_fashion(how: str, files: dict[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    if how == "random pixels":
        files["train-images-idx3-ubyte"] = idx(rng.integers(0, 256, (60_000, 28, 28), np.uint8))
    else:
        files["train-labels-idx1-ubyte"] = idx(rng.integers(0, 10, 60_000, np.uint8))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("random pixels", "2,000 are, 2,000 with the right label"),
        ("labels of others", "of 14,000 images that must be there, 14,000 are, "),
    ],
)
def test_files_of_fashion_mnists_names_must_be_its_own(tmp_path, how, text):
    files = fashion_files()
    not_fashion(how, files)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    message = refused(DataError, name="fashion_mnist", root=str(tmp_path))
    assert f"the files in {tmp_path} are not those of fashion_mnist" in message
    assert text in message


@pytest.mark.parametrize("name", ["imagenet", "tiny_imagenet"])
@pytest.mark.parametrize("classes", [("0", "1"), ("class_1", "class_2"), ("n01440764", "n0144076"), ("a", "b")])
def test_imagenet_has_wnids(tmp_path, name, classes):
    make_folder(tmp_path, classes=classes)
    text = refused(DataError, name=name, root=str(tmp_path))
    assert f"the class folders of {name} are named by wnids" in text
    assert text.endswith("for other names use `name: image_folder`")


def test_a_thousand_wnids_must_be_imagenets(tmp_path):
    names = tuple(f"n{number:08d}" for number in range(1000))
    for part in ("train", "val"):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "a.png").touch()
    assert "are not those of ImageNet-1k" in refused(DataError, name="imagenet", root=str(tmp_path))
    assert open_data(Data(name="image_folder", root=str(tmp_path), val_size=100)).num_classes == 1000


def test_svhn_without_scipy_names_the_extra(tmp_path, monkeypatch):
    from torchvision import datasets

    for part in ("train", "test"):
        (tmp_path / f"{part}_32x32.mat").write_bytes(b"x")
    assert "train_32x32.mat is damaged" in refused(DataError, name="svhn", root=str(tmp_path))
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert "install depthbench[svhn]" in refused(DataError, name="svhn", root=str(tmp_path))


def test_svhn(tmp_path, monkeypatch):
    io = pytest.importorskip("scipy.io")
    from torchvision import datasets

    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    for part, count in (("train", 73_257), ("test", 26_032)):
        images = np.zeros((32, 32, 3, count), np.uint8)
        images[3, 5, 1, :] = np.arange(count) % 256
        io.savemat(tmp_path / f"{part}_32x32.mat", {"X": images, "y": (np.arange(count) % 10 + 1)[:, None]})
    bundle = open_data(Data(name="svhn", root=str(tmp_path)))
    assert bundle.counts == {"train": 65_931, "val": 7_326, "test": 26_032}
    source = bundle._sources["train"]
    assert source.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert source.data[200, 1, 3, 5] == 200
    assert bundle.info.hflip_prob == 0


@pytest.mark.parametrize("name", ["cifar100", "svhn", "fashion_mnist"])
def test_a_pipe_in_the_place_of_a_data_file_is_refused(tmp_path, name):
    for file in DATASETS[name].files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / file)
    text = refused(DataError, name=name, root=str(tmp_path))
    assert f"{tmp_path / DATASETS[name].files[0]} is not a file" in text


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist", "svhn"])
def test_no_network_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, name):
    import torchvision.datasets.utils as utils
    from torchvision.datasets import cifar, mnist, svhn

    def fail(*args, **kwargs):
        (Path(args[1]) / "half").touch()
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    for module, function in ((cifar, "download_and_extract_archive"), (mnist, "download_and_extract_archive"),
                             (svhn, "download_url"), (utils, "download_url")):  # fmt: skip
        monkeypatch.setattr(module, function, fail)
    text = refused(DataError, name=name, root=str(tmp_path / "data"), download=True)
    assert f"cannot fetch {name}" in text
    assert DATASETS[name].layout in text
    assert list((tmp_path / "data").iterdir()) == []


def test_fetching_puts_the_files_in_their_place(cifar_root, tmp_path, monkeypatch):
    from torchvision.datasets import cifar

    def fetch(url, root, filename, md5):
        shutil.copytree(cifar_root / "cifar-100-python", Path(root) / "cifar-100-python")
        (Path(root) / filename).write_bytes(b"the archive")

    monkeypatch.setattr(cifar, "download_and_extract_archive", fetch)
    bundle = open_data(Data(name="cifar100"), data_root=str(tmp_path / "data"), allow_download=True)
    assert bundle.counts["test"] == 10_000
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-100-python"]
    monkeypatch.setattr(cifar, "download_and_extract_archive", None)
    open_data(Data(name="cifar100", download=True), data_root=str(tmp_path / "data"))
