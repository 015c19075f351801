"""bench check"""

from __future__ import annotations

import argparse

from bench.cli.common import add_config_arguments, add_verify_argument, load, output_folder
from bench.launch.preflight import leave_out_impossible, require_data, require_tracker_packages

NAME = "check"
HELP = "find everything that can be known before training: keys, types, names, data, weights, costs, memory, lengths"
EXAMPLES = ("bench check configs/quickstart.yaml",
            "bench check configs/imagenet_resnet50.yaml --data-root ~/imagenet --time")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    add_verify_argument(parser)
    parser.add_argument("--time", action="store_true", help="train a few steps of each stage to estimate how long all "
                        "of it will take")
    parser.add_argument("--config-only", action="store_true", help="stop after the file itself: no data, no networks")


def main(options: argparse.Namespace) -> int:
    loaded, specs = load(options)
    comparison = loaded.comparison
    print(f"configuration  {len(comparison.runs)} runs, {len(specs)} with their seeds, "
          f"protocol {comparison.protocol}, results in {output_folder(loaded)}")  # fmt: skip
    if options.config_only:
        return 0
    require_data(loaded)
    require_tracker_packages(loaded)
    from bench.data import open_data

    bundle = open_data(comparison.data, protocol=comparison.protocol)
    counts = ", ".join(f"{count:,} {split}" for split, count in bundle.counts.items() if count)
    print(f"data           {comparison.data.name}: {counts}; split {bundle.split_hash[:12]}")
    from bench.data.fingerprint import take_fingerprint
    from bench.launch.same_data import check_same_data

    data = take_fingerprint(comparison.data, verify=options.verify, sources=bundle.sources)
    if unchecked := check_same_data(output_folder(loaded), specs, data):
        print(f"results        {unchecked}")
    from bench.launch.foresee import foresee, length_of
    from bench.launch.inspect import inspect_runs, training_memory
    from bench.launch.run_one import configure_torch, pick_device

    device = pick_device(specs[0])
    print(f"device         {device}")
    specs = leave_out_impossible(loaded, specs)
    for name, reason in {spec.run: spec.skip for spec in specs if spec.skip is not None}.items():
        print(f"skipped        {name}: {reason}")
    notes = foresee(loaded, specs, bundle.counts)
    if options.time:
        from bench.launch.estimate import TIMED_STEPS, in_words, seconds_per_step, total_seconds

        configure_torch(specs[0])
    per_step: dict[str, dict[str, float]] = {}
    for found in inspect_runs(loaded, specs):
        macs = int(found.cost.columns["macs"].sum())
        line = f"run            {found.spec.run}: {found.method.backbone()}, {found.params:,} parameters, "
        line += f"units sum to {macs / 1e6:,.2f} M MACs"
        if not found.spec.evaluate_only:
            if options.time:
                per_step[found.spec.run] = seconds_per_step(found, bundle, device)
            for planned, memory in zip(found.spec.stages, training_memory(found).values()):
                line += f"; stage {planned.name}: {length_of(planned.recipe, bundle.counts['train'])}, "
                line += f"about {memory['total'] / 2**20:,.0f} MiB to train"
                if options.time:
                    line += f", about {1e3 * per_step[found.spec.run][planned.name]:.3g} ms a step"
        print(line)
    if per_step:
        whole = in_words(total_seconds(specs, per_step, bundle.counts["train"]))
        print(f"time           about {whole} to train everything, one run after another on this machine: an estimate "
              f"from {TIMED_STEPS} steps of each stage, without evaluation")  # fmt: skip
    for note in notes:
        kind, _, text = note.partition(": ")
        print(f"{kind:<14} {text}")
    print("all good")
    return 0
