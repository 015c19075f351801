"""SkipNet as a method of the harness (Wang et al., ECCV 2018, arXiv 1711.09485)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from bench.method import Arch, Batch, Capability, Method, Point, RunStage, Walk
from bench.walking import note
from methods.skipnet.archs import released_archs
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.execution import run_compacted
from methods.skipnet.gates import above
from methods.skipnet.losses import hybrid_loss, supervised_loss
from methods.skipnet.network import GatedResNet, build_network, final_gate_layers
from methods.skipnet.weights import from_released, to_released


class SkipNet(Method[SkipNetConfig]):
    """Operating points are gate thresholds, each a pass of its own: later gates see what earlier skipped.

    The unit ``control`` (recurrent gates) runs once per gate. Of the published ways of counting,
    ``executed_blocks`` is the number of residual blocks that ran, block 0 included, and
    ``computation_percentage`` the same in percent of all blocks: the released code's measure, in which every
    block weighs the same, and stem, projections, gates and head nothing.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"gates"})

    @classmethod
    def archs(cls) -> dict[str, Arch]:
        return {name: Arch(config, data) for name, (config, data) in released_archs().items()}

    def backbone(self) -> str:
        return self.config.backbone

    # ---- training ---------------------------------------------------------------------------------
    def build(self, stage: RunStage) -> GatedResNet:
        return build_network(self.config, self.data)

    def prepare(self, model: nn.Module, stage: RunStage, previous: nn.Module | None) -> None:
        super().prepare(model, stage, previous)
        if stage.name == "hrl" and self.config.temperature != 1.0:
            with torch.no_grad():
                for layer in final_gate_layers(cast(GatedResNet, model)):
                    layer.weight.div_(self.config.temperature)
                    layer.bias.div_(self.config.temperature)

    def set_mode(self, model: nn.Module, stage: RunStage) -> None:
        """Running statistics are the only buffers of the network: what holds some is put into evaluation."""
        if stage.name == "hrl" and self.config.freeze_norm_statistics:
            for module in model.modules():
                if any(True for _ in module.buffers(recurse=False)):
                    module.eval()

    def loss(self, model: nn.Module, batch: Batch, stage: RunStage) -> dict[str, Tensor]:
        network = cast(GatedResNet, model)
        smoothing = stage.recipe.label_smoothing
        objective = hybrid_loss if stage.name == "hrl" else supervised_loss
        return objective(network, batch, self.config, smoothing)

    # ---- measuring --------------------------------------------------------------------------------
    def points(self, model: nn.Module) -> list[Point]:
        """``full`` without gates; else ``t0.5`` and the like: the training threshold first, then ascending."""
        if self.config.gate == "none":
            return [Point("full")]
        default = self.config.threshold
        others = sorted(set(self.config.thresholds) - {default})
        return [Point(f"t{threshold:g}", {"threshold": threshold}) for threshold in (default, *others)]

    def walk(self, model: nn.Module, images: Tensor, point: Point) -> Walk:
        """Signal ``gate_margin``: how close any gate of an image came to its threshold."""
        threshold = float(point.settings.get("threshold", self.config.threshold))
        routed = run_compacted(cast(GatedResNet, model), images, above(threshold))
        if len(routed.actions):
            note("gate_margin", lambda: (torch.sigmoid(routed.gate_logits) - threshold).abs().amin(0))
        yield routed.logits

    # ---- released weights -------------------------------------------------------------------------
    @classmethod
    def import_weights(cls, arch: str, state_dict: Mapping[str, Tensor]) -> tuple[SkipNet, GatedResNet]:
        spec = cls.find_arch(arch)
        method = cls(spec.config, spec.data)  # type: ignore[arg-type]
        network = build_network(method.config, method.data)
        network.load_state_dict(from_released(network, state_dict, what=arch), strict=False)
        return method, network

    def export_weights(self, model: nn.Module) -> dict[str, Tensor]:
        return to_released(cast(GatedResNet, model))
