"""The process of one run: ``python -m bench.launch.worker RUN_FOLDER``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.config.resolve import RunSpec
from bench.launch.run_one import execute_run
from bench.train.watch import Interrupted, Watch


def main(arguments: list[str] | None = None) -> int:
    """Read ``spec.json`` in the folder and do the run; its status says how it went."""
    parser = argparse.ArgumentParser(description="Do one run of a comparison.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    spec = RunSpec.model_validate_json((options.folder / "spec.json").read_text())
    with Watch(spec.timeout_minutes).listening() as watch:
        try:
            status = execute_run(spec, options.folder.parent.parent, watch=watch, quiet=options.quiet)
        except Interrupted as stop:
            return 128 + stop.signum
    return 0 if status["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
