"""Time of leaving a network with exits at about half of its MACs against running all of it, interleaved.

    python benchmarks/exits_execute.py        # ResNet-50 at 224, batch 16, one thread
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from bench.config.data import DataSpec
from bench.cost.units import count_units
from methods.exits.config import ExitsConfig
from methods.exits.method import Exits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="torchvision/resnet50")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plug = Exits(ExitsConfig(backbone=options.backbone, exits=3), DataSpec("imagenet", 1000, options.side))
    net = plug.build_last().eval()
    images = torch.randn(options.batch, 3, options.side, options.side)
    leaving = torch.tensor([0, 0, 1, 3]).repeat(options.batch // 4 + 1)[: options.batch]  # half of the MACs on average

    def decide(k: int, logits: Tensor) -> Tensor:
        return leaving[leaving >= k] > k

    costs = count_units(plug, net).columns["macs"]
    full = plug.points(net)[0]
    seconds: dict[str, list[float]] = {"full": [], "leaving": []}
    macs: dict[str, float] = {}
    for turn in range(options.rounds + 1):
        for name, plan in (("full", full), ("leaving", decide)):
            began = time.perf_counter()
            done = plug.execute(net, images, plan)
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
            macs[name] = float((done.counts.numpy() @ costs).mean())
    times = {name: statistics.median(values) for name, values in seconds.items()}
    share = macs["leaving"] / macs["full"]
    print(f"{options.backbone} at {options.side}, batch {options.batch}: {share:.3f} of the MACs in "
          f"{times['leaving'] / times['full']:.3f} of the time ({1000 * times['leaving']:.0f} of "
          f"{1000 * times['full']:.0f} ms, median of {options.rounds})")  # fmt: skip


if __name__ == "__main__":
    main()
