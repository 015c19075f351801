"""The loop around a network of one layer: the average, the curve and its times, interrupted anywhere or not."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bench.config.averaging import adjusted_decay
from bench.config.schema import Recipe
from bench.errors import RunError
from bench.method import Batch, Stage
from bench.train import loop
from bench.train.checkpoint import load_checkpoint, save_checkpoint
from bench.train.loop import StageJob, train_stage
from bench.train.watch import Interrupted, Watch

STEPS = 5
SIZE = 4


class OneLayer:
    """As much of a method as the loop asks for."""

    find_unused_parameters = False

    def build(self, stage: Stage) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    def set_mode(self, model: nn.Module, stage: Stage) -> None:
        return

    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        logits = model(batch.images)
        return {"loss": nn.functional.cross_entropy(logits, batch.targets), "logits": logits}


class Batches:
    """An epoch of STEPS batches that depend on the epoch and the step alone."""

    steps_per_epoch = STEPS

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, STEPS):
            random = torch.Generator().manual_seed(100 * epoch + step)
            images, labels = torch.randn(SIZE, 3, generator=random), torch.randint(2, (SIZE,), generator=random)
            yield Batch(images, labels, labels, images)

    def global_size(self, step: int) -> int:
        return SIZE


def _job(folder: Path, recipe: dict[str, Any], **more: Any) -> StageJob:
    folder.mkdir(exist_ok=True)
    stage = Stage("train").resolve(Recipe(batch_size=SIZE, **recipe))
    job = StageJob(OneLayer(), stage, Batches(), folder, 0, torch.device("cpu"), lambda model: None, quiet=True)  # type: ignore[arg-type]
    for name, value in more.items():
        setattr(job, name, value)
    return job


def _curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _without_times(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in curve]


@pytest.mark.parametrize(
    "recipe",
    [
        {"epochs": 4, "model_ema_steps": 32},  # longer than an epoch: one update in each, never none
        {"epochs": 3, "model_ema_steps": 2, "model_ema_decay": 0.9},
        {"epochs": 5, "model_ema_steps": 3, "lr_warmup_epochs": 2, "model_ema_decay": 0.99},
        {"iterations": 3, "model_ema_steps": 32},
    ],
    ids=["sparse", "dense", "warmup", "iterations"],
)
def test_the_average_is_that_of_torchvisions_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any]
) -> None:
    """Their train_one_epoch: ``if i % model_ema_steps == 0: update_parameters(model)``, and in warmup epochs
    ``n_averaged.fill_(0)``; i counts the batches of the epoch."""
    job = _job(tmp_path, {"lr": 0.5, "model_ema": True, **recipe})
    decay = adjusted_decay(job.recipe, STEPS)
    averaged: list[AveragedModel] = []
    train_on = loop._Training._train_on

    def watched(self: Any, batch: Batch) -> None:
        if not averaged:
            averaged.append(
                AveragedModel(self.model, avg_fn=lambda old, new, _: decay * old + (1 - decay) * new, use_buffers=True)
            )
        epoch, index = divmod(self.step, STEPS)
        train_on(self, batch)
        if index % job.recipe.model_ema_steps == 0:
            averaged[0].update_parameters(self.model)
            if job.recipe.iterations is None and epoch < job.recipe.lr_warmup_epochs:
                averaged[0].n_averaged.fill_(0)

    monkeypatch.setattr(loop._Training, "_train_on", watched)
    model = train_stage(job)
    for name, value in averaged[0].module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(model.state_dict()[name], value, atol=1e-6), name
    assert not torch.equal(model[1].running_mean, torch.zeros(2)), "the untrained network"


def _cases() -> list[Any]:
    quick = {(STEPS, STEPS), (STEPS, STEPS + 2), (1, 2 * STEPS), (2, 2 * STEPS), (2, 7)}
    everything = [(every, stop) for every in (1, 2, STEPS, 2 * STEPS) for stop in range(1, 3 * STEPS)]
    return [pytest.param(*case, marks=[] if case in quick else pytest.mark.slow) for case in everything]


@pytest.mark.parametrize(("every", "stop"), _cases())
def test_a_continued_curve_is_that_of_one_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, stop: int
) -> None:
    """Killed before step ``stop``, also where that is the first after an epoch, with a checkpoint at its end."""
    recipe = {"epochs": 3, "lr": 0.5, "checkpoint_every": every}
    whole = train_stage(_job(tmp_path / "whole", recipe)).state_dict()
    train_on = loop._Training._train_on

    def killed(self: Any, batch: Batch) -> None:
        if self.step == stop:
            raise KeyboardInterrupt
        train_on(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "_train_on", killed)
        with pytest.raises(KeyboardInterrupt):
            train_stage(_job(tmp_path / "parts", recipe))
    again = train_stage(_job(tmp_path / "parts", recipe)).state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert _without_times(_curve(tmp_path / "parts")) == _without_times(_curve(tmp_path / "whole"))
    assert [line["images"] for line in _curve(tmp_path / "parts")] == [STEPS * SIZE] * 3


def test_times_add_up_over_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes one second of a made-up clock; three sessions share an epoch."""
    now = [0.0]
    train_on = loop._Training._train_on

    def second(self: Any, batch: Batch) -> None:
        train_on(self, batch)
        now[0] += 1.0
        if self.step in (2, 4):
            self.job.watch.signum = 2

    monkeypatch.setattr(loop._Training, "_train_on", second)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    saved = []
    for session in range(3):
        job = _job(tmp_path, {"epochs": 2, "lr": 0.1}, watch=Watch(), saved=lambda: saved.append(now[0]))
        now[0] += 1000.0  # nobody trains between sessions
        if session < 2:
            with pytest.raises(Interrupted):
                train_stage(job)
        else:
            train_stage(job)
    assert [(line["seconds"], line["images_per_s"]) for line in _curve(tmp_path)] == [(STEPS, SIZE)] * 2
    assert saved == [1002.0, 2004.0]


def test_a_disk_that_is_full_when_an_epoch_ends_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bench.files.open", full, raising=False)
    with pytest.raises(RunError, match=r"^cannot write .*metrics.jsonl: No space left on device$"):
        train_stage(_job(tmp_path, {"epochs": 1, "lr": 0.1}))


def test_a_checkpoint_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    """It has no curve and was saved at the end of an epoch with that epoch still in the meter."""
    recipe = {"epochs": 2, "lr": 0.5, "checkpoint_every": STEPS}
    train_stage(_job(tmp_path, recipe))
    lines = _curve(tmp_path)
    newest = sorted(tmp_path.glob("checkpoint-*"))[-1]
    newest.unlink()
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == STEPS
    (old,) = tmp_path.glob("checkpoint-*")
    old.unlink()
    del state["curve"]
    state["processes"][0]["meter"] = {"sums": {"loss": 99.0, "hits": 1.0}, "images": 20, "judged": 20}
    save_checkpoint(tmp_path, STEPS, state)
    train_stage(_job(tmp_path, recipe))
    assert _without_times(_curve(tmp_path)) == _without_times(lines)
