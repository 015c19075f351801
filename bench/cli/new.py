"""bench new"""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "new"
HELP = "write a small package with a method, policy, data set or tracker of your own"
EXAMPLES = ("bench new method my_net", "bench new policy my_rule --to ~/code/my_rule")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=["method", "policy", "dataset", "tracker"])
    parser.add_argument("name", metavar="NAME", help="what files will call it; also the name of its Python module")
    parser.add_argument("--to", metavar="DIR", type=Path, help="a new or empty folder (default: NAME, here)")


def main(options: argparse.Namespace) -> int:
    # which the parser of the other commands need not load
    from bench.scaffold import KINDS, write_package

    folder = (options.to or Path(options.name)).expanduser()
    for path in write_package(options.kind, options.name, folder):
        print(path)
    shows = KINDS[options.kind].look.replace("$name", options.name)
    print(f"next: pip install -e {folder} && {shows} && bench run {folder / options.name}.yaml")
    return 0
