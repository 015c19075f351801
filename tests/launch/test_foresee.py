"""What is known before training: weights, batches, images, lengths, averages, and methods of other packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from quick import write_quick

from baselines.config import ResNetConfig
from bench import registry
from bench.cli import main
from bench.config.averaging import adjusted_decay, averaging_updates, share_of_start
from bench.config.data import DataSpec
from bench.config.load import load_config
from bench.config.schema import Recipe
from bench.launch import estimate
from bench.launch.foresee import foresee, length_of
from bench.launch.preflight import plan_runs
from bench.registry import method_class

SMALL = {"name": "fine", "method": "resnet", "options": {"depth": 8}}
CONTRACT = Path(__file__).resolve().parents[1] / "contract"


def _refused(capsys: pytest.CaptureFixture[str], config: Path, out: Path) -> str:
    """Both commands refuse with the same line and exit code 2; nothing is written."""
    lines = []
    for command in (["check", str(config)], ["run", str(config), "--out", str(out), "--in-process", "--quiet"]):
        assert main(command) == 2
        found = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(found) == 1, found
        lines += found
    assert lines[0] == lines[1]
    assert not out.exists()
    return lines[0]


def test_weights_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = method_class("resnet")(ResNetConfig(depth=8), DataSpec("synthetic", 1000, 32))
    torch.save(method.build(method.stages()[-1].resolve(Recipe())).state_dict(), tmp_path / "w.pt")
    for more in ({"evaluate_only": True}, {}):
        config = write_quick(tmp_path, [SMALL, {**SMALL, "name": "b", "weights": "w.pt", **more}])
        line = _refused(capsys, config, tmp_path / "out")
        assert "run 'b': " in line
        assert "(1000, 64) instead of (10, 64)" in line


def test_a_last_batch_of_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images of 32 pixels are single numbers behind the last stage of the ImageNet ResNets: batch norm over one of
    them has nothing to average. ResNet-8 has maps of 8x8 there and is trained on one image."""
    large = {"name": "large", "method": "resnet", "options": {"arch": "resnet18"}}
    data = {"train_subset": 33}
    config = write_quick(tmp_path, [SMALL, large], data=data)
    line = _refused(capsys, config, tmp_path / "out")
    assert "run 'large': the last batch of an epoch has 1 image (33 in batches of 32)" in line
    assert "drop_last: true" in line
    for runs, recipe in (([SMALL], {}), ([large], {"drop_last": True}), ([large], {"batch_size": 11})):
        loaded = load_config(write_quick(tmp_path, runs, data=data, recipe=recipe))
        assert foresee(loaded, plan_runs(loaded)) == []


def test_one_test_image_and_budgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"reference": "fine", "budgets": [1.0]}
    config = write_quick(tmp_path, [SMALL, {**SMALL, "name": "b"}], data={"test_subset": 1}, **more)
    assert "1 test image is too few to compare runs (budgets)" in _refused(capsys, config, tmp_path / "out")
    loaded = load_config(write_quick(tmp_path, [SMALL], data={"test_subset": 1}))
    assert foresee(loaded, plan_runs(loaded)) == []


def test_a_length_that_the_file_did_not_set_is_said(tmp_path: Path) -> None:
    skipnet = {"name": "s", "method": "skipnet", "options": {"depth": 8}}
    loaded = load_config(write_quick(tmp_path, [skipnet, {**skipnet, "name": "s2"}]))
    (line,) = foresee(loaded, plan_runs(loaded))
    assert line == ("note: stage 'hrl' of runs 's', 's2' lasts 10,000 steps (1,667 epochs of 6), its method's own "
                    "length, whatever `recipe` says; to change it: stages: {hrl: {iterations: N}}")  # fmt: skip
    loaded = load_config(write_quick(tmp_path, [{**skipnet, "stages": {"hrl": {"iterations": 5}}}]))
    assert foresee(loaded, plan_runs(loaded)) == []


def test_lengths_in_words() -> None:
    assert length_of(Recipe(epochs=2, batch_size=32), 65) == "6 steps (2 epochs of 3)"
    assert length_of(Recipe(epochs=1, batch_size=64, drop_last=True), 65) == "1 step (1 epoch of 1)"
    assert length_of(Recipe(iterations=10, batch_size=32), 65) == "10 steps (3.33 epochs of 3)"


@pytest.mark.parametrize("recipe", [
    Recipe(epochs=3, model_ema_steps=4), Recipe(epochs=4, lr_warmup_epochs=2, model_ema_steps=3),
    Recipe(iterations=25, model_ema_steps=4, lr_warmup_epochs=7),
])  # fmt: skip
def test_updates_of_the_average_are_those_of_the_loop(recipe: Recipe) -> None:
    """The rule of the training loop, step by step."""
    spe = 10
    total = recipe.iterations or (recipe.epochs or 0) * spe
    after_warmup = [
        step for step in range(1, total + 1)
        if (step - 1) % spe % recipe.model_ema_steps == 0
        and (step if recipe.iterations else (step - 1) // spe) >= recipe.lr_warmup_epochs
    ]  # fmt: skip
    assert averaging_updates(recipe, spe) == len(after_warmup)
    assert share_of_start(recipe, spe) == pytest.approx(adjusted_decay(recipe, spe) ** (len(after_warmup) - 1))


def test_an_average_of_the_start_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = {"model_ema": True, "model_ema_steps": 1, "model_ema_decay": 0.99}
    runs = [{**SMALL, "recipe": {"model_ema": True}}, {**SMALL, "name": "quick", "recipe": quick}]
    config = write_quick(tmp_path, runs)
    assert main(["check", str(config)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert "run 'fine': " in line
    assert "(2 updates in the whole training)" in line
    assert "keeps 99 % of" in line  # once the decay, 1 - 2e-5 * 32 * 32 / 2 = 0.98976


def test_check_estimates_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that advances by two seconds a look: 12 steps of 2 s, once for what two runs share."""
    ticks = iter(range(0, 10**6, 2))
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: float(next(ticks)))
    config = write_quick(tmp_path, [SMALL, {**SMALL, "name": "same"}])
    assert main(["check", str(config), "--time"]) == 0
    out = capsys.readouterr().out
    assert "stage train: 12 steps (2 epochs of 6)" in out
    assert "about 2e+03 ms a step" in out
    assert "about 24 s to train everything" in out
    assert "an estimate from 5 steps of each stage" in out
    assert [estimate.in_words(s) for s in (3, 120, 6000, 200000)] == ["3 s", "2 min", "1.7 h", "2.31 days"]


# ---- methods of other packages ----------------------------------------------------------------------
@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with an installed package 'plug' 1.0, whose module defines what its entry points name."""
    folder = tmp_path / "site"
    (folder / "plug-1.0.dist-info").mkdir(parents=True)
    (folder / "plug-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (folder / "plug-1.0.dist-info" / "entry_points.txt").write_text(
        "[bench.methods]\nsound = plugged:Sound\nlying = plugged:Lying\nbroken = plugged_broken:Method\n")
    (folder / "plugged.py").write_text(
        "from lying import LIES, TwoExits\nLying = LIES['float counts'][0]\nclass Sound(TwoExits): pass\n")
    (folder / "plugged_broken.py").write_text("raise ValueError('not today')\n")
    monkeypatch.syspath_prepend(str(CONTRACT))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry.registered.cache_clear()
    yield folder
    monkeypatch.undo()
    registry.registered.cache_clear()


def test_methods_of_other_packages_are_checked_once(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_quick(tmp_path, [SMALL, {"name": "a", "method": "lying"}])
    line = _refused(capsys, config, tmp_path / "out")
    assert "method 'lying': record: counts must be a tensor of integers, not torch.float32" in line
    assert not (tmp_path / "cache").exists()
    line = _refused(capsys, write_quick(tmp_path, [{"name": "a", "method": "broken"}]), tmp_path / "out")
    assert "method 'broken' (plugged_broken:Method) cannot be imported: ValueError: not today" in line

    loaded = load_config(write_quick(tmp_path, [{"name": "a", "method": "sound"}]))
    assert foresee(loaded, plan_runs(loaded)) == []
    (passed,) = (tmp_path / "cache" / "depthbench" / "contract").iterdir()
    assert passed.name.startswith("sound-")
    checked: list[str] = []
    monkeypatch.setattr("bench.testing.check_method", lambda cls, name, config: checked.append(name) or [])
    foresee(loaded, plan_runs(loaded))
    assert checked == []
    (package / "plugged.py").write_text("# another version\n")
    foresee(loaded, plan_runs(loaded))
    assert checked == ["sound"]
