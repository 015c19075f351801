"""Every kind of image that Pillow opens is read within one level of its 8-bit RGB twin, or refused by name."""

import io
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from bench.data.pictures import examine_image, read_image
from bench.errors import DataError
from bench.files import open_regular

Y, X = np.mgrid[0:24, 0:32]
GREY = (X * 8 + Y % 8).astype(np.uint8)
COLOUR = np.stack([X * 8, Y * 10, (X + Y) * 4], -1).astype(np.uint8)
OPAQUE_LEFT = np.where(X < 16, 255, 0).astype(np.uint8)


def grey16(order: str) -> Image.Image:
    mode = {"<": "I;16", ">": "I;16B"}[order]
    return Image.frombytes(mode, (32, 24), (GREY.astype(np.uint16) * 257).astype(f"{order}u2").tobytes())


def with_alpha(pixels: np.ndarray) -> Image.Image:
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return Image.fromarray(np.concatenate([pixels, OPAQUE_LEFT[..., None]], -1))


def palette() -> Image.Image:
    return Image.fromarray(COLOUR).quantize(64)


def transparent_palette() -> Image.Image:
    image = palette()
    image.info["transparency"] = bytes([0, 128] + [255] * 62)
    return image


RGB = Image.fromarray(COLOUR)
MODES = {
    "1": lambda: Image.fromarray(GREY > 99),
    "L": lambda: Image.fromarray(GREY),
    "LA": lambda: with_alpha(GREY),
    "P": palette,
    "P, transparent": transparent_palette,
    "PA": lambda: palette().convert("PA"),
    "RGB": lambda: RGB,
    "RGBA": lambda: with_alpha(COLOUR),
    "RGBX": lambda: RGB.convert("RGBX"),
    "CMYK": lambda: RGB.convert("CMYK"),
    "YCbCr": lambda: RGB.convert("YCbCr"),
    "I;16": lambda: grey16("<"),
    "I;16B": lambda: grey16(">"),
    "F": lambda: Image.fromarray(GREY.astype(np.float32) / 255),
}
FORMATS = {"png": {}, "tiff": {}, "webp": {"lossless": True, "exact": True}, "jpeg": {"quality": 100, "subsampling": 0},
           "bmp": {}, "ppm": {}}  # fmt: skip


def twin(name: str) -> np.ndarray:
    """The 8-bit RGB pixels that an image of MODES means."""
    if name in ("L", "LA", "I;16", "I;16B", "F"):
        return np.repeat(GREY[..., None], 3, 2)
    if name in ("P", "P, transparent", "PA", "YCbCr", "1"):
        return np.asarray(MODES["P" if name == "PA" else name]().convert("RGB"))
    return COLOUR


def distance(picture: Image.Image, pixels: np.ndarray) -> int:
    assert picture.mode == "RGB"
    return int(np.abs(np.asarray(picture).astype(int) - pixels).max())


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", MODES)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
def test_every_mode_is_read_as_its_rgb_twin(tmp_path, name, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "webp" and name in ("I;16", "I;16B", "F"):
        return  # Pillow clips these when it writes
    try:
        MODES[name]().save(path, **FORMATS[suffix])
    except (OSError, ValueError):
        return  # the format has no such mode
    assert distance(read_image(path), twin(name)) <= (6 if suffix == "jpeg" else 1)  # JPEG itself loses that much


@pytest.mark.parametrize("name", [name for name in MODES if name not in ("I;16", "I;16B", "F")])  # these it clips
def test_what_torchvision_reads_rightly_is_read_the_same(tmp_path, name):
    path = tmp_path / "x.tiff"
    MODES[name]().save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # and without Pillow's warning of transparency
        ours = read_image(path)
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(ours), np.asarray(picture.convert("RGB")))


def test_16_bits_are_rounded(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for suffix in ("png", "tiff"):
        Image.fromarray(ramp).save(tmp_path / f"x.{suffix}")
        pixels = np.asarray(read_image(tmp_path / f"x.{suffix}"))
        assert np.array_equal(pixels[..., 0].astype(int), (ramp.astype(int) + 128) // 257)
        assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_16_bits_of_a_pgm(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 32 24 65535\n" + (GREY.astype(">u2") * 257).astype(">u2").tobytes())
    assert distance(read_image(tmp_path / "x.pgm"), twin("L")) == 0
    (tmp_path / "x.pgm").write_bytes(b"P5 32 24 1023\n" + np.rint(GREY * (1023 / 255)).astype(">u2").tobytes())
    assert distance(read_image(tmp_path / "x.pgm"), twin("L")) == 0


def test_12_bits_of_a_tiff(tmp_path):
    """Two values in three bytes; white is 4095."""
    values = np.rint(GREY.reshape(-1, 2) * (4095 / 255)).astype(int)
    packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], 1)
    data = packed.astype(np.uint8).tobytes()
    tags = {256: 32, 257: 24, 258: 12, 259: 1, 262: 1, 273: 134, 277: 1, 278: 24, 279: len(data), 339: 1}
    entries = b"".join(k.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little")
                       + v.to_bytes(4, "little") for k, v in tags.items())  # fmt: skip
    head = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little") + entries + bytes(4)
    (tmp_path / "x.tif").write_bytes(head + data)
    assert len(head) == 134
    assert distance(read_image(tmp_path / "x.tif"), twin("L")) == 0


@pytest.mark.parametrize("name", ["I;16", "F"])
def test_white_may_be_zero(tmp_path, name):
    MODES[name]().save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as picture:
        assert picture.tag_v2[262] == 0
    assert distance(read_image(tmp_path / "x.tif"), 255 - twin("L")) == 0


def lab() -> Image.Image:
    return Image.merge("LAB", [Image.fromarray(GREY)] * 3)


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (lambda: Image.fromarray(GREY.astype(np.int32) * 257), "its mode I (integers of 32 bits) does not say"),
        (lambda: Image.fromarray(GREY.astype(np.float32)), "its values (mode F) reach from 0 to 255, where 0 to 1 is"),
        (lambda: Image.fromarray(GREY.astype(np.float32) / 255 - 0.5), "its values (mode F) reach from -0.5 to 0.5"),
        (lambda: Image.fromarray(np.where(X, 1, np.nan).astype(np.float32)), "its mode F holds values that are not"),
        (lab, "its mode LAB (colours of CIELAB)"),
    ],
)
def test_colours_that_cannot_be_known_are_refused_by_name(tmp_path, image, cause):
    path = tmp_path / "x.tif"
    image().save(path)
    for read in (read_image, examine_image):
        with pytest.raises(DataError) as error:
            read(path)
        assert str(error.value).startswith(f"cannot read image {path}: {cause}")
        assert str(error.value).endswith("save it with 8 or 16 bits a channel, black at 0 and white at 255 or 65535")


@pytest.mark.parametrize("suffix", ["gif", "webp", "tiff", "png"])
def test_the_first_frame_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    assert distance(read_image(tmp_path / f"x.{suffix}"), np.asarray(frames[0])) <= 3
    assert examine_image(tmp_path / f"x.{suffix}").frames


def test_rotation_is_not_applied_but_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    RGB.save(tmp_path / "x.png", exif=exif)
    assert distance(read_image(tmp_path / "x.png"), COLOUR) == 0
    facts = examine_image(tmp_path / "x.png")
    assert (facts.mode, facts.size, facts.rotated, facts.transparent, facts.frames) == ("RGB", (32, 24), True, False,
                                                                                       False)  # fmt: skip
    RGB.save(tmp_path / "y.jpg", exif=b"Exif\0\0not really")
    assert not examine_image(tmp_path / "y.jpg").rotated


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
def test_transparency_is_dropped_but_told(tmp_path):
    for name in ("LA", "RGBA", "P, transparent"):
        MODES[name]().save(tmp_path / "x.png")
        assert examine_image(tmp_path / "x.png").transparent
        assert distance(read_image(tmp_path / "x.png"), twin(name)) == 0


def png(**how) -> bytes:
    buffer = io.BytesIO()
    RGB.save(buffer, "png", **how)
    return buffer.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not an image"),
        (b"<html>not found</html>", "not an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an image"),
        (png()[:60], "truncated"),
        (png()[:16] + bytes(8) + png()[24:], ""),  # 0x0 pixels and a wrong sum
        (b"P5 0 0 255\n", ""),
        (b"P5 60000 60000 255\n", "exceeds limit"),
        (EPS, "not an image"),  # Pillow would run Ghostscript
    ],
)
def test_bad_files_are_one_line(tmp_path, content, cause):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for read in (read_image, examine_image):
        with pytest.raises(DataError) as error:
            read(path)
        text = str(error.value)
        assert text.startswith(f"cannot read image {path}: ")
        assert cause in text
        assert text.isprintable()


def test_one_pixel_is_an_image(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing"])
def test_what_is_not_a_file_is_never_waited_for(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    for read in (read_image, examine_image):
        with pytest.raises(DataError, match=r"cannot read image .*x\.png: "):
            read(path)
    with pytest.raises(OSError):
        open_regular(path)
