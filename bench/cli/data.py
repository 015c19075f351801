"""bench data"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.text import raw, visible

NAME = "data"
HELP = "fetch a data set or say which files to put where, verify it and show its counts"
EXAMPLES = (
    "bench data cifar10 --data-root ~/data --download",
    "bench data imagenet --data-root ~/imagenet",
    "bench data imagenet --data-root ~/imagenet --val-map ILSVRC2012_validation_ground_truth.txt",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a data set of `bench list datasets`")
    parser.add_argument("--data-root", metavar="DIR", help="folder that holds it, or is to hold it")
    parser.add_argument("--download", action="store_true", help="fetch it where the network allows")
    parser.add_argument("--num-classes", metavar="N", type=int, help="classes that must be there, for a part of a set")
    parser.add_argument("--val-map", metavar="FILE", type=Path,
                        help="sort a flat validation folder into class folders by this mapping")


def main(options: argparse.Namespace) -> int:
    from bench.config.schema import Data
    from bench.data.catalog import dataset_info, find_root

    dataset_info(options.name)
    root = find_root(Data(name=options.name), options.data_root)
    from bench.data.prepare import prepare

    lines = prepare(options.name, root, download=options.download, val_map=options.val_map,
                    num_classes=options.num_classes, progress=_show if sys.stderr.isatty() else None)  # fmt: skip
    print("\n".join(visible(line) for line in lines))  # a name may hold a line end
    return 0


def _show(done: int, total: int) -> None:
    """One line on a terminal, while every image is decoded."""
    if done % 500 == 0 or done == total:
        print(f"\rdecoding {done:,} of {total:,}", end="\n" if done == total else "", file=raw(sys.stderr),
              flush=True)  # fmt: skip
