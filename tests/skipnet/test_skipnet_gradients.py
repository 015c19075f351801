"""Gradients of both stages in float64 against a second implementation, and whom they reach."""

from __future__ import annotations

import pytest
import skipnet_oracle as oracle
import torch
from skipnet_nets import DATA, lively_network, random_batch
from torch import Tensor

from bench.config.schema import Recipe
from bench.method import Batch, Stage
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.gates import sampled, straight_through
from methods.skipnet.losses import returns
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet
from methods.skipnet.weights import released_names, to_released

SP, HRL = Stage("sp").resolve(Recipe()), Stage("hrl", start_from="sp").resolve(Recipe())


def as_leaves(network: GatedResNet) -> oracle.Weights:
    """The network's weights under released names; aliases are one leaf, as they are one module there."""
    weights = to_released(network)
    parameters = {name for key, _ in network.named_parameters() for name in released_names(network, key)[:1]}
    leaves = {name: weights[name].clone().requires_grad_(name in parameters) for name in weights}
    for name in leaves:
        if "_ds" in name:
            leaves[name] = leaves[name.replace("_ds", "_layer").replace(".", ".downsample.", 1)]
    if "control.proj.weight" in leaves and leaves["control.proj.weight"].ndim != 2:
        raise AssertionError("CIFAR networks hold a linear projection")
    return leaves


def by_released_name(network: GatedResNet) -> oracle.Weights:
    return {
        released_names(network, key)[0]: torch.zeros_like(value) if value.grad is None else value.grad
        for key, value in network.named_parameters()
    }


def worst_relative_error(ours: oracle.Weights, theirs: oracle.Weights) -> float:
    errors = []
    largest = max(float(value.abs().max()) for value in theirs.values())
    for name, gradient in ours.items():
        expected = theirs[name].reshape(gradient.shape)
        size = float(expected.norm())
        if size < 1e-12 * largest:
            assert float(gradient.norm()) < 1e-10 * largest, name
        else:
            errors.append(float((gradient - expected).norm()) / size)
    return max(errors)


@pytest.mark.parametrize(("depth", "gate"), [(38, "rnn"), (14, "ff1"), (14, "ff2")])
def test_supervised_gradient(depth: int, gate: str) -> None:
    method = SkipNet(SkipNetConfig(depth=depth, gate=gate), DATA)
    network = lively_network(method, torch.float64)
    batch = random_batch(10, torch.float64)
    open_rate = network.route(batch.images, straight_through(0.5)).actions.detach().mean()
    assert 0.1 < float(open_rate) < 0.9
    leaves = as_leaves(network)
    theirs = oracle.supervised_gradients(leaves, (depth - 2) // 6, gate, batch.images, batch.labels)
    method.loss(network, batch, SP)["loss"].backward()
    assert worst_relative_error(by_released_name(network), theirs) <= 1e-6


@pytest.mark.parametrize(("depth", "gate", "gamma", "ce_reward"), [
    (38, "rnn", 1.0, "full"), (14, "rnn", 0.9, "scaled"), (14, "ff1", 1.0, "scaled"), (14, "ff2", 0.8, "full"),
])  # fmt: skip
def test_hybrid_gradient_is_that_of_the_stochastic_nodes(
    depth: int, gate: str, gamma: float, ce_reward: str
) -> None:
    alpha, weight = 0.7, 0.03
    config = SkipNetConfig(
        depth=depth, gate=gate, alpha=alpha, rl_weight=weight, rl_reduction="sum", gamma=gamma, ce_reward=ce_reward
    )
    method = SkipNet(config, DATA)
    network = lively_network(method, torch.float64)
    batch = random_batch(10, torch.float64)
    leaves = as_leaves(network)
    torch.manual_seed(5)
    actions = network.route(batch.images, sampled()).actions
    assert 0.1 < float(actions.double().mean()) < 0.9
    torch.manual_seed(5)
    parts = method.loss(network, batch, HRL)
    parts["loss"].backward()
    scale = 1.0 if ce_reward == "full" else alpha / len(actions)
    theirs, replayed = oracle.hybrid_gradients(
        leaves, (depth - 2) // 6, gate, batch.images, batch.labels, actions,
        alpha=alpha, weight=weight, gamma=gamma, ce_scale=scale,
    )  # fmt: skip
    assert torch.allclose(parts["logits"], replayed.logits, rtol=1e-10, atol=1e-10)
    assert worst_relative_error(by_released_name(network), theirs) <= 1e-6


@pytest.mark.parametrize("gate", ["rnn", "ff1"])
def test_cross_entropy_reaches_no_gate_in_hrl_and_the_policy_no_classifier(gate: str) -> None:
    config = SkipNetConfig(depth=14, gate=gate, rl_weight=0.0)
    method = SkipNet(config, DATA)
    network = lively_network(method, torch.float32)
    batch = random_batch(8)
    method.loss(network, batch, HRL)["loss"].backward()
    for name, gradient in gradients(network).items():
        is_gate = name.startswith(("gates", "control"))
        assert bool((gradient != 0).any()) != is_gate, name

    network.zero_grad()
    only_policy = SkipNet(SkipNetConfig(depth=14, gate=gate, rl_weight=1.0), DATA)
    torch.manual_seed(0)
    first = only_policy.loss(network, batch, HRL)["loss"]
    torch.manual_seed(0)
    (first - method.loss(network, batch, HRL)["loss"]).backward()
    found = gradients(network)
    assert float(found["head.fc.weight"].abs().max()) < 1e-6
    assert float(found["head.fc.bias"].abs().max()) < 1e-6
    reached = [name for name in found if not name.startswith(("head", "blocks.5"))]
    assert all(float(found[name].abs().max()) > 1e-6 for name in reached if not name.endswith("bias"))


def test_a_block_that_no_image_runs_gets_no_gradient() -> None:
    method = SkipNet(SkipNetConfig(depth=14), DATA)
    network = lively_network(method, torch.float32)
    closed = torch.zeros(8, dtype=torch.bool)
    network.route(random_batch(8).images, lambda k, z: closed if k == 1 else ~closed).logits.sum().backward()
    found = gradients(network)
    assert not found["blocks.2.branch.conv1.weight"].any()
    assert found["projections.2.0.weight"].any()
    assert found["blocks.3.branch.conv1.weight"].any()


def test_all_gates_are_reached_in_supervised_training() -> None:
    for gate in ("rnn", "ff1", "ff2"):
        method = SkipNet(SkipNetConfig(depth=14, gate=gate), DATA)
        network = lively_network(method, torch.float64)
        method.loss(network, random_batch(8, torch.float64), SP)["loss"].backward()
        for k in range(5):
            found = [p.grad for p in network.gates[k].parameters()]
            assert any(g is not None and bool(g.any()) for g in found), (gate, k)


def test_mean_form_is_the_sum_form_at_128_and_does_not_depend_on_the_batch() -> None:
    def policy_gradient(reduction: str, copies: int) -> Tensor:
        config = SkipNetConfig(depth=8, rl_reduction=reduction, freeze_norm_statistics=True)
        method = SkipNet(config, DATA)
        network = lively_network(method, torch.float64).eval()  # a copy must not change the statistics
        batch = random_batch(16, torch.float64, side=8)
        pattern = torch.arange(16).repeat(copies)
        repeated = Batch(batch.images[pattern], batch.targets[pattern], batch.labels[pattern], batch.images[pattern])
        torch.manual_seed(3)
        actions = network.route(batch.images, sampled()).actions[:, pattern]
        with_actions(method, network, repeated, actions).backward()
        return network.control.proj.weight.grad.clone()

    assert torch.allclose(policy_gradient("mean", 8), policy_gradient("sum", 8), rtol=1e-9)
    assert torch.allclose(policy_gradient("mean", 1), policy_gradient("mean", 8), rtol=1e-9)
    assert torch.allclose(policy_gradient("sum", 1) * 8, policy_gradient("sum", 8), rtol=1e-9)


def with_actions(method: SkipNet, network: GatedResNet, batch: Batch, actions: Tensor) -> Tensor:
    """The hybrid loss under given actions."""
    import methods.skipnet.losses as losses

    original = losses.sampled
    losses.sampled = lambda: lambda k, z: actions[k]  # type: ignore[assignment]
    try:
        return method.loss(network, batch, HRL)["loss"]
    finally:
        losses.sampled = original


def test_returns_by_hand() -> None:
    actions = torch.tensor([[1, 0], [0, 0], [1, 1]], dtype=torch.bool)
    ce = torch.tensor([2.0, 0.5], requires_grad=True)
    full = returns(actions, ce, SkipNetConfig(depth=8, alpha=0.3, gamma=0.5))
    assert not full.requires_grad
    expected = torch.tensor([[0.05 - 0.25, 0.1 + 0.05 - 0.0625], [0.1 - 0.5, 0.1 - 0.125], [-1.0, -0.25]])
    assert torch.allclose(full, expected)
    scaled = returns(actions, ce, SkipNetConfig(depth=8, alpha=0.3, ce_reward="scaled"))
    assert torch.allclose(scaled, torch.tensor([[0.1 - 0.2, 0.2 - 0.05], [0.1 - 0.2, 0.1 - 0.05], [-0.2, -0.05]]))


@pytest.mark.parametrize("baseline", ["none", "batch"])
def test_the_estimator_is_unbiased(baseline: str) -> None:
    """Mean over all joint actions of two images, weighted by their probability, is the exact policy gradient."""
    config = SkipNetConfig(depth=8, alpha=2.0, baseline=baseline, rl_reduction="sum", rl_weight=1.0)
    method = SkipNet(config, DATA)
    network = lively_network(method, torch.float64).eval()
    batch = random_batch(2, torch.float64)
    parameter = network.control.proj.weight
    estimate, objective = torch.zeros_like(parameter), torch.zeros((), dtype=torch.float64)
    for code in range(16):
        actions = torch.tensor([[code & 1, code & 2], [code & 4, code & 8]]).bool()
        routed = network.route(batch.images, lambda k, z, actions=actions: actions[k])
        towards = torch.where(actions, routed.gate_logits, -routed.gate_logits)
        probability = torch.sigmoid(towards).prod()
        ce = torch.nn.functional.cross_entropy(routed.logits, batch.labels, reduction="none")
        loss = with_actions(method, network, batch, actions)
        estimate += probability.detach() * torch.autograd.grad(loss, parameter)[0]
        gain = (~actions).double().mean(0) * config.alpha - ce
        objective = objective - probability * gain.detach().sum()
    exact = torch.autograd.grad(objective, parameter)[0]
    assert float((estimate - exact).abs().max() / exact.abs().max()) < 1e-5


def gradients(network: GatedResNet) -> oracle.Weights:
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in network.named_parameters()}
