"""One training step: its value, its gradients, its buffers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from adn_oracle import randomise
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.data import DataSpec
from bench.config.schema import Recipe
from bench.method import Batch, Stage
from bench.train.ema import ModelEMA
from methods.adn.blocks import skip_aware_norms
from methods.adn.config import ADNConfig
from methods.adn.losses import distillation_loss, feature_loss
from methods.adn.method import ADN

CIFAR = DataSpec("cifar10", 10, 32)
STAGE = Stage("train").resolve(Recipe())


def _batch(images: Tensor, targets: Tensor) -> Batch:
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return Batch(images, targets, labels, images)


def _cifar(seed: int = 0, **options) -> tuple[ADN, nn.Module, Batch]:
    method = ADN(ADNConfig(depth=20, **options), CIFAR)
    torch.manual_seed(seed)
    network = method.build(STAGE)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    return method, network, _batch(images, torch.randint(10, (8,), generator=generator))


def _imagenet_step(arch: str, side: int) -> tuple[ADN, nn.Module, Batch]:
    """The reference setting: seed 0, build, draw four images and labels, seed 5 just before the step."""
    method = ADN(ADNConfig(arch=arch), DataSpec("imagenet", 1000, side))
    torch.manual_seed(0)
    network = method.build(STAGE).train()
    images = torch.randn(4, 3, side, side)
    labels = torch.randint(1000, (4,))
    torch.manual_seed(5)
    return method, network, _batch(images, labels)


@pytest.mark.skipif(torch.__version__.split(".")[:2] != ["2", "15"], reason="values are of torch 2.15's generator")
@pytest.mark.parametrize(
    ("arch", "side", "onednn", "cross_entropy", "distillation"),
    [
        ("resnet50", 64, True, 3.30683589, 0.03062033),
        # The 500th and 501st class of one image are 2e-6 apart; the kernels decide which one is kept.
        ("mobilenet_v2", 64, False, 3.44097829, 0.00714608),
        pytest.param("swin_t", 224, True, 3.46463537, 0.00466514, marks=pytest.mark.slow),
        pytest.param("vit_b_16", 224, True, math.log(1000) / 2, 0.0, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:TF32")
def test_reference_values_of_one_step(arch, side, onednn, cross_entropy, distillation):
    method, network, batch = _imagenet_step(arch, side)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=onednn):
        parts = method.loss(network, batch, STAGE)
    assert 0.5 * parts["loss_super"].item() == pytest.approx(cross_entropy, rel=1e-4)
    assert 0.5 * parts["loss_base"].item() == pytest.approx(distillation, rel=1e-4, abs=1e-9)
    assert parts["loss"].item() == pytest.approx(cross_entropy + distillation, rel=1e-4)


def test_counters_of_shared_and_of_own_norms():
    method, network, batch = _imagenet_step("resnet50", 64)
    with torch.no_grad():
        method.loss(network, batch, STAGE)
    counts = {
        theirs.removesuffix(".num_batches_tracked"): int(value)
        for theirs, value in method.export_weights(network).items()
        if theirs.endswith("num_batches_tracked")
    }
    shared = {name for name in counts if "downsample" in name or name == "bn1"}
    assert len(shared) == 5
    assert {counts[name] for name in shared} == {2}
    assert {count for name, count in counts.items() if name not in shared} == {1}
    assert counts["layer1.0.bn1"] == counts["layer1.0.bn1_skip"] == counts["layer1.2.bn1"] == 1


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: _cifar(), id="cifar_resnet20"),
        pytest.param(lambda: _imagenet_step("resnet50", 64), id="resnet50"),
        pytest.param(lambda: _imagenet_step("mobilenet_v2", 64), id="mobilenet_v2"),
        pytest.param(lambda: _imagenet_step("swin_t", 64), id="swin_t"),
    ],
)
def test_one_backward_equals_two_bit_for_bit(make):
    """Ours: one backward of the sum. As released: each pass followed by its own backward."""
    method, network, batch = make()
    other = copy.deepcopy(network)
    torch.manual_seed(5)
    method.loss(network.train(), batch, STAGE)["loss"].backward()

    torch.manual_seed(5)
    other.train()
    flags = other.split.flags
    logits = other(batch.images, (False,) * flags)
    (0.5 * F.cross_entropy(logits, batch.targets)).backward()
    student = other(batch.images, (True,) * flags)
    (0.5 * distillation_loss(student, logits, 1.0, 500)).backward()

    for net in (network, other):
        torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).step()
    for (name, ours), theirs in zip(network.state_dict().items(), other.state_dict().values()):
        assert torch.equal(ours, theirs), name
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_teacher_gets_no_gradient():
    """The base loss has the gradient that it has with the super-net's logits as constants."""
    method, network, batch = _cifar(alpha=0.0)
    other = copy.deepcopy(network)
    method.loss(network, batch, STAGE)["loss"].backward()
    with torch.no_grad():
        constant = other(batch.images, "super")
    distillation_loss(other(batch.images, "base"), constant).backward()
    for (name, ours), theirs in zip(network.named_parameters(), other.parameters()):
        ours_grad = torch.zeros_like(ours) if ours.grad is None else ours.grad
        theirs_grad = torch.zeros_like(ours) if theirs.grad is None else theirs.grad
        assert torch.equal(ours_grad, theirs_grad), name


def test_distillation_by_its_formula():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    for temperature in (1.0, 4.0):
        for top_k in (1, 3, 11, 12, 500, None):
            total = 0.0
            for s, t in zip(student.tolist(), teacher.tolist()):
                classes = sorted(range(12), key=lambda c, t=t: -t[c])[: top_k or 12]
                p = [math.exp(t[c] / temperature) for c in classes]
                q = [math.exp(s[c] / temperature) for c in classes]
                total += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q))
            ours = distillation_loss(student, teacher, temperature, top_k).item()
            assert ours == pytest.approx(temperature**2 * total / 5, rel=1e-12, abs=1e-15)


def test_distillation_widens_half_precision():
    student, teacher = torch.randn(2, 4, 1000).bfloat16()
    loss = distillation_loss(student, teacher, 1.0, 500)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, distillation_loss(student.float(), teacher.float(), 1.0, 500))


def test_top_k_is_harmless_with_few_classes():
    method, network, batch = _cifar()
    _, same, _ = _cifar()
    whole = ADN(ADNConfig(depth=20, top_k=10), CIFAR).loss(same, batch, STAGE)
    assert torch.equal(method.loss(network, batch, STAGE)["loss"], whole["loss"])


@pytest.mark.parametrize("arch", ["cifar", "swin_t", "vit_b_32", "mobilenet_v2"])
@pytest.mark.parametrize("size", [1, 3])
def test_feature_distillation(arch, size):
    """Over channels, one term per stage, any batch size; evaluation mode so that one image is enough."""
    options = {"feature_stages": (1, 3), "temperature": 2.0}
    if arch == "cifar":
        method = ADN(ADNConfig(depth=20, **options), CIFAR)
    else:
        method = ADN(ADNConfig(arch=arch, **options), DataSpec("imagenet", 10, 64))
    torch.manual_seed(0)
    network = method.build(STAGE).eval()
    randomise(network)
    images = torch.randn(size, 3, method.data.image_size, method.data.image_size)
    with torch.no_grad():
        parts = method.loss(network, _batch(images, torch.zeros(size, dtype=torch.int64)), STAGE)
        outputs: list[list[Tensor]] = [[], []]
        for skip, found in zip(("super", "base"), outputs):
            handles = [
                network.stages[i].register_forward_hook(lambda _m, _i, out, found=found: found.append(out))
                for i in (0, 2)
            ]
            network(images, skip)
            for handle in handles:
                handle.remove()
    channel = -1 if arch in ("swin_t", "vit_b_32") else 1
    pooled = [[out.movedim(channel, -1).flatten(1, -2).mean(1) for out in found] for found in outputs]
    expected = 0.0
    for teacher, student in zip(*pooled):
        p, q = (torch.softmax(x / 2, 1) for x in (teacher, student))
        expected += 4 * (p * (p / q).log()).sum() / size
    assert parts["loss_features"].item() == pytest.approx(float(expected), rel=1e-4)
    weighted = 0.5 * (parts["loss_super"] + parts["loss_base"] + parts["loss_features"])
    assert parts["loss"].item() == pytest.approx(weighted.item(), rel=1e-6)
    assert feature_loss(pooled[1], pooled[0], 2.0).item() == pytest.approx(float(expected), rel=1e-4)


def test_mixed_targets_reach_the_labelled_pass_only():
    method, network, batch = _cifar()
    soft = torch.softmax(torch.randn(8, 10), 1)
    first = method.loss(network.eval(), _batch(batch.images, soft), STAGE)
    second = method.loss(network, _batch(batch.images, soft.flip(0)), STAGE)
    assert torch.equal(first["loss_base"], second["loss_base"])
    assert not torch.equal(first["loss_super"], second["loss_super"])
    expected = -(soft * network(batch.images).log_softmax(1)).sum(1).mean()
    assert torch.allclose(first["loss_super"], expected)


def test_label_smoothing_touches_cross_entropy_only():
    method, network, batch = _cifar()
    network.eval()
    plain = method.loss(network, batch, STAGE)
    smooth = method.loss(network, batch, Stage("train").resolve(Recipe(label_smoothing=0.1)))
    expected = F.cross_entropy(network(batch.images), batch.targets, label_smoothing=0.1)
    assert torch.equal(smooth["loss_super"], expected)
    assert torch.equal(smooth["loss_base"], plain["loss_base"])


@pytest.mark.parametrize(
    ("options", "weights"), [({}, (0.5, 0.5)), ({"alpha": 0.3}, (0.3, 0.7)), ({"paper_weights": True}, (1, 1))]
)
def test_weights_of_the_two_losses(options, weights):
    method, network, batch = _cifar(**options)
    parts = method.loss(network.eval(), batch, STAGE)
    expected = weights[0] * parts["loss_super"] + weights[1] * parts["loss_base"]
    assert torch.allclose(parts["loss"], expected, rtol=1e-6)


def test_without_distillation_the_base_net_learns_from_labels():
    method, network, batch = _cifar(distill=False)
    parts = method.loss(network.eval(), batch, STAGE)
    assert torch.equal(parts["loss_base"], F.cross_entropy(network(batch.images, "base"), batch.targets))


@pytest.mark.parametrize(("options", "drawn"), [({"teacher": "random"}, 0), ({"student": "random"}, 1)])
def test_random_sub_networks(options, drawn):
    method, network, batch = _cifar(width=4, **options)
    runs: list[str] = []
    forward = network.forward_features
    network.forward_features = lambda images, skip, stages: (runs.append(skip), forward(images, skip, stages))[1]
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(40):
            method.loss(network, batch._replace(images=batch.images[:2], targets=batch.targets[:2]), STAGE)
    passes = [set(runs[0::2]), set(runs[1::2])]
    assert len(passes[drawn]) == 8, "not all 2^3 sub-networks were drawn in 40 steps"
    assert passes[1 - drawn] == {((drawn == 0),) * 3}
    torch.manual_seed(0)
    again: list[str] = runs.copy()
    runs.clear()
    with torch.no_grad():
        for _ in range(40):
            method.loss(network, batch._replace(images=batch.images[:2], targets=batch.targets[:2]), STAGE)
    assert runs == again, "the draw does not follow torch's generator"


@pytest.mark.parametrize(("mandatory_drops", "random"), [(True, True), (False, True)])
def test_stochastic_depth_of_swin(mandatory_drops, random):
    config = ADNConfig(arch="swin_t", stochastic_depth=0.9, stochastic_depth_mandatory=mandatory_drops)
    network = ADN(config, DataSpec("imagenet", 10, 64)).build(STAGE).train()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images, "base"), network(images, "base")), "the base-net is deterministic"
        assert torch.equal(network(images, "super"), network(images, "super")) != random
        drops: set[str] = set()
        for name, module in network.named_modules():
            if type(module).__name__ == "StochasticDepth":
                module.register_forward_hook(lambda *_, name=name: drops.add(name))
        network(images, "super")
    # Twelve blocks, six of them mandatory; those of whole stages only.
    assert len(drops) == (12 if mandatory_drops else 6)
    probabilities = [m.p for m in network.modules() if type(m).__name__ == "StochasticDepth"]
    assert probabilities == pytest.approx([0.9 * i / 11 for i in range(12)])


def test_default_stochastic_depth():
    network = ADN(ADNConfig(arch="swin_t"), DataSpec("imagenet", 10, 64)).build(STAGE)
    probabilities = [m.p for m in network.modules() if type(m).__name__ == "StochasticDepth"]
    assert probabilities == pytest.approx([0.1 * i / 11 for i in range(12)])


def test_averaging_leaves_the_position_index_alone():
    network = ADN(ADNConfig(arch="swin_t"), DataSpec("imagenet", 10, 64)).build(STAGE)
    before = {n: t.clone() for n, t in network.state_dict().items() if n.endswith("relative_position_index")}
    average = ModelEMA(network, 0.9873)
    for _ in range(3):
        average.update(network)
    after = average.module.state_dict()
    assert len(before) == 12
    assert all(torch.equal(after[name], index) for name, index in before.items())


@pytest.mark.parametrize("kind", ["group", "layer", "instance", "online", "none"])
def test_other_norms_are_a_config_line(kind):
    norm = {"kind": kind, **({"gn_num_groups": 8} if kind == "group" else {})}
    method, network, batch = _cifar(norm=norm)
    assert len(list(skip_aware_norms(network))) == 12
    method.loss(network.train(), batch, STAGE)["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    network.eval()
    with torch.no_grad():
        assert method.record(network, batch.images).logits.isfinite().all()


def test_one_set_of_norms():
    method, network, batch = _cifar(skip_aware=False)
    assert not list(skip_aware_norms(network))
    method.loss(network.train(), batch, STAGE)["loss"].backward()
    assert all(p.grad is not None for p in network.parameters())


def test_training_lowers_both_losses():
    method, network, batch = _cifar(width=8)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    history = []
    for _ in range(25):
        parts = method.loss(network.train(), batch, STAGE)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        history.append((parts["loss_super"].item(), parts["loss_base"].item()))
    assert history[-1][0] < 0.5 * history[0][0]
    network.eval()
    with torch.no_grad():
        logits = network(batch.images, "base")
    assert (logits.argmax(1) == batch.targets).float().mean() >= 0.75, "the base-net sees no label but learns them"
