"""Exits on any backbone, cut at layers that are named."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.networks import make_network
from bench.config.data import DataSpec
from bench.method import Batch, Capability, Method, RunStage, Walk
from bench.train.losses import cross_entropy
from methods.exits.config import ExitsConfig
from methods.exits.graph import Backbone
from methods.exits.network import ExitNet, make_head
from methods.exits.places import choose_places
from methods.techniques.ofa import one_for_all_loss

__all__ = ["Exits"]


class Exits(Method[ExitsConfig]):
    """One operating point an exit: the backbone's own classifier, which is the default, then the first to the last
    head. Heads before an exit are run, and paid for, on the way to it."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"exits"})

    def __init__(self, config: ExitsConfig, data: DataSpec) -> None:
        super().__init__(config, data)

    def backbone(self) -> str:
        return f"{self.config.backbone.partition('/')[2]}+{self.config.answers - 1}"

    # ---- training ---------------------------------------------------------------------------------
    def build(self, stage: RunStage) -> nn.Module:
        """The backbone as it is for the stage ``backbone``, else cut."""
        data, config = self.data, self.config
        network = make_network(config.backbone, data)
        if stage.name == "backbone":
            return network
        backbone = Backbone(network, config.backbone, data.image_size, data.channels)
        places = choose_places(backbone, config.exits, data.num_classes)
        first_token = backbone.reads_first_token()
        heads = [make_head(place.shape, data.num_classes, config.head, first_token, f"'{place.name}'")
                 for place in places]  # fmt: skip
        return ExitNet(backbone.split(places), heads, config.boost, config.equilibrium)

    def prepare(self, model: nn.Module, stage: RunStage, previous: nn.Module | None) -> None:
        """Later stages take over the trained backbone, its classifier included; their heads start fresh."""
        if previous is not None and isinstance(model, ExitNet):
            model.load_backbone(previous.state_dict())

    def set_mode(self, model: nn.Module, stage: RunStage) -> None:
        """Under frozen weights statistics stay too."""
        if stage.name == "heads" and isinstance(model, ExitNet):
            model.parts.eval()

    def loss(self, model: nn.Module, batch: Batch, stage: RunStage) -> dict[str, Tensor]:
        hard_loss = partial(cross_entropy, targets=batch.targets, label_smoothing=stage.recipe.label_smoothing)
        if not isinstance(model, ExitNet):
            logits = model(batch.images)
            return {"loss": hard_loss(logits), "logits": logits}
        said, weights = model(batch.images), self._exit_weights()
        parts: dict[str, Tensor] = {}
        if self.config.distill:
            loss, hard, soft = one_for_all_loss(
                said, said[-1], hard_loss, weight=self.config.distill, temperature=self.config.temperature,
                exit_weights=weights,
            )  # fmt: skip
            parts |= {f"kl_exit{k + 1}": one.detach() for k, one in enumerate(soft)}
        else:
            hard = [hard_loss(logits) for logits in said]
            loss = torch.stack([weight * one for weight, one in zip(weights, hard)]).sum()
        parts |= {f"ce_exit{k + 1}": one.detach() for k, one in enumerate(hard)}
        return {"loss": loss, "logits": said[-1].detach(), **parts}

    def _exit_weights(self) -> tuple[float, ...]:
        asked, answers = self.config.exit_weights, self.config.answers
        if asked == "depth":
            return tuple((k + 1) / answers for k in range(answers))
        return (1.0,) * answers if asked == "equal" else asked  # type: ignore[return-value]

    # ---- measuring --------------------------------------------------------------------------------
    def walk(self, model: nn.Module, images: Tensor) -> Walk:
        """Part by part; the images that go on are those whose maps the next part sees."""
        if not isinstance(model, ExitNet):  # the stage before exits
            yield model(images)
            return
        x, before = images, None
        for k, part in enumerate(model.parts):
            x = part(x)
            said = model.answer(k, x, before)
            rows = yield said
            x, before = x[rows], said[rows]

    def export_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The backbone by its own names, then the heads."""
        if not isinstance(model, ExitNet):
            return super().export_weights(model)
        heads = {f"heads.{name}": value for name, value in model.heads.state_dict().items()}
        return {name: torch.clone(value) for name, value in {**model.backbone_state(), **heads}.items()}
