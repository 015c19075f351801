"""bench test"""

from __future__ import annotations

import argparse

NAME = "test"
HELP = "check that a method does what the harness relies on: one line per check"
EXAMPLES = ("bench test resnet",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a method of `bench list methods`")


def main(options: argparse.Namespace) -> int:
    from bench.registry import method_class
    from bench.testing import run_checks

    wrong = 0
    for result in run_checks(method_class(options.name), options.name):
        state = "WRONG" if result.problem else "ok" if result.made else "-"
        said = result.problem or (result.claim if result.made else "not checked, because of what is wrong above")
        print(f"{state:<6}{result.name:<15}{said}", flush=True)
        wrong += bool(result.problem)
    print(f"{options.name}: {f'{wrong} wrong' if wrong else 'all good'}")
    return 1 if wrong else 0
