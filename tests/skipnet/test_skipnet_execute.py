"""Real skipping: what ran, counted by hooks, is what the record says, and the answers are the dense ones."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from skipnet_nets import DATA, lively_network, random_batch
from torch import nn

from bench.errors import ConfigError
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.execution import run_compacted
from methods.skipnet.gates import above
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet

THRESHOLDS = (0.1, 0.35, 0.65, 0.9)


def watched(network: GatedResNet, images: torch.Tensor, run: Any) -> tuple[Counter[str], Counter[str], Any]:
    """Calls and rows of every leaf module while ``run`` runs, and what it returned."""
    calls: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    handles = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            rows[name] += len(inputs[0])

        return hook

    for name, module in network.named_modules():
        handles.append(module.register_forward_hook(watch(name)))
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    return calls, rows, result


@pytest.mark.parametrize("gate", ["rnn", "ff1", "ff2"])
@pytest.mark.parametrize("batch", [1, 2, 13])
def test_what_ran_is_what_the_record_says(gate: str, batch: int) -> None:
    method = SkipNet(SkipNetConfig(depth=38, gate=gate, thresholds=THRESHOLDS), DATA)
    network = lively_network(method).eval()
    images = random_batch(batch).images
    decisions = method.record(network, images)
    points = method.points(network)
    assert [point.name for point in points] == ["t0.5", "t0.1", "t0.35", "t0.65", "t0.9"]
    units = method.units(network)
    module_names = {module: name for name, module in network.named_modules()}
    for index, point in enumerate(points):
        assert float(decisions.signals["gate_margin"][index].min()) > 1e-5
        calls, rows, executed = watched(network, images, lambda point=point: method.execute(network, images, point))
        assert torch.equal(executed.counts, decisions.counts[index])
        assert torch.allclose(executed.logits, decisions.logits[index], rtol=1e-5, atol=1e-5)
        assert not executed.taken.any()
        for number, unit in enumerate(units):
            name = module_names[unit.module]
            if gate == "rnn" and name.startswith(("gates.", "control")):
                continue  # run without their modules (Stepper); the contract tests count the products
            assert rows[name] == int(executed.counts[:, number].sum()), (point.name, unit.name)
            leaves = [key for key in module_names.values() if key.startswith(f"{name}.")]
            assert all(rows[leaf] == rows[name] for leaf in leaves), unit.name
        for key in network.projections:
            assert calls[f"projections.{key}"] == 1  # one computation serves shortcut and block
    assert 0 < int(decisions.counts[:, :, 2:19].sum()) < decisions.counts[:, :, 2:19].numel()


def test_thresholds_are_passes_of_their_own() -> None:
    """Later gates see what earlier decisions made: comparing one pass's probabilities is not enough."""
    method = SkipNet(SkipNetConfig(depth=38, thresholds=(0.2, 0.8)), DATA)
    network = lively_network(method).eval()
    images = random_batch(16).images
    decisions = method.record(network, images)
    at_default = network.route(images, above(0.5))
    differs = False
    for index, threshold in enumerate((0.5, 0.2, 0.8)):
        own = network.route(images, above(threshold)).actions.T.long()
        assert torch.equal(decisions.counts[index][:, 2:19], own)
        differs |= not torch.equal(own, (torch.sigmoid(at_default.gate_logits) > threshold).T.long())
    assert differs


def test_closed_and_open_gates_run_nothing_and_everything() -> None:
    method = SkipNet(SkipNetConfig(depth=20), DATA)
    network = lively_network(method).eval()
    images = random_batch(5).images
    for value in (False, True):
        decided = torch.full((5,), value)
        _, rows, done = watched(
            network, images, lambda decided=decided: run_compacted(network, images, lambda k, z: decided)
        )
        assert bool((done.actions == value).all())
        assert all(rows[f"blocks.{i}"] == 5 * value for i in range(1, 9))
        assert rows["blocks.0"] == 5


def test_images_are_not_written_to() -> None:
    method = SkipNet(SkipNetConfig(depth=20), DATA)
    network = lively_network(method).eval()
    images = random_batch(5).images
    before = images.clone()
    method.execute(network, images, method.points(network)[0])
    assert torch.equal(images, before)


def test_training_mode_and_exit_policies_are_refused() -> None:
    method = SkipNet(SkipNetConfig(depth=8), DATA)
    network = lively_network(method)
    images = random_batch(2).images
    with pytest.raises(ValueError, match="evaluation mode"):
        method.execute(network, images, method.points(network)[0])
    with pytest.raises(ConfigError, match="no exits"):
        method.execute(network.eval(), images, lambda k, logits: logits[:, 0] > 0)


def test_the_benchmark_runs(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks/skipnet_execute.py"
    rows = tmp_path / "rows.csv"
    options = ["--depth", "8", "--batch", "1", "4", "--rates", "0.5", "--seconds", "0", "--min-rounds", "1"]
    done = subprocess.run([sys.executable, script, *options, "--csv", rows], capture_output=True, text=True, check=True)
    assert "execute/dense" in done.stdout
    found = list(csv.DictReader(rows.open()))
    assert [row["batch"] for row in found] == ["1", "4"]
    assert all(0 < float(row["macs/plain"]) < 1 for row in found)


def test_channels_last_is_kept() -> None:
    method = SkipNet(SkipNetConfig(depth=20), DATA)
    network = lively_network(method).eval().to(memory_format=torch.channels_last)
    images = random_batch(6).images.contiguous(memory_format=torch.channels_last)
    decisions = method.record(network, images)
    executed = method.execute(network, images, method.points(network)[0])
    assert torch.equal(executed.counts, decisions.counts[0])
    assert torch.allclose(executed.logits, decisions.logits[0], rtol=1e-4, atol=1e-5)
