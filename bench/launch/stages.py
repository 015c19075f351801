"""Stages of training, content-addressed: what is the same is trained once, what is there is continued."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.config.resolve import RunSpec, StageSpec, digest, recipe_identity
from bench.data.fingerprint import Fingerprint
from bench.errors import ConfigError, WeightsError
from bench.launch.claim import claim
from bench.method import Method, RunStage, Stage, load_strict, strip_prefix
from bench.store.reading import Damaged
from bench.store.stage import check_weights, clear_stage, metrics_hash, trained_weights, write_stage
from bench.store.status import read_status, stored_weights
from bench.train.checkpoint import read_weights, remove_checkpoints, save_weights
from bench.train.loop import StageJob, train_stage
from bench.train.seeds import derive_seed, seed_everything
from bench.train.watch import Watch
from bench.train.world import World

if TYPE_CHECKING:
    from bench.data import DataBundle

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trainer:
    """Trains the stages of one run."""

    spec: RunSpec
    method: Method
    bundle: DataBundle
    data: Fingerprint
    out: Path
    device: torch.device
    world: World
    watch: Watch
    quiet: bool
    validate: Callable[[nn.Module], float] | None
    saved: Callable[[], None]
    log: Callable[[Mapping[str, Any]], None]

    def keys(self) -> dict[str, str]:
        """The content address of every stage, by its name, in order."""
        keys: dict[str, str] = {}
        for spec in self.spec.stages:
            if spec.start_from is not None and spec.start_from not in keys:
                raise ConfigError(f"stage '{spec.name}' starts from '{spec.start_from}', which is no stage before it")
            previous = keys.get(spec.start_from or "")
            keys[spec.name] = stage_key(self.spec, spec, self.bundle.split_hash, previous, self.data.train.digest)
        return keys

    def run(self) -> tuple[nn.Module, RunStage]:
        """The trained network of the last stage, and that stage. Earlier stages are trained first."""
        stages = {stage.name: stage for stage in self.method.stages()}
        last = self.spec.stages[-1]
        return self._stage(last, stages, self.keys()), stages[last.name].resolve(last.recipe)

    def _stage(self, spec: StageSpec, stages: dict[str, Stage], keys: dict[str, str]) -> nn.Module:
        stage = stages[spec.name].resolve(spec.recipe)
        folder = self.out / "stages" / keys[spec.name]
        weights = self._trained(folder)
        if weights is not None:
            return self._load(stage, weights)
        if spec.start_from is not None:
            # Stages in order, each finished before the next begins, also when this one is resumed.
            self._stage(self._before(spec), stages, keys)
        with claim(folder, self.watch) if self.world.is_main else nullcontext():
            self.world.barrier()
            weights = self._trained(folder, repair=self.world.is_main)  # by whoever had the claim before us
            return self._train(spec, stage, stages, keys) if weights is None else self._load(stage, weights)

    def _trained(self, folder: Path, repair: bool = False) -> Path | None:
        """Weights of a finished stage that are whole. repair: remove a damaged stage, and say that it is trained
        again."""
        try:
            weights = trained_weights(folder)
            if weights is not None:
                check_weights(weights)
            return weights
        except Damaged as error:
            if repair:
                print(f"{error}; the stage is trained again", file=sys.stderr, flush=True)
                clear_stage(folder)
            return None

    def _before(self, spec: StageSpec) -> StageSpec:
        return next(s for s in self.spec.stages if s.name == spec.start_from)

    def _train(self, spec: StageSpec, stage: RunStage, stages: dict[str, Stage], keys: dict[str, str]) -> nn.Module:
        def prepare(model: nn.Module) -> None:
            previous = None
            if spec.start_from is not None:
                state = torch.get_rng_state()
                previous = self._stage(self._before(spec), stages, keys)
                torch.set_rng_state(state)
            elif self.spec.weights is not None:
                load_given_weights(self.spec, self.method, model)
            self.method.prepare(model, stage, previous)

        folder = self.out / "stages" / keys[spec.name]
        seeds = derive_seed(self.spec.seed, "data", spec.name)
        job = StageJob(
            method=self.method, stage=stage, folder=folder, seed=self.spec.seed, device=self.device,
            loader=self.bundle.train_loader(spec.recipe, seed=seeds, device=self.device,
                                            rank=self.world.rank, world=self.world.size),
            prepare=prepare, title=self._title(spec.name), world=self.world, watch=self.watch, quiet=self.quiet,
            validate=self.validate, validate_every=self.spec.evaluate.validate_every,
            saved=self.saved, log=self.log,
        )  # fmt: skip
        model = train_stage(job)
        if self.world.is_main:
            about = {"method": self.spec.method, "options": self.spec.all_options, "stage": spec.name,
                     "data": self.spec.data.name, "num_classes": self.method.data.num_classes,
                     "image_size": self.method.data.image_size, "seed": self.spec.seed, "key": keys[spec.name],
                     "mean": list(self.method.data.mean), "std": list(self.method.data.std)}  # fmt: skip
            path = save_weights(folder, model.state_dict(), about)
            write_stage(folder, {
                "status": "done", "key": keys[spec.name], "stage": spec.name, "method": self.spec.method,
                "weights": path.name, "recipe": recipe_identity(spec.recipe), "data": self.data.model_dump(),
                "metrics_sha256": metrics_hash(folder),
            })  # fmt: skip
            remove_checkpoints(folder)
        self.world.barrier()
        return model

    def _title(self, stage: str) -> str:
        several = len(self.spec.stages) > 1
        return f"{self.spec.run}{f' [{stage}]' if several else ''} seed {self.spec.seed}"

    def _load(self, stage: RunStage, path: Path) -> nn.Module:
        state, _ = read_weights(path)
        seed_everything(derive_seed(self.spec.seed, "init", stage.name))
        model = self.method.build(stage)
        load_strict(model, state, what=str(path))
        return model.to(self.device).eval()


def stage_key(
    spec: RunSpec, stage: StageSpec, split_hash: str, previous: str | None, images: str | None
) -> str:
    """The content address of a trained stage: data, split, options it depends on, recipe, seed, what came
    before. images: digest of the training images; None gives the address without them, as it was in earlier versions.
    Twenty hex digits."""
    value: dict[str, Any] = {
        **spec.data_identity(), "split": split_hash, "method": spec.method, "options": stage.options,
        "stage": stage.name, "recipe": recipe_identity(stage.recipe), "previous": previous,
        "weights": spec.weights_sha256 if previous is None else None, "deterministic": spec.deterministic,
    }  # fmt: skip
    if images is not None:
        value["images"] = images
    return digest(value)[:20]


def run_weights(folder: Path) -> Path | None:
    """The weights of a run's last stage, by the run's folder; None if it is not trained. Raises Damaged."""
    return stored_weights(folder, read_status(folder))


def load_given_weights(spec: RunSpec, method: Method, model: nn.Module) -> None:
    """Fill ``model`` from the run's ``weights``: our file, published names (``arch``), or our own names.

    Raises WeightsError if they do not fit. Warns if they were trained on images normalised in another way.
    """
    assert spec.weights is not None
    state, about = read_weights(spec.weights)
    if about is not None and about.get("method") != spec.method:
        raise WeightsError(f"{spec.weights} holds weights of method '{about.get('method')}', not '{spec.method}'")
    normalised = {name: about.get(name) for name in ("mean", "std")} if about is not None else {}
    try:
        if about is None and spec.arch is not None:
            published, network = type(method).import_weights(spec.arch, state)
            state = dict(network.state_dict())
            normalised = {"mean": published.data.mean, "std": published.data.std}
        load_strict(model, strip_prefix(state), what=f"run '{spec.run}'")
    except WeightsError as error:
        named = about is not None or spec.arch is not None or not all(w in str(error) for w in ("missing", "left over"))
        hint = "" if named else "; if the file holds published names, say which: arch: NAME"
        raise WeightsError(f"{spec.weights}: {error}{hint}") from None
    _compare_normalisation(spec, method, normalised)


def _compare_normalisation(spec: RunSpec, method: Method, trained: Mapping[str, Any]) -> None:
    """Warn if weights were trained with another mean or std than the run's images get."""
    for name, own in (("mean", method.data.mean), ("std", method.data.std)):
        other = trained.get(name)
        if not isinstance(other, (list, tuple)) or not all(isinstance(v, (int, float)) for v in other):
            continue  # files from before these were stored
        if len(other) != len(own) or max(abs(a - b) for a, b in zip(own, other)) > 1e-6:
            log.warning("run '%s': its weights were trained with %s %s, its images get %s; to change that, set "
                        "`data: {%s: ...}` of the run", spec.run, name, list(other), list(own), name)  # fmt: skip
