"""The commands and their arguments. Imports no torch: help and configuration errors come first."""

from __future__ import annotations

import argparse

from bench import __version__
from bench.cli import (
    ablate,
    check,
    compare,
    cost,
    data,
    explain,
    export,
    import_,
    latency,
    list_,
    new,
    report,
    run,
    schema,
    test,
)

#: One module per command: NAME, HELP, EXAMPLES, add_arguments(parser), main(options) -> exit code.
COMMANDS = (run, check, list_, explain, report, compare, ablate, latency, cost, test, new, import_, export, data,
            schema)  # fmt: skip

DESCRIPTION = """Benchmark dynamic-depth image classifiers: which network gives more accuracy for the same
compute, by how much, and whether that is more than noise."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="bench", description=DESCRIPTION, epilog="bench COMMAND --help shows a command's options and examples"
    )
    parser.add_argument("--version", action="version", version=f"depthbench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        command = commands.add_parser(
            module.NAME, help=module.HELP, description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return parser
