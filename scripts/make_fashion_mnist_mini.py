"""Make the embedded data set ``fashion_mnist_mini`` from the material in the shared data folder.

    python scripts/make_fashion_mnist_mini.py [--source ../shared/data/fashion_mnist] [--check]

The source is one lossless mosaic of 14,000 grey 28x28 images and their labels. The mosaic is taken over byte
for byte; beside it goes a table with each image's label and part (0: train, 1: test), 1,200 and 200 of every
class, drawn by PCG64's raw stream. So the outputs do not depend on the version of an encoder: the script
makes them twice, compares, and ``--check`` compares them with what is in the package. It also measures mean
and std of the padded training part, which ``bench/data/catalog.py`` and the manifest carry.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.data.hashing import key, name_key  # noqa: E402
from bench.data.opening import pad_grey  # noqa: E402
from bench.data.splits import stratified  # noqa: E402

NAME, CLASSES, TEST = "fashion_mnist_mini", 10, 2_000
ROWS, COLUMNS, SIDE = 100, 140, 28
LIMIT = 6 * 2**20


def make(source: Path) -> dict[str, bytes]:
    """File name -> content."""
    mosaic = (source / "images.webp").read_bytes()
    labels = np.load(source / "labels.npy", allow_pickle=False).astype(np.uint8)
    with Image.open(io.BytesIO(mosaic)) as file:
        if file.format != "WEBP" or file.size != (COLUMNS * SIDE, ROWS * SIDE):
            raise SystemExit(f"{source / 'images.webp'} is no mosaic of {ROWS} x {COLUMNS} images of {SIDE} pixels")
        pixels = np.asarray(file.convert("RGB"))
    if not (pixels == pixels[:, :, :1]).all():
        raise SystemExit(f"{source / 'images.webp'} is not grey")
    if labels.shape != (ROWS * COLUMNS,) or (np.bincount(labels) != len(labels) // CLASSES).any():
        raise SystemExit(f"{source / 'labels.npy'} does not hold {ROWS * COLUMNS // CLASSES} labels of each class")
    part = np.zeros_like(labels)
    part[stratified(labels, TEST, key(name_key(NAME), TEST))] = 1
    tiles = pixels[:, :, 0].reshape(ROWS, SIDE, COLUMNS, SIDE).swapaxes(1, 2).reshape(-1, SIDE, SIDE)
    share = np.bincount(pad_grey(tiles[part == 0]).reshape(-1), minlength=256) / ((part == 0).sum() * 32 * 32)
    value = np.arange(256) / 255
    mean = float((share * value).sum())
    std = float((share * value**2).sum() - mean**2) ** 0.5
    table = io.BytesIO()
    np.save(table, np.stack([labels, part]), allow_pickle=False)
    files = {f"{NAME}.webp": mosaic, f"{NAME}.npy": table.getvalue()}
    facts = {
        "name": NAME,
        "origin": "14,000 images of Fashion-MNIST, MIT licence, Zalando SE (LICENSE-fashion-mnist)",
        "rows": ROWS,
        "columns": COLUMNS,
        "side": SIDE,
        "train": int((part == 0).sum()),
        "test": int((part == 1).sum()),
        "mean_padded_train": round(mean, 4),
        "std_padded_train": round(std, 4),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return {**files, f"{NAME}.json": (json.dumps(facts, indent=2) + "\n").encode()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=ROOT.parent / "shared" / "data" / "fashion_mnist")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "data" / "assets")
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    args = parser.parse_args()
    files, again = make(args.source), make(args.source)
    if files != again:
        raise SystemExit("two runs gave different bytes")
    total = sum(map(len, files.values()))
    if total > LIMIT:
        raise SystemExit(f"{total} bytes is more than {LIMIT}")
    different = [n for n, c in files.items() if not (args.out / n).is_file() or (args.out / n).read_bytes() != c]
    if not args.check:
        for name in different:
            (args.out / name).write_bytes(files[name])
    for name, content in files.items():
        state = "same" if name not in different else "DIFFERENT" if args.check else "written"
        print(f"{name}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}, {state}")
    facts = json.loads(files[f"{NAME}.json"])
    print(f"mean {facts['mean_padded_train']}, std {facts['std_padded_train']} (padded training part)")
    return 1 if args.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
