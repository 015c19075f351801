"""bench latency"""

from __future__ import annotations

import argparse
import sys

from bench.cli.common import add_config_arguments, load, output_folder
from bench.launch.preflight import require_data
from bench.text import terminal, words

NAME = "latency"
HELP = "time what a comparison has trained: milliseconds, memory and energy of each operating point"
EXAMPLES = (
    "bench latency configs/quickstart.yaml --threads 1",
    "bench latency configs/cifar10_dynamic_depth.yaml --data-root ~/data --device cuda --batch-sizes 1,256",
    "bench latency configs/quickstart.yaml --only resnet20 --rounds 100",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--batch-sizes", metavar="1,64", type=_sizes, default=(1, 64), help="batches (default: 1,64)")
    parser.add_argument("--rounds", metavar="N", type=_positive, default=60, help="timed batches of each operating "
                        "point and batch size (default: 60)")  # fmt: skip
    parser.add_argument("--warmup", metavar="N", type=_positive, default=5, help="rounds before them (default: 5)")
    parser.add_argument("--images", metavar="N", type=_positive, default=256, help="different test images at most "
                        "(default: 256)")  # fmt: skip
    parser.add_argument("--points", metavar="N", type=_positive, default=16, help="operating points of a run at most, "
                        "the default one first (default: 16)")  # fmt: skip
    parser.add_argument("--threads", metavar="N", type=_positive, help="CPU threads (default: the file's)")


def main(options: argparse.Namespace) -> int:
    loaded, specs = load(options)
    require_data(loaded)
    from bench.launch.latency import LatencySettings, measure_latency

    comparison, out = loaded.comparison, output_folder(loaded)
    if options.seeds is None:  # the first seed of each run stands for the others
        specs = [spec for place, spec in enumerate(specs) if spec.run not in {s.run for s in specs[:place]}]
    settings = LatencySettings(
        options.batch_sizes, options.rounds, options.warmup, options.images, options.points,
        options.threads or comparison.threads,
    )  # fmt: skip
    rows, whole = measure_latency(
        specs, comparison, out, settings, lambda line: print(line, file=sys.stderr, flush=True)
    )
    from bench.report import draw

    results = draw(out).analysis.results
    _print(rows)
    print(f"table in {out / 'latency.csv'}")
    damaged = [*(run.reason for run in results.runs if run.damaged), *results.problems]
    for line in damaged:
        print(f"error: {line}", file=sys.stderr)
    return 0 if whole and not damaged else 1


def _print(rows: list[dict[str, object]]) -> None:
    from rich.table import Table

    from bench.report.style import format_macs

    names = ("run", "seed", "point", "batch", "ms", "p95", "ms / image", "MACs", "MiB", "mJ", "as recorded")
    console = terminal(width=160)
    table = Table(*names, box=None, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        point = row["point"] or f"{row['policy']} {row['setting']:g}"
        energy = "-" if row["energy_mj"] is None else f"{row['energy_mj']:.3g}"
        table.add_row(
            str(row["run"]), str(row["seed"]), words(point, console), str(row["batch"]), f"{row['ms_median']:.3f}",
            f"{row['ms_p95']:.3f}", f"{row['ms_per_image']:.4f}", format_macs(row["macs"]),  # type: ignore[arg-type]
            f"{row['memory_mib']:.1f}", energy, f"{100 * row['agreement']:.1f} %",  # type: ignore[operator]
        )  # fmt: skip
    console.print(table)


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(_positive(part) for part in text.split(","))
    if len(set(sizes)) != len(sizes):
        raise argparse.ArgumentTypeError(f"a batch size stands twice in '{text}'")
    return sizes


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
    return value
