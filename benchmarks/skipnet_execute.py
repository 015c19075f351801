"""Does skipping save time? SkipNet's execute against its dense masked form and the ungated ResNet.

    python benchmarks/skipnet_execute.py [--depth 110] [--batch 1 8 64 256] [--rates 0.25 0.5 0.75 1.0]

Per batch size and open rate: time of ``execute`` as a ratio to the dense masked form (every block computed,
gates blend) and to the plain ResNet of the same depth, beside the ratio of MACs. Gates are really computed;
what they say is then replaced by independent random bits of exactly the asked rate, so that every form does
the same work each time. The forms are run in turn, round after round; ratios are medians over the rounds of
the ratio within one round, so that a slow moment of the machine meets all forms alike. One thread unless
--threads says otherwise. --clock cpu counts processor time of this process instead of wall time, which is
what to use on a machine that others use too.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.resnet import CifarResNet
from bench.config.data import DataSpec
from bench.cost.table import CostTable
from bench.cost.units import count_units
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.execution import run_compacted
from methods.skipnet.gates import Choose
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet

DATA = DataSpec("cifar10", 10, 32)


def fixed_actions(network: GatedResNet, batch: int, rate: float, device: torch.device) -> Choose:
    """Random actions of which exactly the given fraction is open, the same at every call."""
    total = len(network.gates) * batch
    generator = torch.Generator().manual_seed(0)
    bits = torch.zeros(total, dtype=torch.bool)
    bits[torch.randperm(total, generator=generator)[: round(rate * total)]] = True
    actions = bits.reshape(len(network.gates), batch).to(device)
    return lambda k, logits: actions[k]


def mac_ratio(method: SkipNet, network: GatedResNet, table: CostTable, ran: Tensor) -> float:
    """MACs of what ran, gates and projections included, over those of the ungated ResNet."""
    macs = dict(zip(table.units, table.columns["macs"].tolist()))
    gates = len(network.gates)
    gating = sum(macs[f"gate{k}"] for k in range(gates)) + macs.get("control", 0) * gates
    ungated = sum(v for name, v in macs.items() if not name.startswith("gate") and name != "control")
    skippable = torch.tensor([macs[f"block{k + 1}"] for k in range(gates)], dtype=torch.float64)
    left_out = float(((~ran.cpu()).double() * skippable[:, None]).sum(0).mean())
    return (ungated + gating - left_out) / ungated


def timed(run: Callable[[], object], clock: Callable[[], float], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure(
    method: SkipNet, network: GatedResNet, plain: nn.Module, table: CostTable, batch: int, rate: float,
    args: argparse.Namespace,
) -> dict[str, float]:  # fmt: skip
    device = torch.device(args.device)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    images = torch.randn(batch, 3, 32, 32, device=device)
    if args.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    choose = fixed_actions(network, batch, rate, device)
    forms: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(images),
        "dense": lambda: network.route(images, choose),
        "execute": lambda: run_compacted(network, images, choose),
    }
    for run in forms.values():  # warm up, and check that both forms say the same
        run()
    dense, done = network.route(images, choose).logits, run_compacted(network, images, choose)
    logits, ran = done.logits, done.actions
    if not torch.allclose(dense, logits, rtol=1e-3, atol=1e-4 * float(dense.abs().max())):
        raise SystemExit("execute and the dense form disagree")
    once = sum(timed(run, clock, device) for run in forms.values())
    rounds = max(args.min_rounds, min(args.max_rounds, int(args.seconds / max(once, 1e-6))))
    times = [{name: timed(run, clock, device) for name, run in forms.items()} for _ in range(rounds)]
    median = {name: statistics.median(one[name] for one in times) for name in forms}
    return {
        "batch": batch,
        "open_rate": rate,
        "plain_ms": 1e3 * median["plain"],
        "dense_ms": 1e3 * median["dense"],
        "execute_ms": 1e3 * median["execute"],
        "execute/dense": statistics.median(one["execute"] / one["dense"] for one in times),
        "execute/plain": statistics.median(one["execute"] / one["plain"] for one in times),
        "macs/plain": mac_ratio(method, network, table, ran),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, default=110)
    parser.add_argument("--gate", choices=("rnn", "ff1", "ff2"), default="rnn")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0], help="fraction of open gates")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--seconds", type=float, default=10.0, help="aim per row")
    parser.add_argument("--min-rounds", type=int, default=5)
    parser.add_argument("--max-rounds", type=int, default=50)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--csv", type=Path, help="write the rows here too")
    args = parser.parse_args()
    if args.clock == "cpu" and args.device != "cpu":
        parser.error("--clock cpu measures nothing of a GPU")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    method = SkipNet(SkipNetConfig(depth=args.depth, gate=args.gate), DATA)
    network = method.build(method.stages()[0]).eval().to(args.device)
    plain = CifarResNet(args.depth, 10, "B").eval().to(args.device)
    if args.channels_last:
        network.to(memory_format=torch.channels_last)
        plain.to(memory_format=torch.channels_last)
    table = count_units(method, network)
    print(f"ResNet-{args.depth}, {args.gate} gates, {args.device}, {args.threads} thread(s), {args.clock} time, "
          f"torch {torch.__version__}, {platform.machine()}")  # fmt: skip
    rows: list[dict[str, float]] = []
    with torch.inference_mode():
        for batch in args.batch:
            for rate in args.rates:
                row = measure(method, network, plain, table, batch, rate, args)
                if not rows:
                    print("  ".join(f"{name:>13}" for name in row))
                rows.append(row)
                print("  ".join(f"{value:>13.3f}" if isinstance(value, float) else f"{value:>13}"
                                for value in row.values()), flush=True)  # fmt: skip
    if args.csv is not None:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
