"""What `bench data` says about the images of a data set."""

import os
import shutil
import warnings

import numpy as np
import pytest
from data_helpers import make_folder
from PIL import Image

from bench.cli import main
from bench.config.schema import Data
from bench.data import open_data
from bench.data.prepare import prepare


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path, train=20, val=5)


def line(root, start: str) -> str:
    """The one line of the report that begins so."""
    found = [text for text in prepare("image_folder", root, download=False) if text.startswith(start)]
    assert len(found) == 1
    return found[0].removeprefix(start)


def test_nothing_to_report(root):
    lines = prepare("image_folder", root, download=False)
    assert lines[-4] == "decoded 75 images: all readable"
    assert lines[-3].startswith("modes: 75 RGB; sides of 4")
    assert lines[-2] == "duplicates (equal bytes): none"
    assert not any("left out" in text for text in lines)


def test_what_was_left_out(root):
    (root / "train" / "ant" / "a.gif").touch()
    (root / "val" / "bee" / ".ipynb_checkpoints").mkdir()
    assert line(root, "left out of train/: ") == "1 .gif"
    assert line(root, "left out of val/: ") == "1 hidden"


def test_duplicates_are_counted(root):
    copies = ((("train", "ant", 0), ("val", "ant", "copy")), (("train", "bee", 1), ("val", "bee", "copy")),
              (("val", "cat", 2), ("val", "cat", "copy")), (("train", "cat", 3), ("train", "ant", "copy")))  # fmt: skip
    for (part, label, number), (to, other, name) in copies:
        shutil.copy(root / part / label / f"{number:03d}.jpg", root / to / other / f"{name}.jpg")
    said = line(root, "duplicates (equal bytes): ").split("; ")
    assert said[0] == (f"2 of the test part are in the training set too ({root}/val/ant/copy.jpg is "
                       f"{root}/train/ant/000.jpg)")  # fmt: skip
    assert said[-3:] == ["1 further copy within the training set", "1 further copy within the test part",
                         "1 image is in several classes"]  # fmt: skip


def test_copies_across_the_validation_split_are_counted(root):
    """Every training image has a copy, so every validation image of the default split whose copy is not beside it in
    the validation part is trained on."""
    for path in sorted((root / "train").rglob("*.jpg")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    bundle = open_data(Data(name="image_folder", root=str(root)))
    names = [os.path.basename(bundle._sources["train"].where(i)).removeprefix("copy of ") for i in range(120)]
    keys = [f"{label} {name}" for label, name in zip(bundle._sources["train"].labels, names)]
    trained = {keys[i] for i in bundle.split.train}
    both = sum(keys[i] in trained for i in bundle.split.val)
    assert 0 < both <= 12
    said = line(root, "duplicates (equal bytes): ").split("; ")
    assert said == [f"{both} of the validation part (default split) are trained on too",
                    "60 further copies within the training set"]  # fmt: skip


def test_duplicates_of_images_in_memory():
    assert "duplicates (equal bytes): none" in prepare("fashion_mnist_mini", None, download=False)


def test_kinds_are_counted(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (9, 300)).save(root / "train" / "ant" / "a.png", exif=exif)
    Image.new("RGBA", (50, 50)).save(root / "train" / "ant" / "b.png")
    Image.fromarray(np.zeros((50, 50), np.uint16)).save(root / "val" / "ant" / "c.png")
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "lime")]
    frames[0].save(root / "val" / "ant" / "d.webp", save_all=True, append_images=frames[1:])
    lines = prepare("image_folder", root, download=False)
    assert "modes: 76 RGB, 1 L, 1 RGBA, 1 I;16; sides of 9 to 300 pixels" in lines
    assert "1 with an EXIF rotation, which is not applied (as in torchvision)" in lines
    assert "1 with transparency, which is dropped: the colour under it counts (as in torchvision)" in lines
    assert "1 with several frames or pages: the first is read" in lines


def test_odd_names_are_written_escaped(root, capsys):
    for part in ("train", "val"):
        (root / part / "cat").rename(root / part / "k\udce4\x1b[2J\nz")
    shutil.copy(root / "train" / "k\udce4\x1b[2J\nz" / "000.jpg", root / "val" / "ant")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["data", "image_folder", "--data-root", str(root)]) == 0
    out = capsys.readouterr().out
    assert r"train/k\xe4\x1b[2J\nz/000.jpg" in out
    assert all(text.isprintable() for text in out.splitlines())
    (root / "train" / "k\udce4\x1b[2J\nz" / "001.jpg").write_bytes(b"")
    assert main(["data", "image_folder", "--data-root", str(root)]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: 1 of 75 images cannot be read: ")
    assert r"train/k\xe4\x1b[2J\nz/001.jpg: not an image" in error[0]
