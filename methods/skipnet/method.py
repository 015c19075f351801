"""SkipNet as a method of the harness (Wang et al., ECCV 2018, arXiv 1711.09485)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from bench.errors import ConfigError
from bench.method import Arch, Batch, Capability, Decisions, Executed, Method, Plan, Point, RunStage, Unit
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

    def units(self, model: nn.Module) -> list[Unit]:
        """stem, block0.., projectionK (into block K), gate0.., control, head."""
        network = cast(GatedResNet, model)
        like = next(network.parameters())

        def zeros(*shape: int) -> Tensor:
            return torch.zeros((1, *shape), dtype=like.dtype, device=like.device)

        side = self.data.image_size
        units = [Unit("stem", network.stem, (zeros(self.data.channels, side, side),))]
        if self.config.arch is not None:
            side = _halved(_halved(side))  # 7x7 convolution and pooling, both of stride 2
        projections, gates = [], []
        count = len(network.blocks)
        costs = {"computation_percentage": 100 / count, "executed_blocks": 1.0}
        for index, (block, place) in enumerate(zip(network.blocks, network.places)):
            inside = zeros(place.in_channels, side, side)
            if place.stride == 2:
                side = _halved(side)
            outside = zeros(place.out_channels, side, side)
            units.append(Unit(f"block{index}", block, (inside, outside), costs))
            if str(index) in network.projections:
                projections.append(Unit(f"projection{index}", network.projections[str(index)], (inside,)))
            if index < len(network.gates):
                gates.append(Unit(f"gate{index}", network.gates[index], (outside,)))
        if network.control is not None:
            vector = zeros(self.config.rnn_size)
            gates.append(Unit("control", network.control, (vector, vector, vector)))
        return [*units, *projections, *gates, Unit("head", network.head, (outside,))]

    @torch.no_grad()
    def record(self, model: nn.Module, images: Tensor) -> Decisions:
        """Signal ``gate_margin``: how close any gate of an image came to its threshold."""
        network = cast(GatedResNet, model)
        logits, counts, margins = [], [], []
        for point in self.points(model):
            threshold = _threshold(point, self.config)
            routed = network.route(images, above(threshold))
            logits.append(routed.logits)
            counts.append(self._counts(network, routed.actions.bool()))
            if len(routed.gate_logits):
                margins.append((torch.sigmoid(routed.gate_logits) - threshold).abs().amin(0))
        signals = {"gate_margin": torch.stack(margins)} if margins else {}
        return Decisions(torch.stack(logits), torch.stack(counts), signals)

    @torch.no_grad()
    def execute(self, model: nn.Module, images: Tensor, plan: Plan) -> Executed:
        if not isinstance(plan, Point):
            raise ConfigError("SkipNet has no exits to stop at: give execute one of its operating points")
        network = cast(GatedResNet, model)
        logits, ran = run_compacted(network, images, above(_threshold(plan, self.config)))
        taken = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return Executed(logits, self._counts(network, ran), taken)

    def _counts(self, network: GatedResNet, ran: Tensor) -> Tensor:
        """Which gated blocks ran, bool [T, B] -> how often each unit ran, [B, U], ordered as ``units``."""
        gates, blocks = len(network.gates), len(network.blocks)
        batch = ran.shape[1]

        def times(count: int, units: int) -> Tensor:
            return ran.new_full((units, batch), count, dtype=torch.int64)

        gated = ran.long() if gates else times(1, blocks - 1)
        rows = [times(1, 2), gated, times(1, len(network.projections) + gates)]  # stem and block 0 first
        if network.control is not None:
            rows.append(times(gates, 1))
        return torch.cat([*rows, times(1, 1)]).T.contiguous()

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


def _threshold(point: Point, config: SkipNetConfig) -> float:
    return float(point.settings.get("threshold", config.threshold))


def _halved(side: int) -> int:
    """Side of a map after a convolution or pooling of stride 2 with 'same' padding."""
    return (side + 1) // 2


