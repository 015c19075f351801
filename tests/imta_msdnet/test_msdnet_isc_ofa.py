"""Collaboration and distillation: their formulas, what they train, what they leave alone."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import torch
from msdnet_helpers import SMALL, built, config, random_batch, small_options
from torch import nn
from torch.nn import functional as F

from bench.config.schema import Recipe
from bench.train.step import TrainStep
from methods.imta_msdnet.isc import Collaboration
from methods.imta_msdnet.method import IMTAMSDNet
from methods.techniques.ofa import distillation_loss, one_for_all_loss


def logits_of(exits: int = 4, batch: int = 5, classes: int = 10, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, classes, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(exits)
    ]


# ---- ISC ---------------------------------------------------------------------------------------------
def features_of(widths: tuple[int, ...], batch: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, w, generator=generator, dtype=torch.float64) for w in widths]


def test_collaboration_is_the_formula_written_out() -> None:
    widths = (3, 5, 4)
    isc = Collaboration(widths, 7).double().eval()
    for carry in isc.carry:
        carry[1].running_mean.uniform_(-1, 1)
        carry[1].running_var.uniform_(0.5, 2)
    f = features_of(widths)
    z = [f[0] @ isc.classify[0].weight.T + isc.classify[0].bias]
    for k in range(2):
        linear, norm, _ = isc.carry[k]
        a = z[k] @ linear.weight.T + linear.bias
        a = (a - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        w = isc.classify[k + 1].weight
        own, carried = w[:, : widths[k + 1]], w[:, widths[k + 1] :]
        z.append(f[k + 1] @ own.T + a.clamp(min=0) @ carried.T + isc.classify[k + 1].bias)
    for ours, written in zip(isc(f), z):
        torch.testing.assert_close(ours, written, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stop", [False, True])
def test_later_losses_reach_earlier_classifiers_unless_stopped(stop: bool) -> None:
    isc = Collaboration((3, 5, 4), 7, stop_gradient=stop).double()
    isc(features_of((3, 5, 4)))[-1].square().sum().backward()
    reached = isc.classify[0].weight.grad
    assert (reached is None) if stop else bool(reached.abs().sum() > 0)
    assert isc.carry[1][0].weight.grad.abs().sum() > 0


def test_an_exit_needs_the_one_before_it() -> None:
    with pytest.raises(ValueError, match="exit 1 needs the logits of exit 0"):
        Collaboration((3, 3), 7).step(1, torch.zeros(2, 3), None)


def test_stop_gradient_changes_no_value() -> None:
    a, b = Collaboration((3, 5), 7), Collaboration((3, 5), 7, stop_gradient=True)
    b.load_state_dict(a.state_dict())
    f = [x.float() for x in features_of((3, 5))]
    for x, y in zip(a(f), b(f)):
        assert torch.equal(x, y)


# ---- OFA ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("weight", "temperature"), [(0.1, 1.0), (0.9, 3.0), (1.0, 2.0)])
@pytest.mark.parametrize("reduction", ["class_mean", "batch_mean"])
def test_loss_is_the_formula_written_out(weight: float, temperature: float, reduction: str) -> None:
    z, teacher, y = logits_of(), logits_of(1, seed=9)[0], torch.tensor([1, 0, 3, 9, 2])
    result = one_for_all_loss(
        z, teacher, lambda logits: F.cross_entropy(logits, y),
        weight=weight, temperature=temperature, reduction=reduction,  # type: ignore[arg-type]
    )  # fmt: skip
    p = (teacher / temperature).softmax(1)
    expected = F.cross_entropy(z[-1], y)
    for logits in z[:-1]:
        q = (logits / temperature).softmax(1)
        kl = (p * (p / q).log()).sum() / (5 * 10 if reduction == "class_mean" else 5)
        expected = expected + (1 - weight) * F.cross_entropy(logits, y) + weight * temperature**2 * kl
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-12)
    assert len(result.hard) == 4
    assert len(result.soft) == 3


def test_class_mean_is_as_many_times_weaker_as_there_are_classes() -> None:
    z, teacher = logits_of(1)[0], logits_of(1, seed=9)[0]
    mean, batch = (distillation_loss(z, teacher, 2.0, r) for r in ("class_mean", "batch_mean"))
    torch.testing.assert_close(batch, 10 * mean, rtol=1e-12, atol=0)


def test_without_weight_it_is_the_sum_of_cross_entropies() -> None:
    z, y = logits_of(), torch.tensor([1, 0, 3, 9, 2])
    result = one_for_all_loss(z, z[-1], lambda logits: F.cross_entropy(logits, y), weight=0.0)
    torch.testing.assert_close(result.loss, sum(F.cross_entropy(x, y) for x in z), rtol=1e-12, atol=0)


def test_the_teacher_gets_no_gradient() -> None:
    z, teacher = logits_of(2), logits_of(1, seed=9)[0]
    one_for_all_loss(z, teacher, lambda x: x.square().mean(), weight=0.5).loss.backward()
    assert teacher.grad is None
    z = logits_of(2)
    one_for_all_loss(z, z[-1], lambda x: 0 * x.sum(), weight=1.0).loss.backward()
    assert not z[-1].grad.any()
    assert z[0].grad.abs().sum() > 0


def test_half_precision_logits_are_widened() -> None:
    z, teacher = (torch.randn(4, 1000, generator=torch.Generator().manual_seed(s)) * 4 for s in (0, 1))
    low = distillation_loss(z.bfloat16(), teacher.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, distillation_loss(z.bfloat16().float(), teacher.bfloat16().float()))


# ---- the second stage --------------------------------------------------------------------------------
def second_stage(**options: object) -> tuple[IMTAMSDNet, nn.Module, nn.Module, TrainStep]:
    """A network handed over to its second stage, as the harness does it; with the first one it came from."""
    method, first = built(stage=0, **small_options(**options))
    stage = method.stages()[1].resolve(Recipe())
    torch.manual_seed(5)
    model = method.build(stage)
    method.prepare(model, stage, first)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in stage.trains))
    step = TrainStep(method, model, stage)
    step.train()
    return method, first, model, step


def take_steps(step: TrainStep, model: nn.Module, count: int = 2) -> dict[str, torch.Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-4)
    result: dict[str, torch.Tensor] = {}
    for _ in range(count):
        optimizer.zero_grad()
        result = step(*random_batch(8))
        result["loss"].backward()
        optimizer.step()
    return result


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


def clone(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_the_first_network_is_handed_over_whole() -> None:
    _, first, model, _ = second_stage()
    taken_over = model.net.state_dict()
    assert all(torch.equal(value, taken_over[key]) for key, value in first.state_dict().items())


def test_a_step_changes_the_new_modules_and_exactly_the_statistics_of_the_frozen_ones() -> None:
    _, _, model, step = second_stage()
    before = clone(model)
    take_steps(step, model)
    buffers = {f"net.{name}" for name, _ in model.net.named_buffers()}
    new = {key for key in before if key.startswith("collaboration.")}
    assert buffers
    assert changed(before, clone(model)) == buffers | new


def test_fixed_statistics_leave_the_frozen_network_as_it_was() -> None:
    _, _, model, step = second_stage(frozen_norm="eval")
    before = clone(model)
    take_steps(step, model)
    assert {key for key in changed(before, clone(model)) if key.startswith("net.")} == set()
    assert model.collaboration.carry[0][1].training


def test_the_teacher_is_the_frozen_head_or_the_last_exit() -> None:
    batch = random_batch(8)
    for teacher in ("frozen_head", "final_exit"):
        method, _, model, step = second_stage(ofa_teacher=teacher, ofa="batch_mean", ofa_weight=0.5)
        result = step(*batch)
        model.zero_grad()
        with torch.no_grad():
            logits, frozen = model(batch.images)
        target = frozen if teacher == "frozen_head" else logits[-1]
        kl = distillation_loss(logits[0], target)
        torch.testing.assert_close(result["kl_exit1"], kl, rtol=1e-4, atol=1e-6)
        assert method.config.teacher == teacher


def test_no_gradient_reaches_the_frozen_network() -> None:
    _, _, model, step = second_stage()
    take_steps(step, model, 1)
    assert all(p.grad is None for p in model.net.parameters())
    assert all(p.grad is not None for p in model.collaboration.parameters())


# ---- which loss, in which stage -----------------------------------------------------------------------
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_first_stage_is_the_unweighted_sum_of_cross_entropies(smoothing: float) -> None:
    method, model = built(stage=0, **small_options())
    stage = method.stages()[0].resolve(_recipe(smoothing))
    batch = random_batch()
    result = method.loss(model, batch, stage)
    expected = sum(
        F.cross_entropy(z, batch.labels, label_smoothing=smoothing) for z in model.train()(batch.images)
    )
    torch.testing.assert_close(result["loss"], expected, rtol=1e-5, atol=1e-5)
    assert result["logits"].shape == (6, 10)
    assert not result["logits"].requires_grad


def test_soft_targets_reach_the_cross_entropies() -> None:
    method, model = built(stage=0, **small_options())
    batch = random_batch()
    soft = batch._replace(targets=F.one_hot(batch.labels, 10).float())
    a, b = (method.loss(model.eval(), x, method.stages()[0].resolve(Recipe()))["loss"] for x in (batch, soft))
    torch.testing.assert_close(a, b)


def test_distillation_without_collaboration_joins_the_only_stage() -> None:
    method, model = built(**small_options(isc="none", ofa="batch_mean", ofa_weight=0.4))
    assert [stage.name for stage in method.stages()] == ["ge"]
    assert method.config.teacher == "final_exit"
    batch = random_batch()
    result = method.loss(model.eval(), batch, method.stages()[0].resolve(Recipe()))
    z = model(batch.images)
    expected = F.cross_entropy(z[-1], batch.labels)
    for logits in z[:-1]:
        expected = expected + 0.6 * F.cross_entropy(logits, batch.labels) + 0.4 * distillation_loss(logits, z[-1])
    torch.testing.assert_close(result["loss"], expected)


def test_collaboration_without_distillation_is_the_sum_of_cross_entropies() -> None:
    _, _, model, step = second_stage(ofa="none", frozen_norm="eval")
    batch = random_batch(8)
    result = step(*batch)
    with torch.no_grad():
        logits, _ = model(batch.images)
    expected = sum(F.cross_entropy(z, batch.labels) for z in logits)
    torch.testing.assert_close(result["loss"].detach(), expected, rtol=1e-4, atol=1e-4)
    assert not any(key.startswith("kl_") for key in result)


def _recipe(smoothing: float) -> object:

    return Recipe(label_smoothing=smoothing)


def test_every_combination_of_switches_trains() -> None:
    batch = random_batch(2)
    for ge in ("none", "coarsest", "all"):
        for isc in ("none", "full", "stop_gradient"):
            for ofa in ("none", "class_mean", "batch_mean"):
                method = IMTAMSDNet(config(**small_options(exits=2, ge=ge, isc=isc, ofa=ofa)), SMALL)
                for stage in (declared.resolve(Recipe()) for declared in method.stages()):
                    result = method.loss(method.build(stage).train(), batch, stage)
                    assert torch.isfinite(result["loss"])
