"""bench run"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress

from bench.cli.common import add_config_arguments, add_verify_argument, load, output_folder, show
from bench.errors import BenchError
from bench.launch.preflight import leave_out_impossible, require_data, require_tracker_packages
from bench.launch.whole import find_whole, measure_given
from bench.process import say_stopped

NAME = "run"
HELP = "train, measure, compare and plot; what is already there is not done again"
EXAMPLES = (
    "bench run configs/quickstart.yaml",
    "bench run configs/cifar10_resnet.yaml --data-root ~/data --seeds 0,1,2",
    "bench run configs/cifar10_resnet.yaml --only resnet20 --set recipe.epochs=5",
    "bench run configs/cifar10_dynamic_depth.yaml --data-root ~/data --ray",
    "torchrun --nproc_per_node=2 -m bench run configs/imagenet_resnet50.yaml --data-root ~/imagenet",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--eval-only", action="store_true",
                        help="train nothing: measure the `weights` that the runs name, or finished trainings")
    add_verify_argument(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue what is there (the default)")
    again.add_argument("--fresh", action="store_true", help="forget what these runs left and start anew")
    parser.add_argument("--retry", metavar="STATUS", action="append", default=[],
                        choices=["failed", "diverged", "timeout", "all"],
                        help="run again what ended so: failed, diverged, timeout or all (may be repeated)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ray", metavar="ADDRESS", nargs="?", const="auto",
                       help="do the runs on a Ray cluster, as many at once as fit: the one at ADDRESS, else the one "
                       "that RAY_ADDRESS names or this machine belongs to, else all cores and GPUs of this machine")
    where.add_argument("--in-process", action="store_true", help="no process of its own for each run (debugging)")
    parser.add_argument("--no-report", action="store_true", help="leave tables and plots to `bench report`")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")


def main(options: argparse.Namespace) -> int:
    loaded, specs = load(options)
    require_data(loaded)
    require_tracker_packages(loaded)
    specs = leave_out_impossible(loaded, specs)
    if options.eval_only:
        specs = measure_given(specs)
    from bench.launch.foresee import say_first
    from bench.launch.session import Session

    out = output_folder(loaded)
    try:
        say_first(loaded, specs, out, retry=options.retry, fresh=options.fresh, quiet=options.quiet)
    except BenchError as error:
        if int(os.environ.get("RANK") or 0) == 0:
            raise
        return error.exit_code  # under torchrun all find the same; the first process says it
    session = Session(
        out, retry=tuple(options.retry), fresh=options.fresh,
        isolate=not options.in_process, quiet=options.quiet, train=not options.eval_only,
        report=not options.no_report, ray=options.ray, verify=options.verify,
    )  # fmt: skip
    whole = find_whole(loaded, specs, session.out, fresh=options.fresh, given=options.eval_only)
    outcome = session.run(specs, whole)
    if outcome.stopped_by is not None:
        say_stopped()
    if int(os.environ.get("RANK") or 0) == 0 and not options.no_report:
        from bench.evaluate.analysis import Analysis
        from bench.evaluate.results import read_results

        with suppress(BrokenPipeError):  # | head: the runs went as they went
            show(outcome.analysis or Analysis(read_results(outcome.out)))
        if outcome.report_error:
            print(f"error: the report could not be drawn: {outcome.report_error}", file=sys.stderr)
    return outcome.exit_code
