"""Arguments and steps that several commands share. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.load import Loaded, load_config
from bench.config.resolve import RunSpec
from bench.launch.preflight import plan_runs

if TYPE_CHECKING:
    from bench.evaluate.analysis import Analysis


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE and what may change it from the command line."""
    parser.add_argument("file", metavar="FILE", type=Path, help="comparison file (YAML)")
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[],
                        help="change a value: recipe.epochs=3, runs.NAME.options.depth=20, runs.*.recipe.lr=0.05")
    parser.add_argument("--only", metavar="NAME", action="append", default=[],
                        help="do only this run (may be repeated); the report shows all runs of the file")
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], help="where to run")
    parser.add_argument("--data-root", metavar="DIR", help="folder that holds the data")
    parser.add_argument("--out", metavar="DIR", help="folder of the results (default: results/<name>)")
    parser.add_argument("--seeds", metavar="0,1,2", type=_seeds,
                        help="do these seeds, separated by commas; the report also shows those that are there")


def add_verify_argument(parser: argparse.ArgumentParser) -> None:
    """Whether every image of large class folders is read to see if it changed."""
    parser.add_argument("--verify", action="store_true", help="read every image to notice changes that leave names and "
                        "sizes alone, also in class folders of more than 128 MiB")  # fmt: skip


def load(options: argparse.Namespace) -> tuple[Loaded, list[RunSpec]]:
    """The checked comparison and its runs."""
    loaded = load_config(
        options.file, settings=options.settings, only=options.only, device=options.device,
        data_root=options.data_root, out=options.out, seeds=options.seeds,
    )  # fmt: skip
    return loaded, plan_runs(loaded)


def output_folder(loaded: Loaded) -> Path:
    """Where the results of a comparison go."""
    return Path(loaded.comparison.out or Path("results") / loaded.comparison.name)


def show(analysis: Analysis) -> int:
    """Print the summary of what was drawn, then what is damaged; the exit code: 1 if anything is shown as failed."""
    from bench.report.summary import print_summary

    print_summary(analysis)
    for line in analysis.results.problems:
        print(f"error: {line}", file=sys.stderr)
    return 0 if analysis.results.whole else 1


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of seeds such as 0,1,2") from None
