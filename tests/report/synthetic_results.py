"""A results folder as a finished comparison leaves it, with made-up but coherent networks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_records import exits_record, make_cost, make_record

from bench.config.schema import Evaluate
from bench.cost.table import CostTable
from bench.evaluate.record import DecisionRecord
from bench.evaluate.rows import make_rows, write_rows
from bench.files import write_json_atomic, write_text_atomic

M = 1_000_000


def static(macs: float, skill: float):
    """A plain network: one point."""

    def make(n: int, seed: int) -> tuple[DecisionRecord, CostTable]:
        record = make_record([skill], np.ones((1, 2), np.uint8), n=n, seed=seed, points=["full"])
        return record, make_cost([int(macs * M) - 1000, 1000], record.units)

    return make


def exits(lift: float):
    def make(n: int, seed: int) -> tuple[DecisionRecord, CostTable]:
        return exits_record(n, seed, lift=lift)

    return make


def paths(macs: float, skill: float, skippable: int = 3):
    """2^n static paths of one network, the full one first."""

    def make(n: int, seed: int) -> tuple[DecisionRecord, CostTable]:
        p = 2**skippable
        skip = np.array([[(k >> (skippable - 1 - b)) & 1 for b in range(skippable)] for k in range(p)])
        counts = np.concatenate([np.ones((p, 1), int), 1 - skip], axis=1).astype(np.uint8)
        names = ["".join("T" if s else "F" for s in row) for row in skip]
        skills = skill - 0.09 * skip.sum(1) - 0.02 * skip[:, 0]
        record = make_record(skills, counts, n=n, seed=seed, points=names)
        each = int(macs * M * 0.4 / skippable)
        return record, make_cost([int(macs * M * 0.6)] + [each + 1000 * k for k in range(skippable)], record.units)

    return make


def gates(macs: float, skill: float, blocks: int = 12):
    """A gated network: images of different difficulty run different numbers of blocks; three thresholds."""

    def make(n: int, seed: int) -> tuple[DecisionRecord, CostTable]:
        rng = np.random.default_rng(seed + 99)
        thresholds = [0.5, 0.3, 0.7]
        skills = [skill, skill + 0.03, skill - 0.08]
        need = rng.beta(2, 1.5, size=(n, blocks))
        blocks_run = np.stack([need > t for t in thresholds]).astype(np.uint8)
        counts = np.concatenate([np.ones((3, n, 1), np.uint8), blocks_run], axis=2)
        record = make_record(skills, counts, n=n, seed=seed, points=[f"t{t:g}" for t in thresholds])
        each = int(macs * M / blocks)
        cost = make_cost([M] + [each] * blocks, record.units, computation_percent=[0.0] + [100 / blocks] * blocks)
        return record, cost

    return make


#: run, label, method, capabilities, maker, stages
Recipe = tuple[str, str, str, Sequence[str], Any, Sequence[str]]

QUICK: list[Recipe] = [
    ("resnet8", "ResNet-8", "resnet", [], static(12.3, 0.75), ["train"]),
    ("resnet14", "ResNet-14", "resnet", [], static(26.5, 0.98), ["train"]),
    ("resnet20", "ResNet-20", "resnet", [], static(40.6, 1.12), ["train"]),
]
FAMILIES: list[Recipe] = [
    *QUICK,
    ("paths20", "Adaptive-depth ResNet-26", "paths", ["static_paths"], paths(55, 1.25), ["train"]),
    ("gated38", "Gated ResNet-38", "gated", ["gates"], gates(80, 1.3), ["sp", "hrl"]),
    ("early5", "Early exits", "early", ["exits"], exits(0.0), ["train"]),
    ("early5plus", "Early exits, improved", "early", ["exits"], exits(0.12), ["ge", "ofa"]),
]


def write_results(
    out: Path,
    recipes: Sequence[Recipe] = FAMILIES,
    *,
    seeds: Sequence[int] = (0,),
    n: int = 1000,
    val: int = 500,
    protocol: str = "holdout",
    name: str = "example",
    title: str | None = "Early exits, gates and static paths on CIFAR-10",
    epochs: int = 30,
    broken: dict[tuple[str, int], tuple[str, str]] | None = None,
    reference: str | None = None,
    budgets: Sequence[float | str] = (),
    more: dict[str, dict[str, Any]] | None = None,
    auc: Sequence[float | str] | None = None,
    verdicts: dict[str, Any] | None = None,
    position_of: Sequence[str] | None = None,
) -> Path:
    """Write a whole folder. broken: (run, seed) -> (status, reason) for runs without numbers. more: run -> what a
    file says of it for comparing (group, factors, published). auc, verdicts: as a file has them. position_of: run names
    whose places make the runs' ids and networks; default: those of recipes."""
    broken, more = broken or {}, more or {}
    runs, table = [], []
    places = list(position_of or [recipe[0] for recipe in recipes])
    for run, label, method, capabilities, make, stages in recipes:
        position = places.index(run)
        for seed in seeds:
            run_id = f"{position:04x}{seed:04x}abcd"
            folder = f"runs/{run}-seed{seed}-{run_id[:8]}"
            runs.append({"run": run, "label": label, "method": method, "seed": seed, "run_id": run_id,
                         "folder": folder, **more.get(run, {})})  # fmt: skip
            path = out / folder
            status, reason = broken.get((run, seed), ("done", None))
            facts = {
                "started_at": "2026-11-21T10:00:00", "torch": "2.15.0+cpu", "python": "3.11.7", "processes": 1,
                "host_class": "Example CPU (2 cores)", "run": run, "seed": seed, "method": method,
                "run_id": run_id, "status": status, "reason": reason,
            }  # fmt: skip
            if status == "done":
                facts |= {"wall_s": 61.5 + position, "train_s": 55.0, "split_hash": "0123456789abcdef",
                          "counts": {"train": 45000, "val": val, "test": n}}  # fmt: skip
            table.append(facts)
            write_json_atomic(path / "status.json", facts)
            write_json_atomic(path / "spec.json", {
                "protocol_version": 1, "comparison": name, "run": run, "label": label, "method": method,
                "options": {"depth": 8}, "all_options": {"depth": 8, "norm": "batch"}, "seed": seed,
                "stages": [{"name": s, "start_from": None, "recipe": {"epochs": epochs, "lr": 0.1}, "options": {}}
                           for s in stages],
                "data": {"name": "cifar10", "val_size": val}, "protocol": protocol,
                "evaluate": {"confidence_level": 0.95}, "skip": None,
            })  # fmt: skip
            write_text_atomic(path / "metrics.jsonl", _curves(stages, epochs, seed, position, status))
            if status != "done":
                continue
            record, cost = make(n, 1000 * seed + position)
            records = {"test": record}
            if protocol == "holdout":
                records["val"] = make(val, 1000 * seed + position + 500)[0]
            for split, one in records.items():
                one.save(path, split)
            write_json_atomic(path / "cost.json", cost.to_dict())
            meta = {
                "protocol_version": 1, "comparison": name, "run": run, "run_id": run_id, "label": label,
                "dataset": "cifar10", "split_hash": "0123456789abcdef", "protocol": protocol, "seed": seed,
                "method": method, "backbone": run, "stage": stages[-1], "status": "done", "reason": "",
                "torch": "2.15.0+cpu", "python": "3.11.7", "device": "cpu",
                "host_class": "Example CPU (2 cores)", "amp": "off", "capabilities": list(capabilities),
            }  # fmt: skip
            write_json_atomic(path / "meta.json", meta)
            write_rows(path / "rows.csv", make_rows(meta, records, cost, Evaluate()))
    write_json_atomic(out / "comparison.json", {
        "name": name, "title": title, "protocol": protocol, "data": "cifar10", "protocol_version": 1,
        "confidence_level": 0.95, "reference": reference, "budgets": list(budgets), "runs": runs,
        **({"auc": list(auc)} if auc else {}), **({"verdicts": verdicts} if verdicts else {}),
    })  # fmt: skip
    return out


def _curves(stages: Sequence[str], epochs: int, seed: int, position: int, status: str) -> str:
    rng = np.random.default_rng(seed * 100 + position)
    lines = []
    for number, stage in enumerate(stages):
        for epoch in range(1, epochs + 1):
            if status == "diverged" and epoch > epochs // 3:
                break
            progress = 1 - math.exp(-(epoch + number * epochs) / (epochs / 3))
            loss = 2.3 * (1 - progress) + 0.2 + 0.05 * position + 0.03 * rng.normal()
            line = {
                "stage": stage, "epoch": epoch, "step": epoch * 350, "lr": 0.1, "loss": loss,
                "accuracy": 10 + 82 * progress - position + rng.normal(), "images_per_s": 1234.5,
            }  # fmt: skip
            if epoch % 5 == 0:
                line["val_top1"] = 10 + 78 * progress - position + rng.normal()
            lines.append(json.dumps(line) + "\n")
    return "".join(lines)
