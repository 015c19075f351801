"""The dense network: equality with the plain ResNet, what skipping leaves, gates, any size, no hidden state."""

from __future__ import annotations

import copy

import pytest
import torch
from skipnet_nets import DATA, lively_network, random_batch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.norms.config import NormConfig
from baselines.resnet import CifarResNet, imagenet_resnet
from bench.config.data import DataSpec
from bench.config.schema import Recipe
from bench.errors import ConfigError
from bench.method import Point, Stage
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.execution import run_compacted
from methods.skipnet.gates import above, sampled, soft, straight_through
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet, final_gate_layers
from methods.skipnet.weights import to_released

SMALL_IMAGENET = DataSpec("tiny", 10, 64)


def force_gates(network: GatedResNet, bias: float) -> None:
    with torch.no_grad():
        for layer in final_gate_layers(network):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[-1] = bias


def plain_twin(network: GatedResNet) -> nn.Module:
    """torchvision's or the baseline's own ResNet with the same backbone weights."""
    config = network.config
    classes = network.head.fc.out_features
    if config.depth is not None:
        plain: nn.Module = CifarResNet(config.depth, classes, "B", width=config.width)
    else:
        plain = imagenet_resnet(str(config.arch), classes)
    weights = {}
    for key, value in to_released(network).items():
        if "_gate" in key or "_ds" in key or key.startswith("control"):
            continue
        head, _, rest = key.partition(".")
        group, separator, index = head.partition("_layer")
        weights[f"layer{group[5:]}.{index}.{rest}" if separator else key] = value
    plain.load_state_dict(weights, strict=True)
    return plain.eval()


@pytest.mark.parametrize(("options", "data", "batch"), [
    ({"depth": 38}, DATA, 6),
    ({"depth": 110, "gate": "ff2"}, DATA, 2),
    ({"depth": 20, "gate": "ff1", "width": 8}, DATA, 6),
    ({"arch": "resnet18", "gate": "ff1"}, SMALL_IMAGENET, 4),
    ({"arch": "resnet50"}, DataSpec("imagenet", 1000, 224), 2),
])  # fmt: skip
def test_with_all_gates_open_it_is_the_plain_resnet(options: dict, data: DataSpec, batch: int) -> None:
    method = SkipNet(SkipNetConfig(**options), data)
    network = lively_network(method) if data is DATA else method.build(Stage("sp"))
    force_gates(network.eval(), 30.0)
    images = random_batch(batch, side=data.image_size).images
    with torch.no_grad():
        expected = plain_twin(network)(images)
    assert torch.equal(method.record(network, images).logits[0], expected)
    assert torch.equal(method.execute(network, images, method.points(network)[0]).logits, expected)
    with torch.no_grad():
        assert torch.equal(network.route(images, straight_through(0.5)).logits, expected)


def test_without_gates_it_is_the_plain_resnet() -> None:
    method = SkipNet(SkipNetConfig(depth=14, gate="none"), DATA)
    network = method.build(method.stages()[0]).eval()
    plain = CifarResNet(14, 10, "B").eval()
    plain.load_state_dict(to_released(network))
    images = random_batch(3).images
    with torch.no_grad():
        expected = plain(images)
    decisions = method.record(network, images)
    assert torch.equal(decisions.logits[0], expected)
    assert bool((decisions.counts == 1).all())
    assert [point.name for point in method.points(network)] == ["full"]
    assert torch.equal(method.execute(network, images, Point("full")).logits, expected)


def test_with_all_gates_closed_only_block_0_and_unrectified_projections_remain() -> None:
    method = SkipNet(SkipNetConfig(depth=20), DATA)
    network = lively_network(method).eval()
    force_gates(network, -30.0)
    images = random_batch(4).images
    with torch.no_grad():
        x = network.stem(images)
        x = F.relu(network.blocks[0].branch(x) + x)
        assert float(x.min()) >= 0
        for key in ("3", "6"):
            x = network.projections[key](x)
            assert float(x.min()) < 0
        expected = network.head(x)
    assert torch.equal(method.record(network, images).logits[0], expected)
    assert torch.equal(method.execute(network, images, method.points(network)[0]).logits, expected)


def test_a_probability_equal_to_the_threshold_skips() -> None:
    network = lively_network(SkipNet(SkipNetConfig(depth=14), DATA)).eval()
    force_gates(network, 0.0)
    images = random_batch(2).images
    assert not network.route(images, above(0.5)).actions.any()
    assert not network.route(images, straight_through(0.5)).actions.any()
    assert network.route(images, above(0.4999)).actions.all()


def test_straight_through_is_exactly_0_or_1_and_passes_the_gradient_of_p() -> None:
    logits = torch.linspace(-12, 12, 100_001).requires_grad_()
    action = straight_through(0.5)(0, logits)
    assert set(action.unique().tolist()) == {0.0, 1.0}
    upstream = torch.randn_like(action)
    action.backward(upstream)
    p = torch.sigmoid(logits.detach())
    assert torch.allclose(logits.grad, upstream * p * (1 - p))


def test_soft_gates_blend_in_training_and_decide_in_evaluation() -> None:
    method = SkipNet(SkipNetConfig(depth=14, soft_gates=True), DATA)
    network = lively_network(method)
    batch = random_batch(6)
    loss = method.loss(copy.deepcopy(network), batch, Stage("sp").resolve(Recipe()))["loss"].detach()
    with torch.no_grad():
        blended = F.cross_entropy(copy.deepcopy(network).route(batch.images, soft()).logits, batch.labels)
        hard = F.cross_entropy(copy.deepcopy(network).route(batch.images, above(0.5)).logits, batch.labels)
    assert float(loss) == pytest.approx(float(blended))
    assert float(loss) != pytest.approx(float(hard), rel=1e-3)
    counts = method.record(network.eval(), batch.images).counts
    assert set(counts[0][:, 2:7].unique().tolist()) == {0, 1}


def test_sampled_actions_follow_the_probability() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, 0.0, 1.5]).repeat_interleave(20_000)
    rate = sampled()(0, logits).double().reshape(3, -1).mean(1)
    assert torch.allclose(rate, torch.sigmoid(torch.tensor([-2.0, 0.0, 1.5])).double(), atol=0.015)


def test_keep_open_bias_opens_gates() -> None:
    def open_rate(bias: float, gate: str) -> float:
        torch.manual_seed(1)
        network = SkipNet(SkipNetConfig(depth=20, keep_open_bias=bias, gate=gate), DATA).build(Stage("sp"))
        return float(network.route(random_batch(16).images, above(0.5)).actions.float().mean())

    for gate in ("rnn", "ff2"):
        assert open_rate(50.0, gate) == 1.0
        assert open_rate(-50.0, gate) == 0.0


def test_released_initialisation() -> None:
    torch.manual_seed(0)
    cifar = SkipNet(SkipNetConfig(depth=110), DATA).build(Stage("sp"))
    conv = torch.cat([block.branch.conv2.weight.detach().flatten() for block in cifar.blocks[40:]])
    assert float(conv.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    embeddings = torch.cat([gate.linear.weight.detach().flatten() for gate in cifar.gates])
    assert float(embeddings.std()) == pytest.approx((2 / 10) ** 0.5, rel=0.05)
    assert float(cifar.head.fc.weight.detach().std()) == pytest.approx((2 / 640) ** 0.5, rel=0.15)
    assert float(cifar.control.cell.weight_hh.detach().abs().max()) <= 10**-0.5
    assert all(bool((m.weight == 1).all()) for m in cifar.modules() if isinstance(m, nn.BatchNorm2d))
    forward = SkipNet(SkipNetConfig(depth=110, gate="ff2"), DATA).build(Stage("sp"))
    last = torch.cat([gate.linear.weight.detach().flatten() for gate in forward.gates])
    assert float(last.std()) == pytest.approx(1.0, rel=0.05)
    large = SkipNet(SkipNetConfig(arch="resnet18"), SMALL_IMAGENET).build(Stage("sp"))
    assert float(large.control.cell.weight_ih.detach().std()) == pytest.approx((2 / 50) ** 0.5, rel=0.15)
    assert not large.control.cell.bias_ih.any()
    assert not large.control.proj.bias.any()


@pytest.mark.parametrize("gate", ["rnn", "ff1", "ff2"])
@pytest.mark.parametrize(("family", "side"), [({"depth": 14}, 23), ({"depth": 8}, 64), ({"arch": "resnet18"}, 32),
                                              ({"arch": "resnet18"}, 97)])  # fmt: skip
@pytest.mark.parametrize("batch", [1, 5])
def test_any_input_size_and_a_batch_of_one(gate: str, family: dict, side: int, batch: int) -> None:
    method = SkipNet(SkipNetConfig(**family, gate=gate), DataSpec("any", 7, side))
    network = lively_network(method).eval()
    images = random_batch(batch, side=side).images
    decisions = method.record(network, images)
    executed = method.execute(network, images, method.points(network)[0])
    assert decisions.logits.shape == (1, batch, 7)
    assert torch.equal(decisions.counts[0], executed.counts)
    assert torch.allclose(decisions.logits[0], executed.logits, rtol=1e-4, atol=1e-5)
    for unit in method.units(network):  # example inputs have the shapes that the modules see
        unit.module(*unit.inputs)


def test_units_see_the_shapes_of_a_real_pass() -> None:
    for config, side in ((SkipNetConfig(depth=14), 23), (SkipNetConfig(arch="resnet50", gate="ff1"), 65)):
        method = SkipNet(config, DataSpec("any", 7, side))
        network = method.build(Stage("sp")).eval()
        force_gates(network, 30.0)
        units = method.units(network)
        seen = shapes_seen(network, random_batch(1, side=side).images)
        for unit in units:
            assert seen[unit.module] == [tuple(x.shape) for x in unit.inputs], unit.name


def shapes_seen(network: GatedResNet, images: Tensor) -> dict[nn.Module, list[tuple[int, ...]]]:
    seen: dict[nn.Module, list[tuple[int, ...]]] = {}
    for module in network.modules():
        module.register_forward_hook(
            lambda module, inputs, output: seen.update(
                {module: [tuple(x.shape) for x in inputs if isinstance(x, Tensor)]}
            )
        )
    with torch.no_grad():
        network(images)
    return seen


def test_no_state_is_kept_between_passes() -> None:
    method = SkipNet(SkipNetConfig(depth=14), DATA)
    network = lively_network(method)
    batch = random_batch(4)
    method.loss(network, batch, Stage("hrl").resolve(Recipe()))["loss"].backward()
    twin = copy.deepcopy(network)  # fails where a non-leaf tensor stays on a module
    network.eval(), twin.eval()
    first = network(batch.images)
    network(random_batch(9, seed=3).images)
    assert torch.equal(first, network(batch.images))
    assert torch.equal(first, twin(batch.images))
    for module in network.modules():
        kept = [v for v in vars(module).values() if isinstance(v, Tensor | list)]
        assert all(not isinstance(v, Tensor) and not any(isinstance(x, Tensor) for x in v) for v in kept)


def test_state_follows_the_device_and_half_precision_stays_out_of_the_gates() -> None:
    method = SkipNet(SkipNetConfig(depth=14), DATA)
    with torch.device("meta"):
        network = method.build(Stage("sp"))
        images = torch.zeros(2, 3, 32, 32)
    assert network.eval()(images).device.type == "meta"
    network = lively_network(method).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routed = network.route(random_batch(4).images, above(0.5))
        logits = run_compacted(network, random_batch(4).images, above(0.5)).logits
    assert routed.gate_logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_norm_option_reaches_backbone_and_gates() -> None:
    config = SkipNetConfig(depth=14, gate="ff1", norm=NormConfig(eps=0.25))
    network = SkipNet(config, DATA).build(Stage("sp"))
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 2 * 6 + 2 + 2 * 5
    assert all(norm.eps == 0.25 for norm in norms)


def test_imagenet_networks_refuse_other_channels() -> None:
    with pytest.raises(ConfigError, match="3 channels"):
        SkipNet(SkipNetConfig(arch="resnet18"), DataSpec("grey", 10, 28, channels=1)).build(Stage("sp"))
