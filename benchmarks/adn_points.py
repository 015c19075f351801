"""All operating points of an Adaptive Depth Network: shared prefixes against one forward per point.

    python benchmarks/adn_points.py [--arch resnet50] [--batch 4] [--rounds 5] [--device cpu] [--limit 0.55]

Both give the logits of every skip configuration. Configurations that begin alike share what they have in
common: a tree walk over the stages, against 2^n whole forwards. The two take turns, so that a machine that
slows down slows both. Prints the ratio of the work (MACs of what runs) and of the times, median over rounds;
fails where a logit differs by more than the kernels' rounding, or the ratio of times is above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from bench.config.data import DataSpec
from bench.cost.table import CostTable
from bench.cost.units import count_units
from methods.adn.config import ADNConfig
from methods.adn.method import ADN
from methods.adn.network import AdaptiveNetwork


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    config = ADNConfig(depth=int(args.arch)) if args.arch.isdigit() else ADNConfig(arch=args.arch)
    side = args.side or (32 if config.arch is None else 224)
    method = ADN(config, DataSpec("benchmark", 1000, side))
    torch.manual_seed(0)
    network = method.build(method.stages()[-1]).eval()
    table = count_units(method, network)
    network.to(device)
    images = torch.randn(args.batch, 3, side, side, device=device)
    points = network.skips()

    print(f"{method.backbone()}, {len(points)} points, batch {args.batch} of {side} pixels, {_where(device)}")
    with torch.no_grad():
        worst = _difference(list(shared(network, images)), list(separate(network, images)))
        print(f"  work, shared / separate   {_work_ratio(method, network, table):.4f}")
        times: dict[str, list[float]] = {"shared": [], "separate": []}
        for _ in range(args.rounds):
            for name, run in (("shared", shared), ("separate", separate)):
                times[name].append(_seconds(run, network, images, device))
    ratio = statistics.median(s / p for s, p in zip(times["shared"], times["separate"]))
    for name, seconds in times.items():
        print(f"  {name:9s} {statistics.median(seconds):8.3f} s  (best {min(seconds):.3f} s of {args.rounds})")
    print(f"  time, shared / separate   {ratio:.4f}")
    print(f"  largest difference of a logit: {worst:.1e}")
    if worst > 1e-5:
        raise SystemExit("the logits differ")
    if ratio > args.limit:
        raise SystemExit(f"the ratio of times is above {args.limit}")


def shared(network: AdaptiveNetwork, images: Tensor) -> list[Tensor]:
    return [logits for _, logits in network.walk(images)]


def separate(network: AdaptiveNetwork, images: Tensor) -> list[Tensor]:
    return [network(images, skip) for skip in network.skips()]


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest difference, relative to the largest logit."""
    first, second = torch.stack(ours), torch.stack(theirs)
    return float((first - second).abs().max() / second.abs().max())


def _work_ratio(method: ADN, network: AdaptiveNetwork, table: CostTable) -> float:
    """fvcore's MACs (both sets of norms counted) of the modules that run in one walk, by hooks."""
    ran: Counter[str] = Counter()
    handles = [
        unit.module.register_forward_hook(lambda *_, name=unit.name: ran.update([name]))
        for unit in method.units(network)
    ]
    weight = next(network.parameters())
    image = torch.zeros(1, 3, method.data.image_size, method.data.image_size, device=weight.device)
    shared(network, image)
    for handle in handles:
        handle.remove()
    macs = dict(zip(table.units, table.columns["macs_fvcore"].tolist()))
    apart = int(table.cost(method.walker(network).counts())["macs_fvcore"].sum())
    return sum(macs[name] * times for name, times in ran.items()) / apart


def _seconds(
    run: Callable[[AdaptiveNetwork, Tensor], list[Tensor]],
    network: AdaptiveNetwork,
    images: Tensor,
    device: torch.device,
) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(network, images)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _where(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread(s)"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50", help="an ImageNet backbone, or the depth of a CIFAR ResNet")
    parser.add_argument("--side", type=int, help="side of the images; default 224, or 32 for CIFAR ResNets")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=0.55, help="fail above this ratio of times")
    return parser.parse_args()


if __name__ == "__main__":
    main()
