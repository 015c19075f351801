"""`reference_batch_size` of a recipe: the published values, where they are shown, and what keeps its identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli import main
from bench.config.load import load_config
from bench.config.resolve import RunSpec, resolve
from bench.errors import ConfigError
from bench.launch.stages import stage_key

PINNED = """\
name: pinned
protocol: holdout
data: {name: synthetic, val_size: 32, train_subset: 64, test_subset: 32}
recipe: {epochs: 3, batch_size: 32, lr: 0.05, momentum: 0.9, weight_decay: 2e-4, lr_scheduler: multistep,
         lr_milestones: [1, 2]}
seeds: [0, 7]
device: cpu
runs:
  - {name: resnet8, method: resnet, options: {depth: 8, norm: {kind: group, gn_num_groups: 8}}}
  - {name: adamw, method: resnet, options: {depth: 8}, recipe: {opt: adamw, lr: 1e-3, lr_scheduler: cosine,
     model_ema: true}}
"""
PLAIN = """\
name: plain
data: {name: synthetic}
recipe: {epochs: 5, batch_size: 128, lr: 0.1, momentum: 0.9}
runs:
  - {name: a, method: resnet, options: {depth: 8}}
"""


def _first(path: Path, *settings: str) -> RunSpec:
    return resolve(load_config(path, settings=settings))[0]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.yaml"
    path.write_text(PLAIN)
    return path


def test_what_was_trained_before_is_found_again(tmp_path: Path) -> None:
    """Addresses computed before this field existed: a new option of the harness must not lose trained stages."""
    path = tmp_path / "pinned.yaml"
    path.write_text(PINNED)
    split = "0123456789abcdef"
    found = [(s.run, s.seed, s.run_id, stage_key(s, s.stages[0], split, None, None),
              stage_key(s, s.stages[0], split, "x" * 20, None)) for s in resolve(load_config(path))]  # fmt: skip
    assert found == [
        ("resnet8", 0, "74fa209a4c1f", "859e73c8e965885bbba4", "e1c7e319a9a85c9d2b45"),
        ("resnet8", 7, "fb9ba523dd88", "5fda190b3a112a23b97c", "cc8ce7f8f26375a2eaff"),
        ("adamw", 0, "f67b897ba3b9", "3737c790da2ab475449e", "d3da5483ca00bd91a13c"),
        ("adamw", 7, "53a8c44165f9", "821d5c279c30a08c2690", "953ee155fef97f217207"),
    ]


@pytest.mark.parametrize(("batch", "reference", "lr", "momentum"), [
    (64, 128, 0.025658, 0.94868), (1, 128, 6.428e-6, 0.99917721), (32, 256, 0.0016355, 0.98691628),
])  # fmt: skip
def test_published_values(plain: Path, batch: int, reference: int, lr: float, momentum: float) -> None:
    spec = _first(plain, f"recipe.batch_size={batch}", f"recipe.reference_batch_size={reference}")
    recipe = spec.stages[0].recipe
    assert recipe.lr == pytest.approx(lr, rel=1e-4)
    assert recipe.momentum == pytest.approx(momentum, abs=1e-5 if batch == 64 else 1e-8)
    assert (recipe.batch_size, recipe.weight_decay) == (batch, 1e-4)  # weight decay is not scaled
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again.stages[0].recipe == recipe, "a stored run must not be scaled a second time"
    assert again.run_id == spec.run_id


def test_identity_is_that_of_the_numbers_in_force(plain: Path) -> None:
    """At the reference nothing changes, to the last bit; elsewhere it is the run whose file says the scaled values."""
    assert _first(plain, "recipe.reference_batch_size=128").run_id == _first(plain).run_id
    scaled = _first(plain, "recipe.reference_batch_size=128", "recipe.batch_size=32")
    recipe = scaled.stages[0].recipe
    said = _first(plain, "recipe.batch_size=32", f"recipe.lr={recipe.lr!r}", f"recipe.momentum={recipe.momentum!r}")
    assert said.run_id == scaled.run_id
    assert said.run_id != _first(plain, "recipe.batch_size=32").run_id


def test_every_layer_of_a_recipe_and_lr_min(plain: Path) -> None:
    """A run's own batch size is scaled from the shared reference; cosine keeps its shape."""
    settings = ["recipe.reference_batch_size=128", "recipe.lr_min=0.01", "runs.a.recipe.batch_size=256"]
    recipe = _first(plain, *settings).stages[0].recipe
    assert recipe.lr_min / recipe.lr == pytest.approx(0.1)
    assert recipe.momentum == pytest.approx(0.81)
    off = _first(plain, *settings, "runs.a.recipe.reference_batch_size=null").stages[0].recipe
    assert (off.lr, off.momentum, off.lr_min) == (0.1, 0.9, 0.01)


def test_explain_says_that_it_was_scaled(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "recipe.reference_batch_size=128", "--set", "recipe.batch_size=64"]
    assert main(["explain", str(plain), *settings]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "0.02565835" in rows["runs.a.stages.train.lr"]
    assert rows["runs.a.stages.train.lr"].endswith("0.1 at batch 128, scaled to batch 64 (reference_batch_size)")
    assert rows["runs.a.stages.train.momentum"].endswith("0.9 at batch 128, scaled to batch 64 (reference_batch_size)")
    assert rows["runs.a.stages.train.weight_decay"].endswith("default")
    assert rows["runs.a.stages.train.batch_size"].endswith("command line")


@pytest.mark.parametrize(("settings", "words"), [
    (["recipe.opt=adamw", "recipe.reference_batch_size=64"], "rule for opt: sgd"),
    (["recipe.reference_batch_size=0"], "reference_batch_size"),
    (["recipe.reference_batch_size=1000000000000000000000"], "at most 1048576"),
    (["recipe.reference_batch_size=1", "recipe.batch_size=1048576", "recipe.lr=1e305"], "too far from"),
    (["recipe.reference_batch_size=1", "recipe.batch_size=1" + "0" * 400], "batch_size"),
])  # fmt: skip
def test_what_cannot_be_scaled_is_one_line(plain: Path, settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        _first(plain, *settings)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(("file", "batch", "lr", "momentum"), [
    ("cifar10_resnet20_norms.yaml", 64, 0.025658, 0.94868), ("cifar100_resnet20_norms.yaml", 1, 6.428e-6, 0.99917721),
    ("imagenet_resnet50_norms.yaml", 256, 0.1, 0.9),
])  # fmt: skip
def test_shipped_norm_recipes_scale_with_the_batch(
    repo_root: Path, file: str, batch: int, lr: float, momentum: float
) -> None:
    recipe = _first(repo_root / "configs" / file, f"recipe.batch_size={batch}").stages[0].recipe
    assert recipe.lr == pytest.approx(lr, rel=1e-4)
    assert recipe.momentum == pytest.approx(momentum, abs=1e-5)
