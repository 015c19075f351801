"""bench compare"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.common import show
from bench.config.comparing import parse_budget
from bench.errors import ConfigError

NAME = "compare"
HELP = "one report over several results folders: tables, figures, verdicts; no network, no GPU"
EXAMPLES = (
    "bench compare results/cifar10_resnet results/cifar10_dynamic_depth",
    "bench compare results/a results/b --out results/ab --reference resnet20 --budgets 0.5,0.75,30M",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="DIR", type=Path, nargs="+", help="folders of comparisons' results")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: results/<name>-and-<name>)")
    parser.add_argument("--reference", metavar="RUN", help="the run whose cost is 1 where a budget is a share")
    parser.add_argument("--budgets", metavar="0.5,30M", help="limits on the mean cost, separated by commas")
    parser.add_argument("--title", help="heading of the report")


def main(options: argparse.Namespace) -> int:
    from bench.report import draw
    from bench.report.merge import merge_results

    out = options.out or Path("results") / "-and-".join(folder.resolve().name for folder in options.folders)
    merge_results(
        options.folders, out, reference=options.reference, budgets=_budgets(options.budgets), title=options.title,
        say=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    return show(draw(out).analysis)


def _budgets(text: str | None) -> list[float | str] | None:
    if text is None:
        return None
    found: list[float | str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            entry: float | str = float(part)
        except ValueError:
            entry = part
        try:
            parse_budget(entry)
        except ValueError as error:
            raise ConfigError(str(error), where="--budgets") from None
        found.append(entry)
    return found
