"""Exits that are really executed against running every exit: time, beside the ratio of MACs.

    python benchmarks/msdnet_execute.py [--network lg5] [--budget 0.5] [--images 2048] [--batch 256] [--threads 1]

A network with random weights stands for a trained one: thresholds of the budgeted-batch law are fitted on one
set of random images so that the mean cost comes close to the budget, and applied to another. Timed are
``record``, which answers at every exit for every image, and ``execute`` with those thresholds, in turns, the
median of each; the answers of both are compared image by image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from bench.cost.table import CostTable
from bench.cost.units import count_units
from bench.evaluate.policies.exits import BudgetedBatch
from bench.evaluate.record import DecisionRecord, record_split
from methods.imta_msdnet.archs import CIFAR100, IMAGENET
from methods.imta_msdnet.config import NETWORKS, IMTAMSDNetConfig
from methods.imta_msdnet.method import IMTAMSDNet


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    data = IMAGENET if args.network.startswith("imagenet") else CIFAR100
    print(f"{args.network}, {args.images} images of {data.image_size} pixels, batches of {args.batch}, "
          f"torch {torch.__version__}, {args.threads} thread(s)")  # fmt: skip
    for label, options in (
        ("msdnet", {"ge": "none", "isc": "none", "ofa": "none"}),
        ("msdnet, lazy", {"ge": "none", "isc": "none", "ofa": "none", "lazy": True}),
        ("imta, lazy", {"lazy": True}),
    ):
        method = IMTAMSDNet(IMTAMSDNetConfig.model_validate({"network": args.network, **options}), data)
        model = random_network(method)
        compare(label, method, model, args)


def compare(label: str, method: IMTAMSDNet, model: nn.Module, args: argparse.Namespace) -> None:
    """Fit thresholds, time both ways in turns, compare the answers, print a line."""
    table = count_units(method, model)
    calibration, test = (random_images(method, args.images, seed) for seed in (1, 2))
    policy = fit_budget(record_of(method, model, calibration, args.batch), table, args.budget)

    def decide(k: int, logits: Tensor) -> Tensor:
        return logits.softmax(1).amax(1) < float(policy.thresholds[k])

    order = [point.settings["exit"] for point in method.points(model)]
    position = {exit_index: place for place, exit_index in enumerate(order)}
    full_cost = float(table.cost(method.record(model, test[:1]).counts)["macs"].max())
    everything, executed = [], []
    spent, equal = 0, 0
    with torch.no_grad():
        for turn in range(args.repeat + 1):  # the first turn warms up
            seconds, recorded = timed(lambda: [method.record(model, images) for images in test.split(args.batch)])
            everything.append(seconds)
            seconds, ran = timed(lambda: [method.execute(model, images, decide) for images in test.split(args.batch)])
            executed.append(seconds)
            if turn == 0:
                spent = sum(int(table.cost(r.counts)["macs"].sum()) for r in ran)
                for all_exits, r in zip(recorded, ran):
                    place = torch.tensor([position[k] for k in r.taken.tolist()])
                    answers = all_exits.logits.argmax(2)[place, torch.arange(len(place))]
                    equal += int((answers == r.logits.argmax(1)).sum())
    time_ratio = statistics.median(executed[1:]) / statistics.median(everything[1:])
    print(f"  {label:14s} MACs {spent / (full_cost * args.images):.3f}   time {time_ratio:.3f} "
          f"({statistics.median(everything[1:]):.2f} s -> {statistics.median(executed[1:]):.2f} s)   "
          f"equal predictions {equal} of {args.images}")  # fmt: skip


def fit_budget(record: DecisionRecord, table: CostTable, budget: float) -> BudgetedBatch:
    """The point of the law whose mean cost on these images comes closest to this part of the full cost."""
    macs = table.cost(record.signals.counts)["macs"]
    best: tuple[float, BudgetedBatch] | None = None
    for policy in BudgetedBatch.members(record.signals, macs):
        policy.fit(record.signals, record.outcomes)
        mean = float(macs[policy.apply(record.signals).point].mean())
        distance = abs(mean - budget * float(macs.max()))
        if best is None or distance < best[0]:
            best = (distance, policy)
    assert best is not None
    return best[1]


def record_of(method: IMTAMSDNet, model: nn.Module, images: Tensor, batch: int) -> DecisionRecord:
    def loader() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            yield part, torch.zeros(len(part), dtype=torch.int64), torch.arange(start, start + len(part))

    return record_split(method, model, loader(), device="cpu")


def random_network(method: IMTAMSDNet) -> nn.Module:
    """Random weights, and running statistics of random images, so that activations are of ordinary size."""
    torch.manual_seed(0)
    model = method.build(method.stages()[-1])
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None
    with torch.no_grad():
        for part in random_images(method, 128, 0).split(64):
            model.train()(part)
    return model.eval()


def random_images(method: IMTAMSDNet, count: int, seed: int) -> Tensor:
    """Noise of a different contrast and brightness in every image, so that confidences differ."""
    rng = np.random.default_rng(seed)
    side = method.data.image_size
    noise = rng.standard_normal((count, 3, side, side), dtype=np.float32)
    contrast, brightness = rng.uniform(0.2, 2, (count, 1, 1, 1)), rng.uniform(-1, 1, (count, 3, 1, 1))
    return torch.from_numpy((noise * contrast + brightness).astype(np.float32))


def timed(work: Callable[[], list]) -> tuple[float, list]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lg5", choices=sorted(NETWORKS))
    parser.add_argument("--budget", type=float, default=0.5, help="part of the cost of running every exit")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
