"""Images per second of both loaders, alone: what a training loop could get at most.

    python benchmarks/loader.py [--device cpu|cuda] [--threads 1] [--workers 0,2] [--data-root DIR] [--data NAME]

resident: fashion_mnist_mini (or CIFAR with --data), batch 128, with crop and flip, then with erasing, then with
mixup and CutMix. workers: JPEGs of 500x375 written to a temporary folder (or the folder data set of --data),
RandomResizedCrop to 224, flip, for each number of worker processes; the time of starting them counts.
Each case is measured several times and the best is printed: other load on the machine only ever slows it down.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from bench.config.schema import Data, Recipe
from bench.data import DATASETS, DataBundle, open_data

SMALL = {
    "crop, flip": {},
    "crop, flip, erase": {"random_erase": 0.25},
    "crop, flip, mixup or cutmix": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
}


def measure(
    bundle: DataBundle, recipe: Recipe, device: torch.device, steps: int, rounds: int = 3
) -> tuple[float, float]:
    """Images per second and milliseconds per batch, the best of the rounds, each in an epoch of its own."""
    loader = bundle.train_loader(recipe, seed=0, device=device)
    best = float("inf")
    for epoch in range(rounds):
        count = 0
        began = time.perf_counter()
        for _ in zip(range(steps), loader.epoch(epoch)):
            count += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - began) / count)
    return recipe.batch_size / best, best * 1e3


def write_photos(root: Path, count: int) -> None:
    """Smooth noise as JPEGs of the size and roughly the bytes of ImageNet's photographs."""
    rng = np.random.default_rng(0)
    for part, images in (("train", count), ("val", 2)):
        for number in range(images):
            folder = root / part / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            noise = Image.fromarray(rng.integers(0, 256, (94, 125, 3), dtype=np.uint8)).resize((500, 375))
            noise.filter(ImageFilter.GaussianBlur(1)).save(folder / f"{number:05d}.jpg", quality=92)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--data", help="a data set instead of the embedded and the computed ones")
    parser.add_argument("--data-root")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, batch {args.batch_size}")
    if args.data is None or DATASETS[args.data].small:
        bundle = open_data(Data(name=args.data or "fashion_mnist_mini"), data_root=args.data_root)
        for title, options in SMALL.items():
            recipe = Recipe(batch_size=args.batch_size, **options)
            rate, milliseconds = measure(bundle, recipe, device, args.steps)
            print(f"resident {bundle.info.name:20} {title:28} {rate:12,.0f} images/s {milliseconds:8.2f} ms a batch")
    if args.data is not None and DATASETS[args.data].small:
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            write_photos(Path(folder), 2 * args.batch_size + 2)
        data = Data(name=args.data or "image_folder", root=args.data_root or folder, val_size=2)
        bundle = open_data(data)
        for workers in map(int, args.workers.split(",")):
            recipe = Recipe(batch_size=args.batch_size, workers=workers, train_crop_size=224)
            rate, milliseconds = measure(bundle, recipe, device, max(2, args.steps // 20), rounds=2)
            print(f"workers  {data.name:20} {f'resized crop 224, {workers} workers':28} {rate:12,.0f} images/s "
                  f"{milliseconds:8.2f} ms a batch")  # fmt: skip


if __name__ == "__main__":
    main()
