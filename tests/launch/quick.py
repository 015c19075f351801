"""Comparisons small enough to be run again and again: every registered method on synthetic images."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from bench.registry import method_class, method_config, method_names
from bench.store.manifest import list_files
from bench.store.status import read_status, write_status

HERE = Path(__file__).parent

#: What is trained on the pictures of ``make_pictures``.
R8 = {"name": "r8", "method": "resnet", "options": {"depth": 8}}
RECIPE = {"epochs": 1, "batch_size": 6, "workers": 0, "train_crop_size": 16, "val_crop_size": 16, "val_resize_size": 16}


def quick_run(name: str, **more: Any) -> dict[str, Any]:
    """An entry of ``runs:`` with a method's small network and short stages."""
    config = method_config(name).small()
    return {
        "name": name, "method": name, "options": config.model_dump(mode="json", exclude_unset=True),
        "stages": {stage.name: {"epochs": 2} for stage in config.stages()}, **more,
    }  # fmt: skip


def write_quick(folder: Path, runs: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A comparison file in ``folder``; ``recipe`` and ``data`` are merged, other keys replaced."""
    tree: dict[str, Any] = {
        "name": "quick",
        "data": {"name": "synthetic", "val_size": 64, "train_subset": 192, "test_subset": 64},
        "recipe": {"epochs": 2, "batch_size": 32, "lr": 0.05, "checkpoint_every": 5},
        "device": "cpu", "threads": 1,
        "runs": runs if runs is not None else [quick_run(name) for name in method_names()],
    }  # fmt: skip
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(tree.get(key), dict) and isinstance(value, dict) else value
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def make_pictures(root: Path) -> Path:
    """Twelve training and six test images of two classes, each under a name of its own."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for place, label in enumerate(("cat", "dog")):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(120 * place, 120 * place + 130, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / label / f"{label}{number}.png")
    return root


def write_folder_file(folder: Path, runs: list[dict[str, object]] | None = None) -> Path:
    path = write_quick(folder, runs or [R8], recipe=RECIPE)
    text = path.read_text().replace("  train_subset: 192\n", "").replace("  test_subset: 64\n", "")
    path.write_text(text.replace("name: synthetic", "name: image_folder").replace("val_size: 64", "val_size: 4"))
    return path


def bench(*arguments: object, timeout: float = 900, **environment: str) -> subprocess.CompletedProcess[str]:
    """``bench ...`` in a process of its own; a run draws nothing unless it is called run+report."""
    if arguments[0] == "run":
        arguments = (*arguments, "--no-report")
    elif arguments[0] == "run+report":
        arguments = ("run", *arguments[1:])
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def killed(kind: str, number: int, *arguments: object) -> int:
    """The exit code of ``bench`` that kills itself (``killer.py``)."""
    command = [sys.executable, str(HERE / "killer.py"), kind, str(number), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=240, check=False).returncode


def statuses(out: Path) -> dict[str, dict[str, Any]]:
    """What became of every run of a comparison, by its name."""
    found = [json.loads(path.read_text()) for path in out.glob("runs/*/status.json")]
    return {status["run"]: status for status in found}


def change_status(folder: Path, **changes: Any) -> None:
    """Store another status of a run, with the hashes of its files as they are now. None removes a value."""
    value = {**read_status(folder), **changes}
    if value.get("files"):
        value["files"] = list_files(folder)
    write_status(folder, {name: entry for name, entry in value.items() if entry is not None or name == "reason"})


def fingerprints(out: Path) -> dict[str, str]:
    """sha256 of everything that must be equal however a comparison got there: weights, records, tables, curves."""
    wanted = [*out.glob("results.csv"), *out.glob("summary.csv"), *out.glob("runs/*/rows.csv"),
              *out.glob("runs/*/*.npz"), *out.glob("runs/*/cost.json"), *out.glob("stages/*/weights-*.pt")]  # fmt: skip
    content = {p: p.read_bytes() for p in wanted} | {p: _curve(p) for p in out.glob("runs/*/metrics.jsonl")}
    return {str(p.relative_to(out)): hashlib.sha256(content[p]).hexdigest() for p in sorted(content)}


def _curve(path: Path) -> bytes:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return repr([{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in lines]).encode()


def write_useless_weights(path: Path) -> None:
    """Weights that fit SMALL and make no finite logit: nothing that is known before the run tells."""
    import torch  # here: most tests start processes and need no torch of their own

    from baselines.config import ResNetConfig
    from bench.config.data import DataSpec

    method = method_class("resnet")(ResNetConfig(depth=8), DataSpec("synthetic", 10, 32))
    state = method.build(method.stages()[-1]).state_dict()
    torch.save({key: torch.full_like(value, 1e38) if value.is_floating_point() else value
                for key, value in state.items()}, path)  # fmt: skip
