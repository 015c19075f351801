"""Learning rate and momentum for other batch sizes, and the recipes that state them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config.batch_scaling import scale_for_batch
from bench.config.load import load_config
from bench.config.resolve import resolve


@pytest.mark.parametrize(("batch", "reference", "lr", "momentum"), [
    (64, 128, 0.025658, 0.94868), (1, 128, 6.428e-6, 0.99917721), (32, 256, 0.0016355, 0.98691628),
])  # fmt: skip
def test_published_values(batch: int, reference: int, lr: float, momentum: float) -> None:
    scaled = scale_for_batch(0.1, 0.9, batch, reference)
    assert scaled.lr == pytest.approx(lr, rel=1e-4)
    assert scaled.momentum == pytest.approx(momentum, abs=1e-5 if batch == 64 else 1e-8)


def test_nothing_changes_at_the_reference_and_scaling_composes() -> None:
    assert scale_for_batch(0.1, 0.9, 128, 128) == (0.1, 0.9)
    half = scale_for_batch(0.1, 0.9, 64, 128)
    assert scale_for_batch(*half, 16, 64) == pytest.approx(scale_for_batch(0.1, 0.9, 16, 128))
    assert scale_for_batch(0.1, 0.0, 32, 128) == pytest.approx((0.025, 0.0))


def test_one_step_moves_as_far_as_the_small_steps_it_stands_for() -> None:
    """The sum of all updates that one sample's gradient causes is lr / (1 - momentum) / batch: it stays."""
    for batch in (1, 32, 512):
        scaled = scale_for_batch(0.1, 0.9, batch, 128)
        assert scaled.lr / (1 - scaled.momentum) / batch == pytest.approx(0.1 / (1 - 0.9) / 128)


@pytest.mark.parametrize("values", [(0.0, 0.9, 1, 1), (0.1, 1.0, 1, 1), (0.1, 0.9, 0, 1), (0.1, 0.9, 1, 0)])
def test_values_that_do_not_fit(values: tuple[float, float, int, int]) -> None:
    with pytest.raises(ValueError, match="needs lr > 0"):
        scale_for_batch(*values)


@pytest.mark.parametrize(("file", "decays", "runs"), [
    ("cifar10_resnet20_norms.yaml", (1023 / 1024, 127 / 128), 6),
    ("cifar100_resnet20_norms.yaml", (511 / 512, 15 / 16), 6),
    ("imagenet_resnet50_norms.yaml", (0.999, 0.99), 5),
])  # fmt: skip
def test_the_recipes_are_the_published_ones(
    repo_root: Path, file: str, decays: tuple[float, float], runs: int
) -> None:
    loaded = load_config(repo_root / "configs" / file)
    comparison, recipe = loaded.comparison, loaded.comparison.recipe
    kinds = {run.name: run.options["norm"] for run in comparison.runs}
    assert len(kinds) == runs
    assert {norm["kind"] for norm in kinds.values()} >= {"batch", "online", "group", "layer", "instance"}
    online = kinds["online"]
    assert (online["afwd"], online["abkw"], online["ecm"]) == (*decays, "ls")
    assert comparison.protocol == "published"
    assert recipe.drop_last
    assert (recipe.opt, recipe.nesterov, recipe.lr_warmup_epochs, recipe.label_smoothing) == ("sgd", False, 0, 0.0)
    assert (recipe.lr_scheduler, recipe.lr_gamma) == ("multistep", 0.1)
    if file.startswith("cifar"):
        assert comparison.seeds == (0, 1, 2, 3, 4)
        assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum) == (250, 128, 0.1, 0.9)
        assert recipe.lr_milestones == (100, 150, 200)
        assert (recipe.weight_decay, recipe.norm_weight_decay, recipe.bias_weight_decay) == (2e-4, None, None)
        assert kinds["group"]["gn_num_groups"] == 8
    else:
        assert (recipe.epochs, recipe.batch_size) == (100, 32)
        assert (recipe.lr, recipe.momentum) == pytest.approx(scale_for_batch(0.1, 0.9, 32, 256), rel=1e-15)
        assert recipe.lr_milestones == (30, 60, 80, 90)
        assert kinds["group"]["gn_num_groups"] == 32
    resolve(loaded)
