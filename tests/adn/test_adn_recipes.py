"""The shipped configurations say what the released command lines say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from bench.config.averaging import adjusted_decay
from bench.config.load import load_config
from bench.config.resolve import RunSpec, resolve
from bench.config.schema import Recipe
from bench.data.order import BatchPlan
from bench.train.optim import parameter_groups
from bench.train.schedule import learning_rate
from methods.adn.config import ADNConfig
from methods.adn.families import build_network
from methods.adn.method import IMAGENET

RELEASED = {
    "resnet50": {
        "epochs": 150, "batch_size": 256, "opt": "sgd", "momentum": 0.9, "lr": 0.1, "lr_scheduler": "multistep",
        "lr_milestones": (60, 100, 140), "lr_gamma": 0.1, "lr_warmup_epochs": 0, "weight_decay": 1e-4,
        "norm_weight_decay": 0, "bias_weight_decay": 0, "label_smoothing": 0, "mixup_alpha": 0, "cutmix_alpha": 0,
        "auto_augment": None, "random_erase": 0, "train_crop_size": 224, "val_resize_size": 256, "val_crop_size": 224,
        "interpolation": "bilinear", "ra_reps": 1, "clip_grad_norm": None, "amp": "off", "model_ema": False,
        "drop_last": False,
    },
    "resnet50_v2": {
        "epochs": 600, "batch_size": 1024, "opt": "sgd", "momentum": 0.9, "lr": 0.5, "lr_scheduler": "cosine",
        "lr_min": 0, "lr_warmup_epochs": 5, "lr_warmup_decay": 0.01, "weight_decay": 2e-5, "norm_weight_decay": 0,
        "bias_weight_decay": 0, "label_smoothing": 0, "mixup_alpha": 0.2, "cutmix_alpha": 1.0,
        "auto_augment": "ta_wide", "random_erase": 0.1, "train_crop_size": 176, "val_resize_size": 232,
        "val_crop_size": 224, "interpolation": "bilinear", "ra_reps": 4, "clip_grad_norm": None, "amp": "fp16",
        "model_ema": True, "drop_last": True,
    },
    "mobilenet_v2": {
        "epochs": 300, "batch_size": 256, "opt": "sgd", "momentum": 0.9, "lr": 0.1, "lr_scheduler": "multistep",
        "lr_milestones": (150, 225, 285), "lr_gamma": 0.1, "lr_warmup_epochs": 0, "weight_decay": 1e-5,
        "norm_weight_decay": 0, "bias_weight_decay": 0, "label_smoothing": 0, "auto_augment": None, "random_erase": 0,
        "train_crop_size": 224, "val_resize_size": 256, "val_crop_size": 224, "ra_reps": 1, "amp": "off",
        "model_ema": False, "drop_last": False,
    },
    "swin_t": {
        "epochs": 300, "batch_size": 1024, "opt": "adamw", "betas": (0.9, 0.999), "eps": 1e-8, "lr": 1e-3,
        "lr_scheduler": "cosine", "lr_min": 1e-5, "lr_warmup_epochs": 20, "lr_warmup_decay": 0.01,
        "weight_decay": 0.05, "norm_weight_decay": 0, "bias_weight_decay": 0,
        "weight_decay_overrides": {"*relative_position_bias_table": 0.0}, "label_smoothing": 0.1, "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0, "auto_augment": "ta_wide", "random_erase": 0.25, "train_crop_size": 224,
        "val_resize_size": 224, "val_crop_size": 224, "interpolation": "bicubic", "ra_reps": 4, "clip_grad_norm": 5.0,
        "amp": "fp16", "model_ema": True, "drop_last": True,
    },
    "vit_b_16": {
        "epochs": 300, "batch_size": 1024, "opt": "adamw", "lr": 7.5e-4, "lr_scheduler": "cosine", "lr_min": 0,
        "lr_warmup_epochs": 30, "lr_warmup_decay": 0.033, "weight_decay": 0.2, "norm_weight_decay": None,
        "bias_weight_decay": None, "weight_decay_overrides": {}, "label_smoothing": 0.11, "mixup_alpha": 0.2,
        "cutmix_alpha": 1.0, "auto_augment": "ra", "ra_magnitude": 9, "random_erase": 0, "train_crop_size": 224,
        "val_resize_size": 256, "val_crop_size": 224, "interpolation": "bilinear", "ra_reps": 3, "clip_grad_norm": 1.0,
        "amp": "fp16", "model_ema": True, "drop_last": True,
    },
}  # fmt: skip
#: What the command lines before the release changed, beside temperature 4.
BEFORE = {
    "resnet50": {"batch_size": 512},
    "mobilenet_v2": {},
    "swin_t": {},
    "vit_b_16": {"batch_size": 768, "lr": 5.6e-4},
}


def _spec(path: Path) -> RunSpec:
    (spec,) = resolve(load_config(path))
    return spec


def _recipe(repo_root: Path, name: str) -> Recipe:
    return _spec(repo_root / f"configs/adn/{name}.yaml").stages[-1].recipe


@pytest.mark.parametrize("name", RELEASED)
def test_released_recipe(repo_root, name):
    spec = _spec(repo_root / f"configs/adn/{name}.yaml")
    assert spec.protocol == "published"
    assert spec.data.name == "imagenet"
    config = ADNConfig.model_validate(spec.options)
    assert config == ADNConfig(arch=name.removesuffix("_v2") if name == "resnet50_v2" else name)
    assert (config.alpha, config.temperature, config.top_k, config.feature_stages) == (0.5, 1.0, 500, ())
    assert spec.evaluation_amp == "off", "the release evaluates without autocast"
    recipe = spec.stages[-1].recipe
    for key, value in RELEASED[name].items():
        assert getattr(recipe, key) == value, key


def test_imagenet_rows_keep_their_recipes_whatever_the_comparison_has(repo_root, tmp_path):
    fragment = repo_root / "configs/adn/imagenet.yaml"
    (tmp_path / "imagenet.yaml").write_text(fragment.read_text())
    (tmp_path / "comparison.yaml").write_text(
        "name: rows\ninclude: [imagenet.yaml]\nprotocol: published\ndata: {name: imagenet}\n"
        "recipe: {epochs: 90, lr_scheduler: step, lr_warmup_epochs: 3, nesterov: true, label_smoothing: 0.1,\n"
        "  mixup_alpha: 0.5, cutmix_alpha: 0.5, auto_augment: imagenet, random_erase: 0.2, model_ema: true,\n"
        "  interpolation: bicubic, train_crop_size: 160, val_resize_size: 240, val_crop_size: 208, ra_reps: 2}\n"
    )
    specs = resolve(load_config(tmp_path / "comparison.yaml"))
    assert [spec.run for spec in specs] == ["adn-resnet50", "adn-resnet50-v2"]
    for spec, name in zip(specs, ("resnet50", "resnet50_v2")):
        recipe = spec.stages[-1].recipe
        assert not recipe.nesterov
        for key, value in RELEASED[name].items():
            assert getattr(recipe, key) == value, (name, key)


@pytest.mark.parametrize(("name", "steps"), [
    ("resnet50", 5005), ("mobilenet_v2", 5005), ("resnet50_v2", 1251), ("swin_t", 1251), ("vit_b_16", 1251),
    ("vit_b_16_prerelease", 1668),
])  # fmt: skip
def test_steps_of_an_epoch_of_imagenet(repo_root, name, steps):
    """Repeated augmentation deals whole batches; the plain sampler keeps the last, smaller one."""
    recipe = _recipe(repo_root, name)
    assert BatchPlan(1_281_167, recipe.batch_size, 0, recipe.drop_last, recipe.ra_reps).steps == steps


@pytest.mark.parametrize("name", BEFORE)
def test_recipe_before_the_release(repo_root, name):
    before = _spec(repo_root / f"configs/adn/{name}_prerelease.yaml")
    released = _spec(repo_root / f"configs/adn/{name}.yaml")
    assert before.comparison != released.comparison
    assert before.evaluation_amp == "off"
    changed = {"temperature": 4.0}
    if name == "swin_t":
        changed["mandatory"] = (1, 1, 3, 2)
    assert before.options == {**released.options, **changed} or before.options == {
        **released.options,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()},
    }
    old, new = before.stages[-1].recipe, released.stages[-1].recipe
    assert old == new.model_copy(update=BEFORE[name])


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("resnet50", {0: 0.1, 59: 0.1, 60: 0.01, 100: 1e-3, 140: 1e-4}),
        ("resnet50_v2", {0: 0.005, 1: 0.104, 4: 0.401, 5: 0.5, 300: 0.2533}),
        ("mobilenet_v2", {149: 0.1, 150: 0.01, 225: 1e-3, 285: 1e-4}),
        ("swin_t", {0: 1e-5, 19: 9.505e-4, 20: 1e-3, 299: 1.00312e-5}),
        ("vit_b_16", {0: 2.475e-5, 29: 7.25826e-4, 30: 7.5e-4, 299: 2.538e-8}),
    ],
)
def test_learning_rates(repo_root, name, rates):
    recipe = _recipe(repo_root, name)
    for epoch, rate in rates.items():
        assert learning_rate(recipe, epoch, recipe.epochs) == pytest.approx(rate, rel=2e-4), epoch


@pytest.mark.parametrize(
    ("name", "decay"), [("swin_t", 0.99781547), ("vit_b_16", 0.99781547), ("resnet50_v2", 0.99890773)]
)
def test_decay_of_the_average(repo_root, name, decay):
    assert adjusted_decay(_recipe(repo_root, name), 1251) == pytest.approx(decay, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("resnet50", {(54, 25_502_912, 1e-4), (80, 39_616, 0.0), (81, 40_616, 0.0)}),
        ("mobilenet_v2", {(53, 3_469_760, 1e-5), (86, 28_392, 0.0), (87, 29_392, 0.0)}),
        ("swin_t", {(53, 28_199_424, 0.05), (44, 19_488, 0.0), (94, 60_328, 0.0), (12, 23_322, 0.0)}),
        ("vit_b_16", {(184, 86_592_232, 0.2)}),
    ],
)
def test_weight_decay_groups(repo_root, name, groups):
    with torch.device("meta"):
        network = build_network(ADNConfig(arch=name), IMAGENET)
    found = parameter_groups(network, _recipe(repo_root, name))
    assert Counter(
        (len(group["params"]), sum(p.numel() for p in group["params"]), group["weight_decay"]) for group in found
    ) == Counter(groups)


@pytest.mark.parametrize("path", ["cifar10_adn_resnet.yaml", "adn/cifar10_ablation.yaml"])
def test_individual_networks_have_the_depth_of_the_ends(repo_root, path):
    specs = resolve(load_config(repo_root / "configs" / path))
    recipes = {spec.stages[-1].recipe.model_dump_json() for spec in specs}
    assert len(recipes) == 1, "all runs share one recipe"
    static = {spec.options["depth"] for spec in specs if spec.method == "resnet"}
    for spec in specs:
        if spec.method == "adn":
            split = ADNConfig.model_validate(spec.options).split()
            assert static == {2 * sum(split.blocks) + 2, 2 * sum(split.mandatory) + 2}
