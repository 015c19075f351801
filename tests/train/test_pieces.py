"""Optimiser groups, averaging, checkpoints, random states, meter."""

from __future__ import annotations

import errno
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from bench.config.averaging import adjusted_decay
from bench.config.schema import Recipe
from bench.errors import ConfigError, WeightsError
from bench.method import Batch
from bench.train.checkpoint import load_checkpoint, read_weights, remove_checkpoints, save_checkpoint, save_weights
from bench.train.ema import ModelEMA
from bench.train.meter import Meter
from bench.train.optim import freeze, make_optimizer, parameter_groups
from bench.train.seeds import derive_seed, random_state, restore_random_state, seed_everything


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    return torchvision.models.mobilenet_v2(weights=None)


def _sizes(groups: list[dict]) -> dict[float, tuple[int, int]]:
    return {g["weight_decay"]: (len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups}


def test_weight_decay_groups_are_torchvisions(mobilenet: nn.Module) -> None:
    both = _sizes(parameter_groups(mobilenet, Recipe(weight_decay=1.0, norm_weight_decay=0.5, bias_weight_decay=0.25)))
    assert both == {1.0: (53, 3_469_760), 0.5: (52, 17_056), 0.25: (53, 18_056)}
    norms = _sizes(parameter_groups(mobilenet, Recipe(weight_decay=1.0, norm_weight_decay=0.5)))
    assert norms[0.5] == (104, 34_112)  # without a rule for biases, a norm's bias goes with its norm
    assert _sizes(parameter_groups(mobilenet, Recipe(weight_decay=1.0))) == {1.0: (158, 3_504_872)}


def test_weight_decay_by_pattern(mobilenet: nn.Module) -> None:
    groups = _sizes(parameter_groups(mobilenet, Recipe(weight_decay=1.0, weight_decay_overrides={"classifier.*": 0.0})))
    assert groups[0.0] == (2, 1_281_000)
    with pytest.raises(ConfigError, match="no parameter is called like nothing"):
        parameter_groups(mobilenet, Recipe(weight_decay_overrides={"nothing": 0.0}))


def test_freeze_trains_only_what_is_named() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    freeze(net, ("1.*",))
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]
    assert len(make_optimizer(net, Recipe()).param_groups[0]["params"]) == 2
    with pytest.raises(ConfigError, match=r"no parameter is called like that"):
        freeze(net, ("2.*",))


@pytest.mark.parametrize(("recipe", "expected"), [
    (Recipe(opt="rmsprop", lr=0.064, momentum=0.8, eps=0.0316, weight_decay=1e-5),
     lambda p: torch.optim.RMSprop(p, 0.064, momentum=0.8, alpha=0.9, eps=0.0316, weight_decay=1e-5)),
    (Recipe(opt="adam", lr=1e-3, betas=(0.8, 0.99), weight_decay=0.1),
     lambda p: torch.optim.Adam(p, 1e-3, betas=(0.8, 0.99), weight_decay=0.1)),
    (Recipe(opt="adamw", lr=1e-3, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1)),
], ids=lambda value: getattr(value, "opt", ""))  # fmt: skip
def test_optimisers_are_torchs(recipe: Recipe, expected: Callable[..., torch.optim.Optimizer]) -> None:
    weights = []
    for make in (lambda net: make_optimizer(net, recipe), lambda net: expected(net.parameters())):
        torch.manual_seed(0)
        net = nn.Linear(4, 3)
        optimizer = make(net)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(2, 4)).pow(2).sum().backward()
            optimizer.step()
        weights.append(net.weight.detach())
    assert torch.equal(*weights)


def test_ema_averages_floats_and_copies_the_rest() -> None:
    net = nn.BatchNorm1d(2)
    net.register_buffer("index", torch.tensor([7, 9]))
    ema = ModelEMA(net, decay=0.9)
    ema.update(net)
    with torch.no_grad():
        net.weight.fill_(3.0)
        net.index.fill_(1)
        net.running_mean.fill_(1.0)
    ema.update(net)
    assert torch.allclose(ema.module.weight, torch.full((2,), 0.9 * 1 + 0.1 * 3))
    assert torch.allclose(ema.module.running_mean, torch.full((2,), 0.1))
    assert ema.module.index.tolist() == [1, 1]
    ema.update(net, reset=True)
    assert torch.equal(ema.module.weight, net.weight)


def test_adjusted_decay_is_the_published_one() -> None:
    assert adjusted_decay(Recipe(epochs=300, batch_size=1024), 1251) == pytest.approx(0.99781547, abs=1e-7)
    assert adjusted_decay(Recipe(epochs=600, batch_size=1024), 1251) == pytest.approx(0.99890773, abs=1e-7)


def test_checkpoints_keep_two_and_survive_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step, "x": torch.arange(step)})
    files = sorted(tmp_path.glob("checkpoint-*"))
    assert len(files) == 2
    assert load_checkpoint(tmp_path)["step"] == 3
    content = bytearray(files[-1].read_bytes())
    content[len(content) // 2] ^= 1
    files[-1].write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(tmp_path)["step"] == 2
    assert "damaged" in caplog.text
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert load_checkpoint(tmp_path) is None


def _folder(path: Path) -> None:
    path.mkdir()


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", [_folder, _circle, _dangling])
def test_a_checkpoint_that_cannot_be_read_costs_one_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    newest = max(tmp_path.glob("checkpoint-*"))
    newest.unlink()
    kind(newest)
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(tmp_path)["step"] == 1
    (line,) = caplog.messages
    assert line.startswith(f"{newest} cannot be read (")
    for step in (3, 4, 5):  # pruning and the end of training get by
        save_checkpoint(tmp_path, step, {"step": step})
    assert load_checkpoint(tmp_path)["step"] == 5
    remove_checkpoints(tmp_path)
    assert load_checkpoint(tmp_path) is None


def test_an_error_of_the_disk_while_a_checkpoint_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    newest, read = max(tmp_path.glob("checkpoint-*")), Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == newest:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert load_checkpoint(tmp_path)["step"] == 1


def test_weights_round_trip_and_damage(tmp_path: Path) -> None:
    path = save_weights(tmp_path, {"w": torch.ones(3)}, {"method": "m"})
    state, about = read_weights(path)
    assert about == {"method": "m"}
    assert torch.equal(state["w"], torch.ones(3))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(path)


def test_random_states_come_back_through_a_file(tmp_path: Path) -> None:
    seed_everything(derive_seed(3, "x"))
    random.random(), np.random.rand(3), torch.rand(3)
    torch.save(random_state(), tmp_path / "r.pt")
    first = (random.random(), np.random.randn(3).tolist(), torch.rand(3).tolist())
    restore_random_state(torch.load(tmp_path / "r.pt", weights_only=True))
    assert (random.random(), np.random.randn(3).tolist(), torch.rand(3).tolist()) == first


def test_derived_seeds_differ_by_purpose() -> None:
    seeds = {derive_seed(s, *axes) for s in (0, 1) for axes in (("init",), ("data",), ("init", "sp"))}
    assert len(seeds) == 6
    assert derive_seed(0, "init") == derive_seed(0, "init")


def test_meter_weights_by_images_and_notices_nan() -> None:
    meter = Meter(torch.device("cpu"))
    for size, loss in ((4, 1.0), (2, 4.0)):
        logits = torch.eye(4)[torch.arange(size) % 4]
        labels = torch.arange(size) % 4
        batch = Batch(torch.zeros(size, 1), labels, labels, torch.zeros(size, 1))
        meter.update({"loss": torch.tensor(loss), "logits": logits}, batch)
    assert meter.means() == {"loss": 2.0, "accuracy": 100.0}
    again = Meter(torch.device("cpu"))
    again.load_state_dict(meter.state_dict())
    assert again.means() == meter.means()
    assert meter.is_finite()
    meter.update({"loss": torch.tensor(float("nan"))}, batch)
    assert not meter.is_finite()
