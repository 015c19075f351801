"""How long the whole report takes from records: tables, verdicts, every figure, the page.

    python benchmarks/report.py            # 4 methods x 3 seeds x 10,000 test images, made-up records

Prints seconds of `bench report` as a process of its own, imports included, and whether twice gives the same CSV bytes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "report"), str(TESTS / "evaluate")]

from synthetic_results import FAMILIES, write_results  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="test images; half as many for validation")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    # a static network, static paths, gates, exits
    recipes = [FAMILIES[2], FAMILIES[3], FAMILIES[4], FAMILIES[6]]
    with tempfile.TemporaryDirectory() as folder:
        out = write_results(
            Path(folder), recipes, seeds=range(options.seeds), n=options.images, val=options.images // 2,
            reference="resnet20", budgets=[0.5, 0.75, 1.0],
        )  # fmt: skip
        contents = []
        for number in (1, 2):
            before, clock = _cpu_seconds(), time.perf_counter()
            subprocess.run([sys.executable, "-m", "bench", "report", str(out)], check=True, stdout=subprocess.DEVNULL)
            print(f"report {number}: {time.perf_counter() - clock:.1f} s wall, {_cpu_seconds() - before:.1f} s CPU")
            contents.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.csv"))})
        print(f"{len(contents[0])} CSV files, the same bytes twice: {contents[0] == contents[1]}")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
