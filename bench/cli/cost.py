"""bench cost"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.common import add_config_arguments, load
from bench.launch.preflight import leave_out_impossible
from bench.text import terminal, to_cell

NAME = "cost"
HELP = "show what every unit of each run's network costs, and every operating point"
EXAMPLES = (
    "bench cost configs/quickstart.yaml",
    "bench cost configs/cifar10_resnet.yaml --only resnet20 --units --csv costs",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--units", action="store_true", help="every unit, not only the operating points")
    parser.add_argument("--csv", metavar="DIR", type=Path, help="write a table per run into this folder")


def main(options: argparse.Namespace) -> int:
    from rich.text import Text

    from bench.launch.inspect import inspect_runs, point_table, unit_frame, unit_table

    loaded, specs = load(options)
    console = terminal(width=200)  # a file is as wide as it must be
    specs = leave_out_impossible(loaded, specs)
    for name, reason in {spec.run: spec.skip for spec in specs if spec.skip is not None}.items():
        console.print(Text.assemble((name, "bold"), f"  skipped: {reason}"))
    for found in inspect_runs(loaded, specs):
        about = f"  {found.method.backbone()}, {found.params:,} parameters"
        console.print(Text.assemble((found.spec.run, "bold"), about))
        console.print(point_table(found))
        if options.units:
            console.print(unit_table(found))
        if options.csv:
            from bench.files import write_text_atomic

            frame = unit_frame(found)
            frame["unit"] = frame["unit"].map(to_cell)
            write_text_atomic(options.csv / f"{found.spec.run}.csv", frame.to_csv(index=False))
    if options.csv:
        print(f"tables in {options.csv}")
    return 0
