"""The same on a GPU."""

from __future__ import annotations

import copy

import adn_oracle as oracle
import pytest
import torch
from torch.nn import functional as F

from bench.config.data import DataSpec
from bench.config.schema import Recipe
from bench.method import Batch, Stage
from bench.train.step import TrainStep
from methods.adn.config import ADNConfig
from methods.adn.losses import distillation_loss
from methods.adn.method import ADN

pytestmark = pytest.mark.cuda
STAGE = Stage("train").resolve(Recipe())


@pytest.fixture
def exact():
    """No TF32 and one choice of kernels, so that equal work gives equal numbers."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = before


def _cuda(arch: str, classes: int = 1000, side: int = 64):
    method = ADN(ADNConfig(arch=arch), DataSpec("imagenet", classes, side))
    torch.manual_seed(0)
    network = method.build(STAGE)
    oracle.randomise(network)
    images = torch.randn(8, 3, side, side, device="cuda")
    labels = torch.randint(classes, (8,), device="cuda")
    return method, network.cuda(), Batch(images, labels, labels, images)


@pytest.mark.parametrize("arch", ["resnet50", "mobilenet_v2", "swin_t", "vit_b_16"])
def test_configurations_equal_torchvision_networks(exact, arch):
    method, network, batch = _cuda(arch)
    released = {name: tensor.cuda() for name, tensor in method.export_weights(network.eval()).items()}
    decisions = method.record(network, batch.images)
    for index, flags in enumerate(network.skips()):
        with torch.no_grad():
            expected = oracle.composed(arch, released, flags, 64).cuda()(batch.images)
            executed = method.execute(network, batch.images, method.points(network)[index])
        assert torch.equal(executed.logits, expected), flags
        assert torch.equal(decisions.logits[index], expected), flags


@pytest.mark.parametrize("arch", ["resnet50", "mobilenet_v2", "vit_b_16"])
def test_one_backward_equals_two(exact, arch):
    method, network, batch = _cuda(arch)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    other = copy.deepcopy(network)
    method.loss(network.train(), batch, STAGE)["loss"].backward()
    other.train()
    flags = other.split.flags
    logits = other(batch.images, (False,) * flags)
    (0.5 * F.cross_entropy(logits, batch.targets)).backward()
    (0.5 * distillation_loss(other(batch.images, (True,) * flags), logits, 1.0, 500)).backward()
    for (name, ours), theirs in zip(network.named_parameters(), other.parameters()):
        scale = theirs.grad.abs().max()
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 * float(scale)), name
    for (name, ours), theirs in zip(network.named_buffers(), other.buffers()):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_step(dtype):
    method, network, batch = _cuda("resnet50", side=128)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    step = TrainStep(method, network, STAGE)
    step.train()
    losses = []
    for _ in range(8):
        with torch.autocast("cuda", dtype=dtype):
            parts = step(*batch)
        optimizer.zero_grad()
        scaler.scale(parts["loss"]).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(parts["loss"].item())
    assert parts["loss_base"].dtype == torch.float32
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in network.parameters())


def test_compiled_step():
    method, network, batch = _cuda("resnet50", classes=10)
    expected = method.loss(copy.deepcopy(network).train(), batch, STAGE)
    step = TrainStep(method, network, STAGE)
    step.train()
    parts = torch.compile(step)(*batch)
    parts["loss"].backward()
    assert parts["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-2)
    assert all(p.grad is not None for p in network.parameters())
