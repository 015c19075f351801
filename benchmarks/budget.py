"""Budgeted batch classification from a record: the vectorised search against the plain sequential loop.

    python benchmarks/budget.py [--exits 5] [--val 50000] [--test 50000] [--tensor-points 2] [--no-loop]

Both make the whole curve: for each of the 40 ratios p/20, thresholds on the validation record, exits,
accuracy and mean cost on the test record. The loop is the textbook one, sample by sample: sort an exit's
confidences, count those that have not left, take the threshold where the quota is met. It runs once over
Python lists, all 40 points, and then over torch tensors element by element, as released evaluators do; that
takes minutes, so only ``--tensor-points`` of the 40 are run and the time is scaled up. Every threshold,
accuracy and cost must be the same number in all of them, or the run fails.
"""

from __future__ import annotations

import argparse
import os
import time

# one core, whatever the machine has: this must be said before numpy is imported
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from collections.abc import Sequence  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from bench.evaluate.policies.exits import BudgetedBatch  # noqa: E402
from bench.evaluate.record import DecisionRecord, Outcomes, Signals  # noqa: E402

#: One point of the curve: thresholds by exit, accuracy, mean cost.
CurvePoint = tuple[list[float], float, float]


def main() -> None:
    args = _arguments()
    val, test = (make_record(args.exits, n, args.classes, seed) for seed, n in enumerate((args.val, args.test)))
    cost = np.arange(1, args.exits + 1, dtype=np.float64)[np.argsort(np.argsort(test.signals.counts.sum(1)))]
    print(f"{args.exits} exits, {args.val} validation and {args.test} test samples, 40 points, one core")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        fast = vectorised(val, test, cost)
        times.append(time.perf_counter() - start)
    best = min(times)
    print(f"  vectorised         {best:8.3f} s  (best of {len(times)}, worst {max(times):.3f} s)")
    if args.no_loop:
        return
    points = range(1, 41)
    tensor_points = [round(p) for p in np.linspace(1, 40, args.tensor_points + 2)[1:-1]]
    for label, some, tensors in (("lists", points, False), ("tensors", tensor_points, True)):
        start = time.perf_counter()
        slow = sequential(val, test, cost, some, tensors)
        seconds = (time.perf_counter() - start) * len(points) / len(some)
        scaled = "" if len(some) == len(points) else f"  (scaled up from p = {', '.join(map(str, some))})"
        print(f"  loop over {label:8s} {seconds:8.3f} s  -> {seconds / best:.0f} times as long{scaled}")
        different = [p for p, point in zip(some, slow) if point != fast[p - 1]]
        if different:
            raise SystemExit(f"the two differ at p = {different}")
    print("  the same thresholds, accuracy and cost at every point")


def vectorised(val: DecisionRecord, test: DecisionRecord, cost: np.ndarray) -> list[CurvePoint]:
    """The curve as the harness makes it."""
    curve = []
    for policy in BudgetedBatch.members(val.signals, cost):
        policy.fit(val.signals, val.outcomes)
        choice = policy.apply(test.signals)
        hits = int(np.count_nonzero(choice.gather(test.outcomes.hit)))
        spent = float(cost @ np.bincount(choice.point, minlength=len(cost)))
        curve.append((policy.thresholds.tolist(), hits / test.n, spent / test.n))
    return curve


def sequential(
    val: DecisionRecord, test: DecisionRecord, cost: np.ndarray, points: Sequence[int], tensors: bool
) -> list[CurvePoint]:
    """The same, sample by sample, over Python lists or torch tensors."""

    def column(values: np.ndarray) -> Sequence:
        return torch.tensor(values) if tensors else values.tolist()

    order = sorted(range(len(cost)), key=lambda point: int(val.signals.counts[point].sum()))
    val_confidence = [column(val.signals.confidence[point]) for point in order]
    test_confidence = [column(test.signals.confidence[point]) for point in order]
    hit = [column(test.outcomes.hit[point]) for point in order]
    costs = [float(cost[point]) for point in order]
    exits, n = len(order), val.n
    curve = []
    for p in points:
        weights = [p ** (k + 1) * 20 ** (exits - k - 1) for k in range(exits)]
        thresholds = [float("inf")] * (exits - 1) + [float("-inf")]
        left = column(np.zeros(n, dtype=bool))
        for k in range(exits - 1):
            quota, count = n * weights[k] // sum(weights), 0
            ranking = np.argsort(-val.signals.confidence[order[k]], kind="stable")
            for i in column(ranking):
                if not left[i]:
                    count += 1
                    if count == quota:
                        thresholds[k] = float(val_confidence[k][i])
                        break
            for i in range(n):
                if val_confidence[k][i] >= thresholds[k]:
                    left[i] = True
        hits = 0
        ran = [0] * exits
        for i in range(test.n):
            for k in range(exits):
                if test_confidence[k][i] >= thresholds[k]:
                    hits += int(hit[k][i])
                    ran[k] += 1
                    break
        spent = sum(costs[k] * ran[k] for k in range(exits))
        curve.append((thresholds, hits / test.n, spent / test.n))
    return curve


def make_record(exits: int, n: int, classes: int, seed: int) -> DecisionRecord:
    """Confidences of a plausible network: later exits are surer and more often right; some exact ties at 1."""
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(0, 1, n)
    order = [exits - 1, *range(exits - 1)]  # points stand with the default, the last exit, first
    confidence = np.empty((exits, n), dtype=np.float32)
    hit = np.empty((exits, n), dtype=bool)
    for place, k in enumerate(order):
        sure = 1 - difficulty * (1 - 0.12 * k) + rng.normal(0, 0.12, n)
        confidence[place] = np.clip(sure, 1 / classes, 1)
        hit[place] = rng.uniform(0, 1, n) < 0.25 + 0.7 * confidence[place]
    counts = np.tril(np.ones((exits, exits), dtype=np.uint8))[order]
    zeros = np.zeros((exits, n), dtype=np.float32)
    indices = np.arange(n)
    names = tuple(f"exit{k + 1}" for k in order)
    signals = Signals(
        names, tuple(f"block {k + 1}" for k in range(exits)), indices, np.zeros((exits, n), np.int32),
        confidence, zeros, zeros, counts,
    )  # fmt: skip
    return DecisionRecord(signals, Outcomes(indices, np.zeros(n, np.int32), hit, hit, zeros))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exits", type=int, default=5)
    parser.add_argument("--val", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--tensor-points", type=int, default=2, help="points of the loop over tensors")
    parser.add_argument("--no-loop", action="store_true", help="time the vectorised search alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
