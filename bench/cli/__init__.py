"""The command line: ``bench COMMAND``. Help and configuration errors come before torch is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bench import __version__
from bench.cli import ablate, check, compare, cost, data, explain, export, import_, latency, list_, report, run, schema
from bench.errors import BenchError
from bench.text import degrade, guarded

#: One module per command: NAME, HELP, EXAMPLES, add_arguments(parser), main(options) -> exit code.
COMMANDS = (run, check, list_, explain, report, compare, ablate, latency, cost, import_, export, data, schema)

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 good, 1 a run failed, 2 a bad configuration, 128 + signal."""
    for stream in (sys.stdout, sys.stderr):
        degrade(stream)
    options = build_parser().parse_args(arguments)
    with guarded():
        return _do(options)


def _do(options: argparse.Namespace) -> int:
    try:
        return int(options.main(options))
    except BenchError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("BENCH_TRACEBACK"):
            raise
        place = _last_place(error)
        print(f"error: internal: {type(error).__name__}: {' '.join(str(error).split())} ({place}); this is a "
              "mistake of ours or of a plug-in; BENCH_TRACEBACK=1 shows where", file=sys.stderr)  # fmt: skip
        return 1


def _last_place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "unknown"
