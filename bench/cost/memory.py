"""What training will need on the device, before any of it is trained."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.config.stage import RunStage
from bench.cost.copies import copy_with, quietly
from bench.errors import CostError
from bench.nouns import Batch

if TYPE_CHECKING:
    from bench.config.data import DataSpec
    from bench.config.schema import Recipe
    from bench.config.stage import Stage
    from bench.method import Method

__all__ = ["blank_batch", "build_for_training", "estimate_memory"]

#: Two sizes, so that what grows with the batch can be told from what does not; batch norm needs 2 samples.
SMALL, LARGE = 2, 4


def estimate_memory(method: Method, stage: Stage | RunStage, recipe: Recipe) -> dict[str, int]:
    """Bytes that one process needs to train a stage with the whole ``recipe.batch_size``.

    Returns ``parameters`` (with buffers), ``gradients``, ``optimizer`` (its state), ``ema``, ``activations``
    (what one step of ``method.loss`` saves for its backward pass) and ``total``. Left out: temporary buffers
    of kernels, the allocator's rounding, and the data set of a resident loader.
    The step is run on two small batches without data (torch's fake tensors), and with data where the method
    reads values; activations are extrapolated linearly. No random number is drawn from the caller's generator.
    Raises CostError where the step fails both ways.
    """
    stage = RunStage(stage.name, stage.start_from, recipe, stage.trains)
    with torch.random.fork_rng(devices=[]), quietly("torch._subclasses.fake_tensor"):
        try:
            model = build_for_training(method, stage)
            try:
                small, large = _without_data(method, model, stage)
            except Exception:  # fake tensors refuse in many ways; what is wrong with the step itself shows below
                small, large = (_saved_by_step(method, model, stage, size) for size in (SMALL, LARGE))
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            raise CostError(f"stage '{stage.name}': no training step to measure ({reason})") from error
    trained = _bytes(p for p in model.parameters() if p.requires_grad)
    everything = [*model.parameters(), *model.buffers()]
    estimate = {
        "parameters": _bytes(everything),
        "gradients": trained,
        "optimizer": trained * _states(recipe),
        "ema": _bytes(t for t in everything if t.is_floating_point()) if recipe.model_ema else 0,
        "activations": max(0, small + (large - small) * (recipe.batch_size - SMALL) // (LARGE - SMALL)),
    }
    return {**estimate, "total": sum(estimate.values())}


def build_for_training(method: Method, stage: RunStage) -> nn.Module:
    """The network as the stage starts, in training mode, with untrained ones for the stages before it."""
    model = method.build(stage)
    previous = None
    if stage.start_from is not None:
        before = next((s for s in method.stages() if s.name == stage.start_from), None)
        if before is None:
            raise CostError(f"it starts from '{stage.start_from}', which is no stage")
        previous = build_for_training(method, before.resolve(stage.recipe))
    method.prepare(model, stage, previous)
    for name, parameter in model.named_parameters():
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in stage.trains):
            parameter.requires_grad_(False)
    model.train()
    method.set_mode(model, stage)
    return model


def _without_data(method: Method, model: nn.Module, stage: RunStage) -> tuple[int, int]:
    """Both sizes on fake tensors. The network is built outside: torch crashes where one is copied inside."""
    with FakeTensorMode():
        fake = copy_with(model, lambda t: torch.empty_strided(t.size(), t.stride(), dtype=t.dtype))
        small, large = (_saved_by_step(method, fake, stage, size) for size in (SMALL, LARGE))
    return small, large


def _states(recipe: Recipe) -> int:
    """Numbers that the optimiser keeps for each parameter."""
    if recipe.opt in ("adamw", "adam"):
        return 2
    return int(recipe.momentum > 0) + int(recipe.opt == "rmsprop")


def _saved_by_step(method: Method, model: nn.Module, stage: RunStage, size: int) -> int:
    """Bytes that one forward pass keeps for the backward pass, each storage once, the model's own left out."""
    recipe = stage.recipe
    batch = blank_batch(method.data, recipe, size)
    own = {_storage(t) for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}
    with _keep_saved(saved), _autocast(recipe):
        step = method.loss(model, batch, stage)
    del step
    return sum(t.untyped_storage().nbytes() for key, t in saved.items() if key not in own)


def blank_batch(data: DataSpec, recipe: Recipe, size: int) -> Batch:
    """A training batch of noise, of the size and kind of targets that a recipe gives."""
    side = recipe.train_crop_size or data.image_size
    images = torch.randn(size, data.channels, side, side)
    labels = torch.randint(data.num_classes, (size,))
    targets = labels
    if recipe.mixup_alpha or recipe.cutmix_alpha:
        targets = torch.full((size, data.num_classes), 1.0 / data.num_classes)
    return Batch(images, targets, labels, images)


@contextmanager
def _keep_saved(saved: dict[int, Tensor]) -> Iterator[None]:
    """Collects what autograd saves; the tensors are held, since the address of a freed one may come again."""

    def pack(tensor: Tensor) -> Tensor:
        saved.setdefault(_storage(tensor), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def _autocast(recipe: Recipe) -> torch.autocast:
    """Half precision on the CPU is bf16 for both kinds: the bytes are the same."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.amp != "off")


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
