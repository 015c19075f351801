"""Static networks by name: torchvision's and timm's classifiers, trained with cross-entropy. One unit, one point."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from baselines.networks import make_network
from baselines.networks_config import TimmConfig, TorchvisionConfig
from bench.errors import ConfigError, WeightsError
from bench.method import Method, RunStage, load_strict
from bench.registry import did_you_mean
from bench.train.checkpoint import read_weights

__all__ = ["TimmBaseline", "TorchvisionBaseline"]

log = logging.getLogger(__name__)


class TorchvisionBaseline(Method[TorchvisionConfig]):
    """One of torchvision's classifiers, as torchvision builds it."""

    def backbone(self) -> str:
        return self.config.model

    def build(self, stage: RunStage) -> nn.Module:
        return make_network(f"torchvision/{self.config.model}", self.data)

    def prepare(self, model: nn.Module, stage: RunStage, previous: nn.Module | None) -> None:
        """Take over published weights if the options name some; a head for another number of classes stays fresh."""
        if self.config.weights is None:
            return
        published = _published(self.config.model, self.config.weights)
        state, _ = read_weights(_file_of(published))
        load_strict(model, _with_own_head(model, state), what=f"torchvision/{self.config.model}")
        self._compare_images(published)

    def _compare_images(self, published: Any) -> None:
        """Say what of the images is not as the weights had it: nothing of the comparison's data is changed by them."""
        preset, data = published.transforms(), self.data
        for name, theirs, own in (
            ("mean", tuple(preset.mean), data.mean), ("std", tuple(preset.std), data.std),
            ("images of", preset.crop_size[0], data.image_size),
        ):  # fmt: skip
            if theirs != own:
                log.warning("torchvision/%s: its weights %s were trained with %s %s, its images get %s; %s",
                            self.config.model, published.name, name, theirs, own,
                            "set val_crop_size and train_crop_size of its recipe" if name == "images of"
                            else f"set `data: {{{name}: ...}}` of the run")  # fmt: skip


class TimmBaseline(Method[TimmConfig]):
    """One of timm's networks, as timm builds it."""

    def backbone(self) -> str:
        return self.config.model

    def build(self, stage: RunStage) -> nn.Module:
        return make_network(f"timm/{self.config.model}", self.data)


def _published(model: str, name: str) -> Any:
    """A member of the model's enumeration of weights."""
    known = get_model_weights(model)
    if name not in known.__members__:
        raise ConfigError(f"torchvision/{model} has no weights '{name}'{did_you_mean(name, known.__members__)}")
    return known[name]


def _file_of(published: Any) -> Path:
    """Where torch hub keeps the file. It is never fetched here: WeightsError says what belongs where."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rpartition("/")[2]
    if not path.is_file():
        raise WeightsError(f"no file {path}; put {published.url} there")
    return path


def _with_own_head(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without auxiliary classifiers that the network does not have, and with the network's own last layer
    where theirs is for another number of classes."""
    own = model.state_dict()
    kept = {key: value for key, value in state.items() if key in own or not key.lower().startswith("aux")}
    head = list(own)[-1].rpartition(".")[0]
    for key in (f"{head}.weight", f"{head}.bias"):
        if key in kept and key in own and kept[key].shape != own[key].shape:
            kept[key] = own[key]
    return kept
