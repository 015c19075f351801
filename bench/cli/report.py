"""bench report"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.errors import ConfigError

NAME = "report"
HELP = "draw tables, plots and the HTML page again from the records; no network, no GPU"
EXAMPLES = ("bench report results/quickstart",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of a comparison's results")


def main(options: argparse.Namespace) -> int:
    if not (options.folder / "comparison.json").is_file():
        raise ConfigError("holds no results of a comparison (no comparison.json)", where=str(options.folder))
    from bench.report import draw
    from bench.report.summary import print_summary

    draw(options.folder)
    print_summary(options.folder)
    return 0
