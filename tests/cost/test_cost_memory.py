"""What a training step needs, against numbers computed by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from cost_method import SmallMethod
from torch import Tensor, nn

from baselines.config import ResNetConfig
from baselines.method import ResNetBaseline
from bench.config.data import DataSpec
from bench.config.schema import Recipe
from bench.cost import estimate_memory
from bench.errors import CostError
from bench.method import Batch, Stage

PARAMETERS = 4 * (16 * 40 + 40 + 40 * 20 + 20 + 40 * 40 + 40 + 40 * 10 + 10)


@pytest.mark.parametrize("reads_values", [False, True], ids=["without data", "with data"])
def test_by_hand(reads_values: bool) -> None:
    method = SmallMethod(reads_values=reads_values)
    estimate = estimate_memory(method, method.stages()[0], Recipe(batch_size=100))
    # images, hidden activations (shared by relu and the next layer), log-probabilities, labels; one weight sum
    activations = 100 * (16 * 4 + 40 * 4 + 10 * 4 + 8) + 4
    assert estimate == {
        "parameters": PARAMETERS,
        "gradients": PARAMETERS,
        "optimizer": PARAMETERS,
        "ema": 0,
        "activations": activations,
        "total": 3 * PARAMETERS + activations,
    }


def test_recipe_decides_what_the_optimiser_and_the_average_keep() -> None:
    method = SmallMethod()
    stage = method.stages()[0]
    assert estimate_memory(method, stage, Recipe(opt="adamw"))["optimizer"] == 2 * PARAMETERS
    assert estimate_memory(method, stage, Recipe(momentum=0.0))["optimizer"] == 0
    assert estimate_memory(method, stage, Recipe(model_ema=True))["ema"] == PARAMETERS


def test_mixed_targets_are_kept_as_probabilities() -> None:
    method = SmallMethod()
    stage = method.stages()[0]
    plain = estimate_memory(method, stage, Recipe(batch_size=64))["activations"]
    mixed = estimate_memory(method, stage, Recipe(batch_size=64, mixup_alpha=0.2))["activations"]
    assert mixed == pytest.approx(plain + 64 * (10 * 4 - 8), abs=16)


def test_a_stage_that_trains_a_part() -> None:
    method = SmallMethod()
    estimate = estimate_memory(method, method.stages()[1], Recipe(batch_size=100))
    head = 4 * (40 * 10 + 10)
    assert (estimate["parameters"], estimate["gradients"], estimate["optimizer"]) == (PARAMETERS, head, head)
    assert estimate["activations"] == 100 * (40 * 4 + 10 * 4 + 8) + 4, "frozen layers save nothing"


def test_half_precision_halves_the_activations_of_a_network() -> None:
    method = ResNetBaseline(ResNetConfig(depth=8), DataSpec("cifar10", 10, 32))
    stage = method.stages()[0]
    full = estimate_memory(method, stage, Recipe(batch_size=64))
    half = estimate_memory(method, stage, Recipe(batch_size=64, amp="bf16"))
    assert 0.48 < half["activations"] / full["activations"] < 0.6
    assert half["gradients"] == full["gradients"]


def test_activations_follow_batch_and_crop() -> None:
    method = ResNetBaseline(ResNetConfig(depth=8), DataSpec("cifar10", 10, 32))
    stage = method.stages()[0]
    at_64 = estimate_memory(method, stage, Recipe(batch_size=64))["activations"]
    assert estimate_memory(method, stage, Recipe(batch_size=128))["activations"] == pytest.approx(2 * at_64, rel=0.01)
    cropped = estimate_memory(method, stage, Recipe(batch_size=64, train_crop_size=16))["activations"]
    assert cropped == pytest.approx(at_64 / 4, rel=0.02)


def test_the_estimate_is_what_autograd_keeps_for_the_whole_batch() -> None:
    method = ResNetBaseline(ResNetConfig(depth=8), DataSpec("cifar10", 10, 32))
    stage = method.stages()[0].resolve(Recipe(batch_size=24))
    model = method.build(stage).train()
    images, labels = torch.randn(24, 3, 32, 32), torch.randint(10, (24,))
    kept: dict[int, Tensor] = {}
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = method.loss(model, Batch(images, labels, labels, images), stage)["loss"]
    measured = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)
    assert loss.requires_grad
    assert estimate_memory(method, stage, Recipe(batch_size=24))["activations"] == pytest.approx(measured, rel=1e-3)


def test_nothing_is_drawn_from_the_callers_generator() -> None:
    method = SmallMethod(reads_values=True)
    before = torch.get_rng_state()
    estimate_memory(method, method.stages()[1], Recipe())
    assert torch.equal(torch.get_rng_state(), before)


class Copying(SmallMethod):
    """Copies of parts are made while a network is built; torch crashes where that is done on fake tensors."""

    def build(self, stage: Stage) -> nn.Module:
        model = super().build(stage)
        model.gate = copy.deepcopy(model.again)
        return model

    def prepare(self, model: nn.Module, stage: Stage, previous: nn.Module | None) -> None:
        model.gate = copy.deepcopy(model.gate)


def test_a_network_that_copies_its_parts() -> None:
    method = Copying()
    plain = SmallMethod()
    wanted = estimate_memory(plain, plain.stages()[0], Recipe())["activations"]
    assert estimate_memory(method, method.stages()[1], Recipe())["parameters"] > 0
    assert estimate_memory(method, method.stages()[0], Recipe())["activations"] == wanted


class Broken(SmallMethod):
    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        return {"loss": model(batch.images[:, :, :3]).sum()}


def test_a_step_that_fails_is_one_line() -> None:
    method = Broken()
    with pytest.raises(CostError, match="stage 'one': no training step to measure") as error:
        estimate_memory(method, method.stages()[0], Recipe())
    assert "\n" not in str(error.value)
