"""The shipped comparison files: they load, their runs resolve, and their schedules are the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config.load import load_config
from bench.config.resolve import RunSpec, digest, resolve
from bench.config.schema import Recipe
from bench.data.order import BatchPlan

FOLDER = Path(__file__).resolve().parents[2] / "configs/skipnet"
FRAGMENTS = ("cifar_recipe.yaml", "quickstart.yaml", "imagenet.yaml")
WHOLE = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name not in FRAGMENTS)


def runs(name: str) -> dict[str, RunSpec]:
    return {spec.run: spec for spec in resolve(load_config(FOLDER / name))}


def including(tmp_path: Path, fragment: str, data: str) -> dict[str, RunSpec]:
    path = tmp_path / "including.yaml"
    path.write_text(f"name: t\ninclude: [{FOLDER / fragment}]\ndata: {{name: {data}}}\n"
                    "recipe: {epochs: 2, lr_scheduler: cosine, lr_warmup_epochs: 1, lr_per_step: true}\n")  # fmt: skip
    return {spec.run: spec for spec in resolve(load_config(path))}


def test_all_families_are_shipped() -> None:
    expected = {f"cifar{classes}_resnet{depth}.yaml" for classes in (10, 100) for depth in (38, 74, 110)}
    expected |= {f"svhn_resnet{depth}.yaml" for depth in (74, 110, 152)}
    assert expected <= set(WHOLE)


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith("cifar") and "_cpu" not in name])
def test_cifar_schedule(name: str) -> None:
    for run, spec in runs(name).items():
        first = spec.stages[0].recipe
        assert (first.iterations, first.epochs, first.batch_size, first.lr) == (64_000, None, 128, 0.1), run
        assert first.lr_milestones == (32_000, 48_000)
        assert (first.momentum, first.nesterov, first.weight_decay) == (0.9, False, 1e-4)
        assert first.lr_warmup_epochs == (400 if "110" in name else 0)
        assert spec.protocol == "published"
        assert all(stage.recipe.drop_last for stage in spec.stages), "the release draws full batches only"
        for stage in spec.stages[1:]:
            second = stage.recipe
            assert (second.lr, second.iterations, second.lr_scheduler) == (1e-4, 10_000, "constant"), run
            assert (second.lr_warmup_epochs, second.lr_milestones) == (0, ())


def first_stages(name: str) -> list[str]:
    return [digest(spec.stages[0].model_dump(mode="json")) for spec in runs(name).values() if spec.method == "skipnet"]


@pytest.mark.parametrize("name", ["cifar10_resnet38.yaml", "cifar10_resnet110_alpha.yaml", "svhn_resnet110.yaml"])
def test_runs_share_one_supervised_stage(name: str) -> None:
    assert len(first_stages(name)) > 1
    assert len(set(first_stages(name))) == 1


def test_alpha_sweep_covers_the_searched_and_the_published_range() -> None:
    second = [spec.stages[1] for spec in runs("cifar10_resnet110_alpha.yaml").values() if len(spec.stages) == 2]
    found = {stage.options["alpha"] for stage in second}
    assert {0.0, 0.001, 0.01, 0.1, 1.0, 4.0} <= found


def test_svhn_second_stage_is_50_epochs() -> None:
    sp, hrl = runs("svhn_resnet110.yaml")["hrl110"].stages
    assert (sp.recipe.epochs, hrl.recipe.epochs, hrl.recipe.iterations) == (50, 50, None)
    assert hrl.recipe.lr == 1e-4
    assert sp.recipe.hflip_prob == 0.0
    assert sp.recipe.drop_last
    assert hrl.recipe.drop_last


def steps_of_imagenet(recipe: Recipe) -> int:
    return BatchPlan(1_281_167, recipe.batch_size, 0, recipe.drop_last, recipe.ra_reps).steps


@pytest.mark.parametrize("depth", [50, 101, 34])
def test_imagenet_schedule(tmp_path: Path, depth: int) -> None:
    fragment = including(tmp_path, "imagenet.yaml", "imagenet")
    found = fragment if depth == 50 else runs("imagenet_resnet101_skipnet.yaml")
    sp, hrl = found[f"skipnet{depth}-hrl"].stages
    assert (sp.recipe.epochs, sp.recipe.lr_step_size, sp.recipe.batch_size, sp.recipe.lr) == (120, 30, 256, 0.1)
    assert (hrl.recipe.epochs, hrl.recipe.lr_step_size, hrl.recipe.lr) == (40, 30, 1e-4)
    assert found[f"skipnet{depth}-sp"].stages[0] == sp
    assert steps_of_imagenet(sp.recipe) == steps_of_imagenet(hrl.recipe) == 5004
    if depth != 50:
        assert steps_of_imagenet(found[f"resnet{depth}"].stages[0].recipe) == 5005


def test_quickstart_fragment(tmp_path: Path) -> None:
    (spec,) = including(tmp_path, "quickstart.yaml", "fashion_mnist_mini").values()
    assert [stage.name for stage in spec.stages] == ["sp", "hrl"]
    assert spec.stages[1].recipe.iterations is not None
