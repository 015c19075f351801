"""Checks of training: steps of every stage, mixed targets, mixed precision."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.config.schema import Recipe
from bench.method import Batch, RunStage
from bench.testing.subject import DATA, Subject, make_batch
from bench.train.optim import freeze, make_optimizer
from bench.train.seeds import seed_everything
from bench.train.step import TrainStep


def check_training(subject: Subject) -> None:
    """Two steps of each stage with labels and with mixed targets: a scalar, finite loss; gradients where the stage
    trains and nowhere else; weights that move."""
    for soft in (False, True):
        previous: dict[str, nn.Module] = {}
        for planned in subject.method.stages():
            stage = planned.resolve(Recipe(lr=0.01, label_smoothing=0.1))
            previous[stage.name] = _train(subject, stage, previous.get(stage.start_from or ""), soft)


def _train(subject: Subject, stage: RunStage, previous: nn.Module | None, soft: bool) -> nn.Module:
    torch.manual_seed(0)
    with subject.calling("build"):
        model = subject.method.build(stage)
    with subject.calling("prepare"):
        subject.method.prepare(model, stage, previous)
    with subject.calling("stages"):
        freeze(model, stage.trains)
        optimizer = make_optimizer(model, stage.recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = TrainStep(subject.method, model, stage)
    with subject.calling("set_mode"):
        step.train()
    for _ in range(2):
        optimizer.zero_grad()
        _loss(subject, stage, step, make_batch(soft)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        if not parameter.requires_grad and (parameter.grad is not None or moved):
            subject.fail("loss", f"stage '{stage.name}': '{name}' is frozen but is trained")
        if parameter.requires_grad and parameter.grad is None and not subject.method.find_unused_parameters:
            subject.fail("loss", f"stage '{stage.name}': '{name}' gets no gradient; freeze it (Stage.trains) or set "
                         "find_unused_parameters = True")  # fmt: skip
    if all(torch.equal(p, before[name]) for name, p in model.named_parameters()):
        subject.fail("loss", f"stage '{stage.name}': two steps move no parameter")
    return model


def _loss(subject: Subject, stage: RunStage, step: nn.Module, batch: Batch) -> Tensor:
    with subject.calling("loss"):
        parts = step(*batch)
    if not isinstance(parts, Mapping) or not isinstance(parts.get("loss"), Tensor):
        subject.fail("loss", f"stage '{stage.name}': must return a dict with a tensor under 'loss'")
    loss: Tensor = parts["loss"]
    if loss.ndim != 0:
        subject.fail("loss", f"stage '{stage.name}': 'loss' has shape {list(loss.shape)}; it must be a scalar")
    if not bool(torch.isfinite(loss)):
        subject.fail("loss", f"stage '{stage.name}': 'loss' is {loss.item()}, not a finite number")
    if not loss.requires_grad:
        subject.fail("loss", f"stage '{stage.name}': 'loss' has no gradient: nothing would be trained")
    for name, value in parts.items():
        if name == "logits":
            if list(value.shape) != [len(batch.labels), DATA.num_classes]:
                subject.fail("loss", f"stage '{stage.name}': 'logits' are {list(value.shape)}, not [images, classes]")
        elif not isinstance(value, (Tensor, float, int)) or (isinstance(value, Tensor) and value.numel() != 1):
            subject.fail("loss", f"stage '{stage.name}': '{name}' must be a scalar, for the training curve")
    return loss


def check_targets(subject: Subject) -> None:
    """Mixed targets count: two mixtures of the same images and labels give two losses."""
    for planned in subject.method.stages():
        stage = planned.resolve(Recipe())
        torch.manual_seed(0)
        model = subject.method.build(stage)
        losses = []
        for shift in (1, 2):
            step = TrainStep(subject.method, copy.deepcopy(model), stage)
            step.train()
            seed_everything(0)
            losses.append(float(_loss(subject, stage, step, make_batch(soft=True, shift=shift)).detach()))
        if losses[0] == losses[1]:
            subject.fail("loss", f"stage '{stage.name}': it ignores the targets of mixup and cutmix (batch.targets)")


def check_bfloat16(subject: Subject) -> None:
    """A training step works in mixed precision."""
    model = copy.deepcopy(subject.model)
    freeze(model, subject.stage.trains)
    step = TrainStep(subject.method, model, subject.stage)
    step.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = _loss(subject, subject.stage, step, make_batch())
    with subject.calling("loss"):
        loss.backward()  # type: ignore[no-untyped-call]
