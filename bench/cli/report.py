"""bench report"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.common import show
from bench.errors import ConfigError

NAME = "report"
HELP = "draw tables, plots and the HTML page again from the records; no network, no GPU"
EXAMPLES = ("bench report results/quickstart",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of a comparison's results")


def main(options: argparse.Namespace) -> int:
    path = options.folder / "comparison.json"
    if not path.is_symlink() and not path.exists():
        raise ConfigError("holds no results of a comparison (no comparison.json)", where=str(options.folder))
    from bench.report import draw

    return show(draw(options.folder).analysis)
