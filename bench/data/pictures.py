"""An image file -> an RGB picture of 8 bits, of whatever kind it is; what cannot be read rightly is refused by name.

As torchvision's ``pil_loader`` for all that this one reads rightly: transparency is dropped (the colour under it
counts), EXIF rotation is not applied, of an animation or a file of several pages the first is taken. Grey images of
more than 8 bits, which Pillow clips to white, are scaled to 8.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.errors import DataError
from bench.files import open_regular

Image.init()  # all of Pillow's formats, once, before processes of the loader are forked
#: Formats are known by content. Left out are those that need another program (EPS) or that any bytes fit.
_FORMATS = tuple(name for name in ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP", "DIB", "ICO", "AVIF", "JPEG2000")
                 if name in Image.OPEN)  # fmt: skip
#: Formats whose integers of 16 bits are known to reach from black at 0 to white at 65535 (TIFF: as its tags say).
_FULL_RANGE = ("PNG", "PPM", "TIFF")
_TO_DO = "save it with 8 or 16 bits a channel, black at 0 and white at 255 or 65535"
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262


@dataclass(frozen=True)
class Facts:
    """What `bench data` tells of a readable image. mode: Pillow's, as stored. rotated: whether EXIF asks for a
    rotation, which is not applied. frames: whether there are more than the first. digest: of the file, 8 bytes."""

    mode: str
    size: tuple[int, int]
    rotated: bool
    transparent: bool
    frames: bool
    digest: bytes


def read_image(path: str | Path) -> Image.Image:
    """A file as an RGB picture, fully decoded; DataError that names the file and the cause."""
    try:
        with open_regular(path) as file, Image.open(file, formats=_FORMATS) as picture:
            return _as_rgb(picture)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"cannot read image {path}: {_cause(error)}") from error


def examine_image(path: str | Path) -> Facts:
    """Decode a file as ``read_image`` does, and tell what it is. DataError likewise."""
    try:
        with open_regular(path) as file:
            content = file.read()
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            facts = Facts(picture.mode, picture.size, _asks_for_rotation(picture), picture.has_transparency_data,
                          _has_more_frames(picture), hashlib.blake2b(content, digest_size=8).digest())  # fmt: skip
            _as_rgb(picture)
            return facts
    except Exception as error:
        raise DataError(f"cannot read image {path}: {_cause(error)}") from error


def _asks_for_rotation(picture: Image.Image) -> bool:
    with contextlib.suppress(Exception):  # broken EXIF says nothing, and is nothing that reading needs
        return picture.getexif().get(_ORIENTATION, 1) not in (0, 1)
    return False


def _has_more_frames(picture: Image.Image) -> bool:
    with contextlib.suppress(Exception):
        return bool(getattr(picture, "is_animated", False))
    return False


def _as_rgb(picture: Image.Image) -> Image.Image:
    if 0 in picture.size:
        raise ValueError(f"it has no pixels ({picture.size[0]}x{picture.size[1]})")
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", "PPM")):
        return _scaled(picture, _white(picture))
    if mode == "F":
        return _scaled(picture, 1.0)
    if mode in ("I", "LAB", "La"):
        raise ValueError(f"its mode {mode} ({_KINDS[mode]}) does not say which colours are meant; {_TO_DO}")
    picture.info.pop("transparency", None)  # dropped anyway; Pillow warns of some
    return picture.convert("RGB")


_KINDS = {"I": "integers of 32 bits", "LAB": "colours of CIELAB", "La": "grey, multiplied by its transparency"}


def _white(picture: Image.Image) -> float:
    """The largest value that an image of integers can have."""
    if picture.format not in _FULL_RANGE:
        raise ValueError(f"its mode {picture.mode} does not say which value is white in a {picture.format}; {_TO_DO}")
    bits = _tags(picture).get(_BITS, (16,))[0]
    return float(2**bits - 1)


def _scaled(picture: Image.Image, white: float) -> Image.Image:
    """Grey from 0 (black) to ``white`` in 8 bits, rounded."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"its mode {picture.mode} holds values that are not finite; {_TO_DO}")
    if values.min() < 0 or values.max() > white:
        raise ValueError(f"its values (mode {picture.mode}) reach from {values.min():g} to {values.max():g}, where "
                         f"0 to {white:g} is black to white; {_TO_DO}")  # fmt: skip
    if _tags(picture).get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns only images of 8 bits and less
        values = white - values
    return Image.fromarray(np.floor(values * (255 / white) + 0.5).astype(np.uint8)).convert("RGB")


def _tags(picture: Image.Image) -> dict[int, Any]:
    """The tags of a TIFF; none for others."""
    return dict(getattr(picture, "tag_v2", {}))


def _cause(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image, or one of an unknown format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
