"""bench explain"""

from __future__ import annotations

import argparse

from bench.cli.common import add_config_arguments, load

NAME = "explain"
HELP = "show every resolved value and where it came from: default, file and line, command line"
EXAMPLES = (
    "bench explain configs/quickstart.yaml",
    "bench explain configs/cifar10_resnet.yaml --only resnet20 --set recipe.lr=0.05",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--changed", action="store_true", help="leave out values that are defaults")


def main(options: argparse.Namespace) -> int:
    from bench.launch.describe import explain

    loaded, _ = load(options)
    rows = [row for row in explain(loaded) if not (options.changed and row[2] == "default")]
    width = max(len(path) for path, _, _ in rows)
    value_width = min(40, max(len(value) for _, value, _ in rows))
    for path, value, origin in rows:
        print(f"{path:<{width}}  {value:<{value_width}}  {origin}")
    return 0
