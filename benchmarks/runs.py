"""What one more run costs a comparison, beside its own work: 8 runs of one training step against 4.

    python benchmarks/runs.py            # three rounds, interleaved

Prints the seconds of each more run, (8 runs - 4 runs) / 4, wall and CPU, of each round and their medians.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """\
name: runs
data: {name: synthetic, val_size: 32, train_subset: 32, test_subset: 32}
recipe: {epochs: 1, batch_size: 32, lr: 0.05}
device: cpu
threads: 1
runs:
  - {name: resnet8, method: resnet, options: {depth: 8}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "runs.yaml"
        config.write_text(CONFIG)
        for number in range(options.rounds):
            few = _take(config, 4, Path(folder) / f"few{number}")
            many = _take(config, 8, Path(folder) / f"many{number}")
            found.append([(more - less) / 4 for more, less in zip(many, few)])
            print("one more run: {:.2f} s wall, {:.2f} s CPU".format(*found[-1]))
    print("median: {:.2f} s wall, {:.2f} s CPU".format(*map(statistics.median, zip(*found))))


def _take(config: Path, runs: int, out: Path) -> tuple[float, float]:
    """Seconds, wall and CPU, of a comparison with this number of runs."""
    seeds = ",".join(map(str, range(runs)))
    command = [sys.executable, "-m", "bench", "run", config, "--seeds", seeds, "--out", out, "--no-report", "--quiet"]
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - clock, cpu


if __name__ == "__main__":
    main()
