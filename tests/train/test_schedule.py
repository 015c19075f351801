"""Learning rates against torch's own schedulers and published check values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
    StepLR,
)

from bench.config.schema import Recipe
from bench.train.schedule import learning_rate, step_learning_rate


def _torch_rates(recipe: Recipe) -> list[float]:
    """What torchvision's reference script would use, epoch by epoch (milestones counted from the start)."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    epochs, warmup = recipe.epochs or 0, recipe.lr_warmup_epochs
    main: LRScheduler
    if recipe.lr_scheduler == "cosine":
        main = CosineAnnealingLR(optimizer, T_max=epochs - warmup, eta_min=recipe.lr_min)
    elif recipe.lr_scheduler == "multistep":
        main = MultiStepLR(optimizer, [m - warmup for m in recipe.lr_milestones], recipe.lr_gamma)
    elif recipe.lr_scheduler == "step":
        main = StepLR(optimizer, recipe.lr_step_size, recipe.lr_gamma)
    else:
        main = ExponentialLR(optimizer, recipe.lr_gamma)
    if warmup:
        decay = recipe.lr_warmup_decay
        first: LRScheduler = (
            LinearLR(optimizer, start_factor=decay, total_iters=warmup)
            if recipe.lr_warmup_method == "linear"
            else ConstantLR(optimizer, factor=decay, total_iters=warmup)
        )
        main = SequentialLR(optimizer, [first, main], [warmup])
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        main.step()
    return rates


@pytest.mark.parametrize(
    "recipe",
    [
        {"lr_scheduler": "cosine"},
        {"lr_scheduler": "cosine", "lr_warmup_epochs": 5, "lr_min": 0.01},
        {"lr_scheduler": "cosine", "lr_warmup_epochs": 4, "lr_warmup_method": "constant"},
        {"lr_scheduler": "multistep", "lr_milestones": [10, 20]},
        {"lr_scheduler": "multistep", "lr_milestones": [10, 20], "lr_warmup_epochs": 3},
        {"lr_scheduler": "step", "lr_step_size": 7},
        {"lr_scheduler": "exponential", "lr_gamma": 0.9, "lr_warmup_epochs": 2},
    ],
)
def test_rates_equal_torch(recipe: dict[str, Any]) -> None:
    made = Recipe(epochs=30, lr=0.4, **recipe)
    ours = [learning_rate(made, epoch, 30) for epoch in range(30)]
    assert ours == pytest.approx(_torch_rates(made), rel=1e-9)


def test_published_check_values() -> None:
    # ResNet-50 v2: 600 epochs, lr 0.5, cosine, 5 epochs of warmup from 1 %.
    recipe = Recipe(epochs=600, lr=0.5, lr_warmup_epochs=5)
    values = {0: 0.005, 1: 0.104, 4: 0.401, 5: 0.5, 300: 0.2533}
    for epoch, rate in values.items():
        assert learning_rate(recipe, epoch, 600) == pytest.approx(rate, abs=5e-5)
    # ViT: 300 epochs, lr 7.5e-4, 30 epochs of warmup from 3.3 %.
    recipe = Recipe(epochs=300, lr=7.5e-4, lr_warmup_epochs=30, lr_warmup_decay=0.033)
    assert learning_rate(recipe, 29, 300) == pytest.approx(7.25826e-4, rel=1e-5)
    assert learning_rate(recipe, 299, 300) == pytest.approx(2.538e-8, rel=1e-3)


def test_steps_and_epochs() -> None:
    by_epoch = Recipe(epochs=4, lr=1.0, lr_scheduler="multistep", lr_milestones=[2])
    assert [step_learning_rate(by_epoch, s, 5) for s in (0, 9, 10, 19)] == pytest.approx([1, 1, 0.1, 0.1])
    by_step = Recipe(iterations=20, lr=1.0, lr_scheduler="multistep", lr_milestones=[10])
    assert [step_learning_rate(by_step, s, 3) for s in (0, 9, 10, 19)] == pytest.approx([1, 1, 0.1, 0.1])
    smooth = Recipe(epochs=2, lr=1.0, lr_per_step=True)
    assert step_learning_rate(smooth, 5, 10) < step_learning_rate(smooth, 4, 10) < 1.0
