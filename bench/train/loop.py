"""The one training loop: a stage of any method, from wherever it was left to its last step."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from bench.config.averaging import adjusted_decay
from bench.config.schema import Recipe
from bench.errors import ConfigError, Diverged
from bench.files import append_text, read_json_lines, write_text_atomic
from bench.method import Batch, Method, RunStage
from bench.train.checkpoint import load_checkpoint, save_checkpoint
from bench.train.ema import ModelEMA
from bench.train.meter import Meter
from bench.train.optim import freeze, make_optimizer
from bench.train.progress import TrainingProgress
from bench.train.schedule import step_learning_rate
from bench.train.seeds import derive_seed, random_state, restore_random_state, seed_everything
from bench.train.step import TrainStep
from bench.train.watch import Interrupted, Watch
from bench.train.world import World

#: Least time between two checkpoints that nobody asked for (seconds): short epochs are not worth a disk write each.
_PAUSE = 20.0
#: On CUDA the loss is looked at every so many steps, so that the queue of kernels never runs dry.
_LOOK_EVERY = 25


class TrainLoader(Protocol):
    """Batches of an epoch, from any batch on; global_size: images of a step over all processes."""

    @property
    def steps_per_epoch(self) -> int: ...
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...
    def global_size(self, step: int) -> int: ...


@dataclass
class StageJob:
    """One stage of one run and all it needs. ``prepare`` is called once, with the fresh network; ``saved`` after each
    checkpoint and ``log`` with each line of the training curve, by the process that writes them."""

    method: Method
    stage: RunStage
    loader: TrainLoader
    folder: Path
    seed: int
    device: torch.device
    prepare: Callable[[nn.Module], None]
    title: str = ""
    world: World = field(default_factory=World)
    watch: Watch = field(default_factory=Watch)
    quiet: bool = False
    validate: Callable[[nn.Module], float] | None = None
    validate_every: int | None = None
    saved: Callable[[], None] = lambda: None
    log: Callable[[Mapping[str, Any]], None] = lambda line: None

    @property
    def recipe(self) -> Recipe:
        return self.stage.recipe


def train_stage(job: StageJob) -> nn.Module:
    """Train to the end of the recipe and return the network to use (the average, where one is kept).

    Continues from the newest whole checkpoint in ``job.folder``. Raises Diverged, Interrupted or TimeIsUp;
    after the latter two a checkpoint of the last whole step lies in the folder.
    """
    return _Training(job).run()


@contextmanager
def _closing(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()


class _Training:
    def __init__(self, job: StageJob) -> None:
        self.job, recipe = job, job.recipe
        self.recipe, self.device, self.world = recipe, job.device, job.world
        self.spe = job.loader.steps_per_epoch
        self.total = recipe.iterations or (recipe.epochs or 0) * self.spe
        self.epochs = math.ceil(self.total / self.spe)
        self.step = 0
        self.curve: list[dict[str, Any]] = []

        saved = load_checkpoint(job.folder)
        seed_everything(derive_seed(job.seed, "init", job.stage.name))
        self.model = job.method.build(job.stage)
        if saved is None:
            job.prepare(self.model)
        freeze(self.model, job.stage.trains)
        self.model.to(self.device)
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.sync_batchnorm and self.world.size > 1:
            if self.device.type != "cuda":
                raise ConfigError("sync_batchnorm works on CUDA only")
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.optimizer = make_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp == "fp16")
        self.ema = ModelEMA(self.model, adjusted_decay(recipe, self.spe)) if recipe.model_ema else None
        self.meter = Meter(self.device)
        self.module = self._wrap(TrainStep(job.method, self.model, job.stage))
        if saved is None:
            seed_everything(derive_seed(job.seed, "step", job.stage.name, self.world.rank))
        else:
            self._restore(saved)
        self._write_curve()
        for line in self.curve if self.world.is_main else ():
            job.log(line)

    def _wrap(self, step: TrainStep) -> nn.Module:
        module: nn.Module = step
        if self.world.size > 1:
            module = nn.parallel.DistributedDataParallel(
                step,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                find_unused_parameters=self.job.method.find_unused_parameters,
            )
        return torch.compile(module) if self.recipe.compile else module  # type: ignore[return-value]

    # ---- the loop ---------------------------------------------------------------------------------
    def run(self) -> nn.Module:
        job = self.job
        self.module.train()
        self.saved_at = time.monotonic()
        with TrainingProgress(job.title, self.total, enabled=self.world.is_main and not job.quiet) as progress:
            while self.step < self.total:
                self._epoch(progress)
        return (self.ema.module if self.ema is not None else self.model).eval()

    def _epoch(self, progress: TrainingProgress) -> None:
        epoch, start = divmod(self.step, self.spe)
        self.began = time.monotonic() - self.meter.seconds  # an epoch that is continued took something already
        with _closing(self.job.loader.epoch(epoch, start)) as batches:  # an error ends worker processes at once
            for batch in batches:
                if self.world.any(self.job.watch.stops, self.device):
                    self._save()
                    self.job.watch.check()
                    raise Interrupted(signal.SIGTERM)  # another process was asked to stop
                self._train_on(batch)
                if self.device.type == "cpu" or self.step % _LOOK_EVERY == 0 or self.step == self.total:
                    self._look_at_loss(epoch)
                self.meter.seconds = time.monotonic() - self.began
                progress.step(self.step, epoch, self.epochs, self.meter, self.meter.images_per_s * self.world.size)
                if self.step == self.total:
                    break
                if self._asked_to_save and self.step % self.spe:  # at the end of an epoch: with its line in the curve
                    self._save()
        self._end_epoch(epoch, progress)

    @property
    def _asked_to_save(self) -> bool:
        return self.recipe.checkpoint_every is not None and self.step % self.recipe.checkpoint_every == 0

    def _train_on(self, batch: Batch) -> None:
        rate = step_learning_rate(self.recipe, self.step, self.spe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            parts = self.module(*self._formatted(batch))
        loss = parts["loss"]
        if self.world.size > 1:
            # DDP takes the plain mean over processes; shares of a smaller last batch may differ by one image.
            share = batch.images.shape[0] * self.world.size / self.job.loader.global_size(self.step % self.spe)
            loss = loss * share
        self.scaler.scale(loss).backward()
        if self.recipe.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(
                [p for group in self.optimizer.param_groups for p in group["params"]], self.recipe.clip_grad_norm
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.meter.update(parts, batch)
        # torchvision's references: after the first step of an epoch, then every so many within it
        if self.ema is not None and (self.step - 1) % self.spe % self.recipe.model_ema_steps == 0:
            position = self.step if self.recipe.iterations else (self.step - 1) // self.spe
            self.ema.update(self.model, reset=position < self.recipe.lr_warmup_epochs)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.recipe.amp == "off":
            return nullcontext()
        dtype = torch.bfloat16 if self.recipe.amp == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def _formatted(self, batch: Batch) -> Batch:
        if not self.recipe.channels_last:
            return batch
        images = batch.images.contiguous(memory_format=torch.channels_last)
        clean = images
        if batch.clean_images is not batch.images:
            clean = batch.clean_images.contiguous(memory_format=torch.channels_last)
        return batch._replace(images=images, clean_images=clean)

    def _look_at_loss(self, epoch: int) -> None:
        if not self.meter.is_finite():
            raise Diverged(f"the loss is no longer finite at step {self.step} (epoch {epoch + 1})")

    # ---- between epochs ---------------------------------------------------------------------------
    def _end_epoch(self, epoch: int, progress: TrainingProgress) -> None:
        self._look_at_loss(epoch)
        self.meter.seconds = time.monotonic() - self.began
        whole = self._of_all_processes()
        means, rate = whole.means(), whole.images_per_s
        line = {"stage": self.job.stage.name, "epoch": epoch + 1, "step": self.step,
                "lr": self.optimizer.param_groups[0]["lr"], "images": whole.images,
                "seconds": round(whole.seconds, 3), "images_per_s": round(rate, 1)}  # fmt: skip
        last = self.step == self.total
        every = self.job.validate_every
        if self.job.validate is not None and every and (last or (epoch + 1) % every == 0):
            means["val_top1"] = self.job.validate(self.ema.module if self.ema is not None else self.model)
            self.module.train()
        self.meter.reset()
        self.curve.append({**line, **means})
        if self.world.is_main:
            append_text(self.job.folder / "metrics.jsonl", json.dumps(self.curve[-1]) + "\n")
            self.job.log(self.curve[-1])
            progress.epoch(epoch, self.epochs, means, rate)
        due = self.world.share(time.monotonic() - self.saved_at > _PAUSE)
        if self._asked_to_save or (self.recipe.checkpoint_every is None and not last and due):
            self._save()

    def _of_all_processes(self) -> Meter:
        if self.world.size == 1:
            return self.meter
        everyone = self.world.gather(self.meter.state_dict())
        total = Meter(torch.device("cpu"))
        total.images = sum(one["images"] for one in everyone)
        total.judged = sum(one["judged"] for one in everyone)
        total.seconds = max(one["seconds"] for one in everyone)
        for one in everyone:
            for name, value in one["sums"].items():
                total._add(name, torch.tensor(value))
        return total

    def _write_curve(self) -> None:
        """metrics.jsonl as of the checkpoint: lines of epochs that will be trained again are forgotten."""
        path = self.job.folder / "metrics.jsonl"
        if self.world.is_main and (self.curve or path.exists()):
            write_text_atomic(path, "".join(json.dumps(line) + "\n" for line in self.curve))

    # ---- checkpoints ------------------------------------------------------------------------------
    def _save(self) -> None:
        """All processes take part; the first one writes. Weights that are no longer finite are not saved."""
        self.saved_at = time.monotonic()
        states = self.world.gather({"random": random_state(), "meter": self.meter.state_dict()})
        if not self.world.is_main or self.step == 0:
            return
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "processes": states,
            "curve": self.curve,
        }
        if all(bool(v.isfinite().all()) for v in state["model"].values() if v.is_floating_point()):
            save_checkpoint(self.job.folder, self.step, state)
            self.job.saved()

    def _restore(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        self.curve = state["curve"] if "curve" in state else self._curve_of_earlier_version()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        processes = state["processes"]
        if len(processes) == self.world.size:
            self.meter.load_state_dict(processes[self.world.rank]["meter"])
            restore_random_state(processes[self.world.rank]["random"])
            if self.step % self.spe == 0:  # an earlier version saved before it wrote the epoch's line
                self.meter.reset()
        else:  # continued by another number of processes: fresh randomness, reproducible from here
            seed_everything(derive_seed(self.job.seed, "step", self.job.stage.name, self.world.rank, self.step))

    def _curve_of_earlier_version(self) -> list[dict[str, Any]]:
        """Its checkpoints do not hold the curve: the lines of the file up to the checkpoint."""
        lines = read_json_lines(self.job.folder / "metrics.jsonl")
        return [line for line in lines if isinstance(line.get("step"), int) and line["step"] <= self.step]
