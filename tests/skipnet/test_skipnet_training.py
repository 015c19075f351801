"""Both stages as they are trained: steps, hand-over, sharpening, frozen statistics, watched gates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from skipnet_nets import DATA, lively_network, random_batch
from torch import nn
from torch.nn import functional as F

from bench.config.schema import Recipe
from bench.method import Batch, RunStage, Stage
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.gates import above
from methods.skipnet.losses import gate_statistics, others_mean
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet, Routed

SP, HRL = Stage("sp").resolve(Recipe()), Stage("hrl", start_from="sp").resolve(Recipe())


def train(method: SkipNet, network: GatedResNet, stage: RunStage, steps: int, lr: float) -> list[dict[str, float]]:
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    batch = random_batch(32, side=16)
    history = []
    network.train()
    method.set_mode(network, stage)
    for _ in range(steps):
        optimizer.zero_grad()
        parts = method.loss(network, batch, stage)
        parts["loss"].backward()
        optimizer.step()
        history.append({name: float(v.detach()) for name, v in parts.items() if name != "logits"})
    return history


@pytest.mark.parametrize("gate", ["rnn", "ff1", "ff2"])
def test_supervised_training_learns(gate: str) -> None:
    method = SkipNet(SkipNetConfig(depth=8, gate=gate), DATA)
    history = train(method, lively_network(method), SP, 25, 0.05)
    assert history[-1]["ce"] < 0.6 * history[0]["ce"]


@pytest.mark.parametrize(("alpha", "opens"), [(20.0, False), (0.0, True)])
def test_hybrid_training_moves_gates_towards_the_reward(alpha: float, opens: bool) -> None:
    """A large reward closes gates; without one, gates follow the cross-entropy and do not all close."""
    torch.manual_seed(1)
    method = SkipNet(SkipNetConfig(depth=8, alpha=alpha, baseline="batch"), DATA)
    network = lively_network(method)
    train(method, network, SP, 15, 0.05)
    history = train(method, network, HRL, 40, 0.01)
    late = sum(step["gate_open"] for step in history[-5:]) / 5
    assert late > 0.2 if opens else late < 0.1


def test_prepare_takes_over_weights_and_sharpens_once() -> None:
    config = SkipNetConfig(depth=14, temperature=0.05)
    method = SkipNet(config, DATA)
    trained = lively_network(method)
    torch.manual_seed(9)
    fresh = method.build(HRL)
    method.prepare(fresh, HRL, trained)
    own, theirs = fresh.state_dict(), trained.state_dict()
    for key in own:
        factor = 20 if key.startswith("control.proj") else 1
        assert torch.allclose(own[key], theirs[key] * factor), key
    images = random_batch(4).images
    first = [network.eval().route(images, above(0.5)) for network in (fresh, trained)]
    assert torch.equal(first[0].actions, first[1].actions)
    assert torch.allclose(first[0].gate_logits, 20 * first[1].gate_logits, rtol=1e-4)
    supervised = method.build(SP)
    before = {key: value.clone() for key, value in supervised.state_dict().items()}
    method.prepare(supervised, SP, None)
    assert all(torch.equal(before[key], value) for key, value in supervised.state_dict().items())


def test_sharpening_of_feed_forward_gates() -> None:
    method = SkipNet(SkipNetConfig(depth=8, gate="ff2", temperature=0.5), DATA)
    trained = lively_network(method).eval()
    fresh = method.build(HRL).eval()
    method.prepare(fresh, HRL, trained)
    images = random_batch(4).images
    sharp, plain = (network.route(images, above(0.5)).gate_logits for network in (fresh, trained))
    assert torch.allclose(sharp, 2 * plain, rtol=1e-4)


@pytest.mark.parametrize("freeze", [False, True])
def test_frozen_statistics(freeze: bool) -> None:
    method = SkipNet(SkipNetConfig(depth=8, gate="ff1", freeze_norm_statistics=freeze), DATA)
    network = lively_network(method)
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    weight = network.stem.bn1.weight.detach().clone()
    train(method, network, HRL, 2, 0.05)
    unchanged = [torch.equal(v, before[k]) for k, v in network.state_dict().items() if "running" in k]
    assert all(unchanged) if freeze else not any(unchanged)
    assert not torch.equal(network.stem.bn1.weight, weight)
    train(method, network, SP, 1, 0.05)
    assert not any(torch.equal(v, before[k]) for k, v in network.state_dict().items() if "running" in k)


def test_running_statistics_of_projections_move_once_per_step() -> None:
    method = SkipNet(SkipNetConfig(depth=8), DATA)
    network = lively_network(method)
    for stage in (SP, HRL):
        counts = {k: int(v) for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
        method.loss(network, random_batch(4), stage)
        assert all(int(network.state_dict()[k]) == v + 1 for k, v in counts.items())


def test_target_rate_pulls_the_open_rate() -> None:
    rates = {}
    for target in (0.1, 0.9):
        method = SkipNet(SkipNetConfig(depth=14, target_rate=target, target_rate_weight=20.0), DATA)
        network = lively_network(method)
        history = train(method, network, SP, 30, 0.02)
        assert history[0]["loss"] == pytest.approx(history[0]["ce"] + 20 * history[0]["rate_penalty"], rel=1e-5)
        rates[target] = sum(step["gate_open"] for step in history[-5:]) / 5
    assert rates[0.1] < 0.35 < 0.65 < rates[0.9]


def test_target_rate_of_each_gate_is_the_sum_over_gates() -> None:
    """The penalty is sum_g (rate_g - target)^2, which a network with one gate open and one closed cannot escape."""
    config = {"depth": 14, "target_rate": 0.6, "target_rate_weight": 3.0}
    method = SkipNet(SkipNetConfig(**config, target_rate_of="gate"), DATA)
    network = lively_network(method)
    parts = method.loss(network, random_batch(8), SP)
    rates = [float(rate) for name, rate in parts.items() if name != "gate_open" and name.endswith("_open")]
    assert len(rates) == 5  # a network of six blocks, the first always open
    assert len(set(rates)) > 1
    assert float(parts["rate_penalty"]) == pytest.approx(sum((rate - 0.6) ** 2 for rate in rates), rel=1e-5)
    assert float(parts["loss"].detach()) == pytest.approx(float(parts["ce"] + 3 * parts["rate_penalty"]), rel=1e-5)
    parts["loss"].backward()
    gates = [p for name, p in network.named_parameters() if "gate" in name]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gates)


@pytest.mark.parametrize("stage", [SP, HRL])
def test_label_smoothing_and_mixed_targets(stage: RunStage) -> None:
    method = SkipNet(SkipNetConfig(depth=8, rl_weight=0.0), DATA)
    network = lively_network(method)
    batch = random_batch(4)
    mixed = Batch(batch.images, torch.full((4, 10), 0.1), batch.labels, batch.images)
    for smoothing in (0.0, 0.3):
        resolved = replace(stage, recipe=Recipe(label_smoothing=smoothing))
        for given in (batch, mixed):
            torch.manual_seed(2)
            parts = method.loss(network, given, resolved)
            expected = F.cross_entropy(parts["logits"], given.targets, label_smoothing=smoothing)
            assert float(parts["loss"].detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("baseline", ["none", "batch"])
def test_a_batch_of_one_trains(baseline: str) -> None:
    method = SkipNet(SkipNetConfig(depth=8, baseline=baseline), DATA)
    network = lively_network(method)
    for stage in (SP, HRL):
        parts = method.loss(network, random_batch(1), stage)
        parts["loss"].backward()
        assert math.isfinite(float(parts["loss"].detach()))


def test_baseline_of_an_image_leaves_its_own_return_out() -> None:
    gain = torch.tensor([[1.0, 2.0, 6.0]])
    assert torch.allclose(others_mean(gain), torch.tensor([[4.0, 3.5, 1.5]]))
    assert not others_mean(gain[:, :1]).any()


def test_gate_statistics_show_a_collapse() -> None:
    p = torch.tensor([[0.5, 0.5], [0.9, 0.2], [0.99, 0.99]])
    z = torch.logit(p)
    parts = gate_statistics(Routed(torch.zeros(2, 10), z, p > 0.5))
    assert float(parts["gate_open"]) == pytest.approx(0.5)
    assert float(parts["gate00_open"]) == 0.0
    assert float(parts["gate01_open"]) == 0.5
    assert float(parts["gate02_open"]) == 1.0
    assert float(parts["gates_constant"]) == pytest.approx(2 / 3)
    assert float(parts["gates_collapsed"]) == 0.0
    entropy = -(p * p.log2() + (1 - p) * (1 - p).log2()).mean(1)
    for k in range(3):
        assert float(parts[f"gate{k:02d}_entropy"]) == pytest.approx(float(entropy[k]), rel=1e-4)
    assert float(parts["gate_entropy"]) == pytest.approx(float(entropy.mean()), rel=1e-4)
    for value in (0.0, 1.0):
        actions = torch.full((3, 2), value).bool()
        collapsed = gate_statistics(Routed(torch.zeros(2, 10), torch.full((3, 2), 200.0), actions))
        assert float(collapsed["gates_collapsed"]) == 1.0
        assert math.isfinite(float(collapsed["gate_entropy"]))


def test_parts_are_scalars_without_gradient() -> None:
    for gate in ("rnn", "none"):
        method = SkipNet(SkipNetConfig(depth=8, gate=gate), DATA)
        network = lively_network(method) if gate == "rnn" else method.build(method.stages()[0])
        for stage in (SP, HRL) if gate == "rnn" else (Stage("base").resolve(Recipe()),):
            parts = method.loss(network, random_batch(4), stage)
            assert parts["loss"].requires_grad
            for name, value in parts.items():
                if name not in ("loss", "logits"):
                    assert value.ndim == 0, name
                    assert not value.requires_grad, name


def test_compiled_forward_agrees() -> None:
    """What torch.compile traces of a step computes the same loss."""
    method = SkipNet(SkipNetConfig(depth=8), DATA)
    network = lively_network(method)
    batch = random_batch(4)

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return method.loss(self.network, batch._replace(images=images), SP)["loss"]

    eager = Step()(batch.images)
    torch._dynamo.reset()
    compiled = torch.compile(Step(), backend="eager")(batch.images)
    assert torch.allclose(eager, compiled)
