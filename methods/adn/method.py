"""The plug: Adaptive Depth Networks as the harness sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.method import Arch, Batch, Capability, Decisions, Exports, Method, Point, RunStage, Walk
from bench.train.losses import cross_entropy
from methods.adn.config import ADNConfig
from methods.adn.export import constructor, export_configuration
from methods.adn.families import build_network
from methods.adn.losses import distillation_loss, feature_loss
from methods.adn.network import AdaptiveNetwork
from methods.adn.splits import BACKBONES, Skip, skip_name
from methods.adn.weights import load_released, load_torchvision, released_state

IMAGENET = DataSpec("imagenet", 1000, 224)
FROM_TORCHVISION = "torchvision/"


class ADN(Method[ADNConfig], Exports):
    """Adaptive Depth Networks with Skippable Sub-Paths (Kang and Lee, NeurIPS 2024, arXiv 2312.16392).

    One network, 2^n depths: each of its n stages runs whole or shortened. Trained by two passes per batch,
    the whole network from the labels and the shortest one from its logits; every mixture of the two is an
    operating point without having been trained.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"static_paths"})

    # ---- what it is -------------------------------------------------------------------------------
    @classmethod
    def archs(cls) -> dict[str, Arch]:
        """The released backbones, and ``torchvision/NAME`` to start from torchvision's weights."""
        released = {name: Arch(ADNConfig(arch=name), IMAGENET) for name in BACKBONES}  # type: ignore[arg-type]
        plain = {f"{FROM_TORCHVISION}{n}": arch for n, arch in released.items() if not n.endswith("vd")}
        return {**released, **plain}

    @property
    def find_unused_parameters(self) -> bool:  # type: ignore[override]
        """The two ends together use every parameter; sub-networks drawn at random need not."""
        return "random" in (self.config.teacher, self.config.student)

    def backbone(self) -> str:
        wide = f"-w{self.config.width}" if self.config.width != 16 else ""
        return self.config.arch or f"resnet{self.config.depth}{wide}"

    # ---- training ---------------------------------------------------------------------------------
    def build(self, stage: RunStage) -> AdaptiveNetwork:
        return build_network(self.config, self.data)

    def loss(self, model: nn.Module, batch: Batch, stage: RunStage) -> dict[str, Tensor]:
        """Algorithm 1: labels teach the super-net, its logits teach the base-net, one sum to differentiate.

        Mixing touches the images of both passes and the targets of the first; the second sees no label
        unless ``distill`` is off. ``loss_super`` and ``loss_base`` are logged without their weights.
        """
        config, network = self.config, cast(AdaptiveNetwork, model)
        flags = network.split.flags
        # The first pass draws first, both for its sub-network and for dropout and stochastic depth.
        teacher, teacher_features = network.forward_features(
            batch.images, _draw(flags) if config.teacher == "random" else (False,) * flags, config.feature_stages
        )
        student, student_features = network.forward_features(
            batch.images, _draw(flags) if config.student == "random" else (True,) * flags, config.feature_stages
        )
        smoothing = stage.recipe.label_smoothing
        parts = {"loss_super": cross_entropy(teacher, batch.targets, label_smoothing=smoothing)}
        if not config.distill:
            parts["loss_base"] = cross_entropy(student, batch.targets, label_smoothing=smoothing)
        else:
            parts["loss_base"] = distillation_loss(student, teacher, config.temperature, config.top_k)
            if config.feature_stages:
                parts["loss_features"] = feature_loss(student_features, teacher_features, config.temperature)
        of_super, of_base = config.weights
        base = parts["loss_base"] + parts.get("loss_features", 0.0)
        return {"loss": of_super * parts["loss_super"] + of_base * base, **parts, "logits": teacher}

    # ---- measuring --------------------------------------------------------------------------------
    def points(self, model: nn.Module) -> list[Point]:
        """All 2^n skip configurations, FFFF (the super-net) first, TTTT (the base-net) last."""
        return [_point(skip) for skip in cast(AdaptiveNetwork, model).skips()]

    def walk(self, model: nn.Module, images: Tensor, point: Point) -> Walk:
        """A mandatory block is one unit whichever set of norms it uses: both do the same work."""
        yield model(images, point.settings["skip"])

    def cascade(self, model: nn.Module) -> list[Point]:
        """The configurations of the option: base-net, then super-net."""
        return [_point(skip) for skip in self.config.cascade_skips()]

    @torch.no_grad()
    def record(self, model: nn.Module, images: Tensor) -> Decisions:
        """Points that begin alike share what they have in common."""
        logits = [out for _, out in cast(AdaptiveNetwork, model).walk(images)]
        return Decisions(torch.stack(logits), self.walker(model).counts())

    # ---- weights ----------------------------------------------------------------------------------
    @classmethod
    def import_weights(cls, arch: str, state_dict: Mapping[str, Any]) -> tuple[ADN, AdaptiveNetwork]:
        """Released weights (flat, or inside a training checkpoint), or torchvision's; strict."""
        spec = cls.find_arch(arch)
        method = cls(spec.config, spec.data)  # type: ignore[arg-type]
        model = cast(AdaptiveNetwork, method.build_last())
        load = load_torchvision if arch.startswith(FROM_TORCHVISION) else load_released
        load(model, arch.removeprefix(FROM_TORCHVISION), state_dict)
        return method, model

    def export_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """All weights under the released names."""
        return released_state(cast(AdaptiveNetwork, model), self.config.arch)

    def export_point(self, model: nn.Module, point: Point) -> nn.Module:
        """One operating point as a plain network with torchvision's names."""
        return export_configuration(cast(AdaptiveNetwork, model), self.config, self.data, point.settings["skip"])

    def export_constructor(self, point: Point) -> str:
        return constructor(self.config, self.data, point.settings["skip"])


def _point(skip: Skip) -> Point:
    return Point(skip_name(skip), {"skip": skip})


def _draw(flags: int) -> Skip:
    """One of the 2^flags configurations, from torch's global generator."""
    return tuple(bool(flag) for flag in torch.randint(2, (flags,)).tolist())
