"""What must stay as it is when the code around it changes: identities, costs, records, losses.

    python tests/contract/pinned.py        # writes pinned.json anew; its difference is what a change did

Weights come from numpy's generator and every number is a function of them, so the file fits any machine. What
sums many products (logits and what follows from them) is compared with a tolerance, all else exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.load import load_config
from bench.config.resolve import RunSpec, parse_options, recipe_identity, resolve
from bench.config.schema import Recipe
from bench.cost.units import count_units
from bench.errors import ConfigError
from bench.evaluate.collect import record_split
from bench.launch.plans import ExitRule
from bench.method import Batch, DataSpec, Method
from bench.registry import method_class, method_config

FILE = Path(__file__).with_name("pinned.json")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CIFAR, IMAGENET, CIFAR100 = DataSpec("cifar10", 10, 32), DataSpec("imagenet", 1000, 224), DataSpec("cifar100", 100, 32)
PLAIN = {"ge": "none", "isc": "none", "ofa": "none"}

#: Networks whose cost tables are pinned: method, options, data.
NETWORKS: dict[str, tuple[str, dict[str, Any], DataSpec]] = {
    "resnet20": ("resnet", {"depth": 20}, CIFAR),
    "resnet110": ("resnet", {"depth": 110, "shortcut": "B"}, CIFAR),
    "resnet50": ("resnet", {"arch": "resnet50"}, IMAGENET),
    "adn resnet20": ("adn", {"depth": 20}, CIFAR),
    "adn mobilenet_v2": ("adn", {"arch": "mobilenet_v2"}, IMAGENET),
    "skipnet20 rnn": ("skipnet", {"depth": 20}, CIFAR),
    "skipnet20 ff1": ("skipnet", {"depth": 20, "gate": "ff1"}, CIFAR),
    "skipnet110 rnn": ("skipnet", {"depth": 110}, CIFAR),
    "skipnet110 ff2": ("skipnet", {"depth": 110, "gate": "ff2"}, CIFAR),
    "skipnet resnet18": ("skipnet", {"arch": "resnet18"}, IMAGENET),
    "msdnet lg4": ("imta_msdnet", {"network": "lg4", **PLAIN}, CIFAR100),
    "msdnet lg5 lazy": ("imta_msdnet", {"network": "lg5", **PLAIN, "lazy": True}, CIFAR100),
    "imta lg5": ("imta_msdnet", {"network": "lg5"}, CIFAR100),
    "msdnet imagenet": ("imta_msdnet", {"network": "imagenet4", **PLAIN}, IMAGENET),
}

#: Small networks that are run: method, options.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet8": ("resnet", {"depth": 8}),
    "resnet8 layer norm": ("resnet", {"depth": 8, "norm": "layer"}),
    "adn resnet14": ("adn", {"depth": 14}),
    "adn resnet14 without twins": ("adn", {"depth": 14, "skip_aware": False, "cascade": ["TTT", "FTF", "super"]}),
    "skipnet8 rnn": ("skipnet", {"depth": 8, "thresholds": [0.4, 0.6]}),
    "skipnet8 ff1": ("skipnet", {"depth": 8, "gate": "ff1", "thresholds": [0.4]}),
    "skipnet8 none": ("skipnet", {"depth": 8, "gate": "none", "hrl": False}),
    "msdnet": ("imta_msdnet", {"exits": 3, "channels": 8, "growth": 4, **PLAIN}),
    "imta": ("imta_msdnet", {"exits": 3, "channels": 8, "growth": 4}),
    "imta lazy": ("imta_msdnet", {"exits": 3, "channels": 8, "growth": 4, "lazy": True}),
}


def config_files() -> list[str]:
    files = [p for p in sorted(CONFIGS.rglob("*.yaml")) if "\nname:" in "\n" + p.read_text()]
    return [str(path.relative_to(CONFIGS)) for path in files]


# ---- identities -------------------------------------------------------------------------------------
def identities(file: str) -> str:
    """A hash over the run ids of a shipped comparison and over what its stages' keys are declared from.

    The fingerprints of data and split are not in it: they come from the data, not from the file.
    """
    return _hash([[spec.folder, spec.run_id, _declared(spec)] for spec in resolve(load_config(CONFIGS / file))])


def _declared(spec: RunSpec) -> list[Any]:
    return [
        [spec.data_identity(), spec.method, stage.options, stage.name, recipe_identity(stage.recipe), stage.start_from,
         spec.weights_sha256, spec.deterministic]
        for stage in spec.stages
    ]  # fmt: skip


# ---- costs ------------------------------------------------------------------------------------------
def costs(name: str) -> dict[str, Any]:
    """Units with the shapes that they are counted on, and every column of the table by hash and sum."""
    method, options, data = NETWORKS[name]
    made = make(method, options, data)
    torch.manual_seed(0)
    model = made.build(made.stages()[-1].resolve(Recipe())).eval()
    units = [[unit.name, [list(x.shape) for x in unit.inputs]] for unit in made.units(model)]
    table = count_units(made, model)
    return {
        "units": f"{len(units)} {_hash(units)}",
        "points": f"{len(points := [p.name for p in made.points(model)])} {_hash(points)}",
        "outside": table.params_outside,
        **{column: f"{sum(map(float, values)):.10g} {_hash([float(f'{float(v):.10g}') for v in values])}"
           for column, values in table.columns.items()},
    }  # fmt: skip


# ---- records ----------------------------------------------------------------------------------------
def run(name: str) -> dict[str, Any]:
    """Everything that a small network with fixed weights says: loss, record, execution."""
    method_name, options = RUNS[name]
    method = make(method_name, options, CIFAR)
    losses = {}
    for declared in method.stages():
        stage = declared.resolve(Recipe(label_smoothing=0.1))
        model = method.build(stage)
        fill(model)
        model.train()
        method.set_mode(model, stage)
        torch.manual_seed(0)
        images, labels, _ = next(batches(6))
        parts = method.loss(model, Batch(images, labels, labels, images), stage)
        losses |= {f"{stage.name} {key}": float(part.detach()) for key, part in parts.items() if key != "logits"}
    model = method.build(method.stages()[-1].resolve(Recipe())).eval()
    fill(model)
    record = record_split(method, model, batches(8, 8, 4), device="cpu")
    signals, outcomes = record.signals, record.outcomes
    # one row of counts for all images says the same as a row for each
    counts = signals.counts if signals.counts.ndim == 3 else signals.counts[:, None].repeat(signals.n, axis=1)
    exact = {"points": list(signals.points), "units": list(signals.units), "counts": counts.tolist(),
             "prediction": signals.prediction.tolist(), "hit": outcomes.hit.tolist(), "hit5": outcomes.hit5.tolist()}
    floats = {"confidence": signals.confidence, "margin": signals.margin, "entropy": signals.entropy,
              "logp": outcomes.logp, **signals.extra}  # fmt: skip
    return {
        "loss": losses,
        "exact": {key: _hash(value) for key, value in exact.items()},
        "floats": {key: [" ".join(f"{v:.6g}" for v in row) for row in value] for key, value in floats.items()},
        "executed": _executed(method, model, float(np.median(signals.confidence))),
    }


@torch.no_grad()
def _executed(method: Method, model: nn.Module, threshold: float) -> dict[str, str]:
    """What points and a policy of one threshold really ran, and where images stopped."""
    images = next(batches(20))[0]
    done = {point.name: method.execute(model, images, point) for point in method.points(model)}
    try:
        done["policy"] = method.execute(model, images, ExitRule([threshold] * 64))
    except ConfigError as error:
        return {key: _hash(one.counts.tolist()) for key, one in done.items()} | {"policy": str(error)}
    return {key: _hash([one.counts.tolist(), one.taken.tolist(), one.logits.argmax(1).tolist()])
            for key, one in done.items()}  # fmt: skip


# ---- parts ------------------------------------------------------------------------------------------
def make(name: str, options: dict[str, Any], data: DataSpec) -> Method:
    return method_class(name)(parse_options(method_config(name), options), data)


def fill(model: nn.Module) -> None:
    """Weights of ordinary size from numpy's generator, in the order of their names."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            noise = torch.from_numpy(rng.standard_normal(tuple(tensor.shape), dtype=np.float32))
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.2 * noise.abs())
            elif name.endswith(("running_mean", "bias")):
                tensor.copy_(0.1 * noise)
            elif tensor.ndim < 2:
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(noise * math.sqrt(2 / (tensor.numel() / len(tensor))))


def batches(*sizes: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images of different contrast, their labels and their numbers."""
    rng, first = np.random.default_rng(1), 0
    for size in sizes:
        images = rng.standard_normal((size, 3, 32, 32)) * rng.uniform(0.3, 2.5, (size, 1, 1, 1))
        numbers = torch.arange(first, first + size)
        yield torch.from_numpy(images.astype(np.float32)), numbers % 10, numbers
        first += size


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    pinned = {
        "identities": {file: identities(file) for file in config_files()},
        "costs": {name: costs(name) for name in NETWORKS},
        "runs": {name: run(name) for name in RUNS},
    }
    FILE.write_text(json.dumps(pinned, indent=1) + "\n")
    print(f"{FILE} written", file=sys.stderr)


if __name__ == "__main__":
    main()
