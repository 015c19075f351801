"""bench schema"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

NAME = "schema"
HELP = "print the JSON schema of comparison files, for editors"
EXAMPLES = ("bench schema > configs/schema.json",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write it to a file")


def main(options: argparse.Namespace) -> int:
    from bench.config.json_schema import comparison_schema
    from bench.files import write_text_atomic

    text = json.dumps(comparison_schema(), indent=1, sort_keys=True) + "\n"
    if options.output:
        write_text_atomic(options.output, text)
    else:
        print(text, end="")
    return 0
