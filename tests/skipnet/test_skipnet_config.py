"""Options: what is refused, which stages there are, and what each stage's address depends on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from bench.config.schema import Recipe
from methods.skipnet.config import SkipNetConfig


@pytest.mark.parametrize(("options", "message"), [
    ({}, "one of them"),
    ({"depth": 38, "arch": "resnet50"}, "one of them"),
    ({"depth": 37}, "6n\\+2"),
    ({"depth": 2}, "6n\\+2"),
    ({"arch": "resnet50", "width": 32}, "width belongs"),
    ({"arch": "resnet20"}, "arch"),
    ({"depth": 38, "gate": "lstm"}, "gate"),
    ({"depth": 38, "threshold": 1.0}, "threshold"),
    ({"depth": 38, "threshold": -0.1}, "threshold"),
    ({"depth": 38, "thresholds": [0.3, 0.3]}, "twice"),
    ({"depth": 38, "thresholds": [1]}, "less than 1"),
    ({"depth": 38, "thresholds": [1.5]}, "thresholds"),
    ({"depth": 38, "alpha": -1.0}, "alpha"),
    ({"depth": 38, "temperature": 0.0}, "temperature"),
    ({"depth": 38, "gamma": 1.1}, "gamma"),
    ({"depth": 38, "rl_reduction": "max"}, "rl_reduction"),
    ({"depth": 38, "target_rate_weight": 2.0}, "needs a target_rate"),
    ({"depth": 38, "target_rate_of": "gate"}, "needs a target_rate"),
    ({"depth": 38, "target_rate": 0.7, "target_rate_of": "block"}, "target_rate_of"),
    ({"depth": 38, "gate": "none", "hrl": True}, "no gates"),
    ({"depth": 38, "gate": "none", "thresholds": [0.3]}, "gate: none"),
    ({"depth": 38, "gate": "none", "soft_gates": True}, "gate: none"),
    ({"depth": "38"}, "depth"),
    ({"depth": 38, "alhpa": 0.1}, "alhpa"),
    ({"depth": 38, "norm": "batchnorm"}, "norm"),
])  # fmt: skip
def test_refused(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SkipNetConfig.model_validate(options)


def test_options_do_not_import_torch() -> None:
    code = "import sys, methods.skipnet.config, methods.skipnet.archs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_stages() -> None:
    assert [s.name for s in SkipNetConfig(depth=38).stages()] == ["sp", "hrl"]
    assert [s.name for s in SkipNetConfig(depth=38, hrl=False).stages()] == ["sp"]
    assert [s.name for s in SkipNetConfig(depth=38, gate="none").stages()] == ["base"]
    sp, hrl = SkipNetConfig(depth=38).stages()
    assert sp.start_from is None
    assert not sp.recipe
    assert hrl.start_from == "sp"


def test_supervised_stage_is_shared_by_everything_that_only_changes_the_second() -> None:
    base = SkipNetConfig(depth=38)
    address = base.stages()[0].options
    shared = [
        {"alpha": 0.5}, {"gamma": 0.9}, {"rl_weight": 0.1}, {"rl_reduction": "sum"}, {"ce_reward": "scaled"},
        {"baseline": "batch"}, {"freeze_norm_statistics": True}, {"temperature": 0.05}, {"hrl": False},
        {"thresholds": (0.3,)},
    ]  # fmt: skip
    for change in shared:
        assert SkipNetConfig(depth=38, **change).stages()[0].options == address, change
    own = [
        {"depth": 74}, {"width": 8}, {"gate": "ff1"}, {"rnn_size": 16}, {"soft_gates": True}, {"threshold": 0.4},
        {"keep_open_bias": 1.0}, {"target_rate": 0.5}, {"norm": {"kind": "batch", "eps": 1e-3}},
    ]  # fmt: skip
    for change in own:
        assert SkipNetConfig(**{"depth": 38, **change}).stages()[0].options != address, change
    covered = {key for change in (*shared, *own) for key in change} | {"arch", "target_rate_weight", "target_rate_of"}
    assert covered == set(SkipNetConfig.model_fields)
    hrl = base.stages()[1].options
    assert SkipNetConfig(depth=38, alpha=0.5).stages()[1].options != hrl
    assert SkipNetConfig(depth=38, thresholds=(0.3,)).stages()[1].options == hrl


def test_a_choice_that_came_later_leaves_older_runs_their_identity() -> None:
    assert "target_rate_of" not in SkipNetConfig(depth=38, target_rate=0.7).model_dump(mode="json")
    each = SkipNetConfig(depth=38, target_rate=0.7, target_rate_of="gate")
    assert each.model_dump(mode="json")["target_rate_of"] == "gate"
    assert SkipNetConfig.model_validate(each.model_dump(mode="json")) == each


def test_second_stages_are_the_published_ones() -> None:
    cifar = Recipe.model_validate(SkipNetConfig(depth=38).stages()[1].recipe)
    assert (cifar.lr, cifar.lr_scheduler, cifar.iterations, cifar.epochs) == (1e-4, "constant", 10_000, None)
    large = Recipe.model_validate(SkipNetConfig(arch="resnet50").stages()[1].recipe)
    assert (large.lr, large.lr_scheduler, large.lr_step_size, large.epochs) == (1e-4, "step", 30, 40)


def test_numbers_from_yaml() -> None:
    assert SkipNetConfig.model_validate({"depth": 38, "thresholds": [0, 0.25], "alpha": 1}).thresholds == (0, 0.25)
