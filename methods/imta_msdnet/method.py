"""MSDNet with gradient equilibrium, inline subnetwork collaboration and one-for-all distillation (IMTA)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.errors import ConfigError
from bench.method import (
    Arch,
    Batch,
    Capability,
    Exports,
    Method,
    Point,
    RunStage,
    Unit,
    Walk,
    load_strict,
    strip_prefix,
)
from bench.train.losses import cross_entropy
from methods.imta_msdnet.archs import ARCHS, imta_config, plain_config
from methods.imta_msdnet.config import IMTAMSDNetConfig
from methods.imta_msdnet.costs import with_published_costs
from methods.imta_msdnet.export import ExitNet, exit_constructor, export_exit
from methods.imta_msdnet.geometry import Cell, exit_cells, kept_after
from methods.imta_msdnet.isc import IMTANet
from methods.imta_msdnet.network import MSDNet, half, scale_sizes
from methods.imta_msdnet.weights import from_published, is_imta, to_published
from methods.techniques.ofa import one_for_all_loss

__all__ = ["IMTAMSDNet"]


class IMTAMSDNet(Method[IMTAMSDNetConfig], Exports):
    """One operating point an exit: the last one, which is the default, then the first to the last but one.

    ``Point.settings["exit"]`` is the exit's place in the network, from 0; a policy's ``decide(k, ...)`` and
    ``Executed.taken`` count exits the same way. Heads before an exit are run, and paid for, on the way to it.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"exits"})

    def __init__(self, config: IMTAMSDNetConfig, data: DataSpec) -> None:
        super().__init__(config, data)
        side = scale_sizes(config, data.image_size)[-1]
        if config.head_pool == "fixed" and half(half(side)) != 2:
            raise ConfigError(
                f"head_pool: fixed needs 5 to 8 pixels at the coarsest scale, but images of {data.image_size} "
                f"pixels ({data.name}) give {side}; set head_pool: global, or another stem or number of scales"
            )

    @classmethod
    def archs(cls) -> dict[str, Arch]:
        return {name: Arch(plain_config(network), data) for name, (network, data) in ARCHS.items()}

    def backbone(self) -> str:
        c = self.config
        if c.network is not None:
            return f"msdnet-{c.network}"
        return f"msdnet-{c.step_mode.replace('_', '')}-{c.exits}x{c.base}+{c.step}-{c.channels}c{c.growth}g"

    # ---- training ---------------------------------------------------------------------------------
    def build(self, stage: RunStage) -> MSDNet | IMTANet:
        net = MSDNet(self.config, self.data.num_classes, self.data.image_size, self.data.channels)
        if stage.name != "isc_ofa":
            return net
        return IMTANet(net, self.data.num_classes, stop_gradient=self.config.isc == "stop_gradient")

    def prepare(self, model: nn.Module, stage: RunStage, previous: nn.Module | None) -> None:
        """The second stage takes the whole first network; its collaborating classifiers start fresh."""
        if previous is not None:
            target = model.net if isinstance(model, IMTANet) else model
            target.load_state_dict(previous.state_dict())

    def set_mode(self, model: nn.Module, stage: RunStage) -> None:
        if isinstance(model, IMTANet) and self.config.frozen_norm == "eval":
            model.net.eval()

    def loss(self, model: nn.Module, batch: Batch, stage: RunStage) -> dict[str, Tensor]:
        config = self.config
        smoothing = stage.recipe.label_smoothing
        hard_loss = partial(cross_entropy, targets=batch.targets, label_smoothing=smoothing)
        if isinstance(model, IMTANet):
            logits, teacher = model(batch.images)
            distilled = config.ofa != "none"
            if config.teacher == "final_exit":
                teacher = logits[-1]
        else:
            logits = model(batch.images)
            teacher = logits[-1]
            distilled = config.ofa != "none" and config.isc == "none"
        parts: dict[str, Tensor] = {}
        if distilled:
            result = one_for_all_loss(
                logits, teacher, hard_loss, weight=config.ofa_weight, temperature=config.ofa_temperature,
                reduction="class_mean" if config.ofa == "class_mean" else "batch_mean",
            )  # fmt: skip
            loss, hard = result.loss, result.hard
            parts |= {f"kl_exit{k + 1}": kl.detach() for k, kl in enumerate(result.soft)}
        else:
            hard = [hard_loss(z) for z in logits]
            loss = torch.stack(hard).sum()
        parts |= {f"ce_exit{k + 1}": ce.detach() for k, ce in enumerate(hard)}
        return {"loss": loss, "logits": logits[-1].detach(), **parts}

    # ---- measuring --------------------------------------------------------------------------------
    def walk(self, model: nn.Module, images: Tensor) -> Walk:
        """Exit by exit. Lazily, a cell is computed when the first exit that depends on it is reached."""
        net, lazy = _ours(model), self.config.lazy
        cells, geometry = dict(net.trunk.cells()), net.trunk.geometry
        maps: dict[Cell, Tensor] = {}
        logits: Tensor | None = None
        for k, (added, kept) in enumerate(zip(exit_cells(geometry, lazy), kept_after(geometry, lazy))):
            for cell in added:
                maps[cell] = cells[cell](*([maps[read] for read in geometry.reads(cell)] or [images]))
            logits = net.classify(k, maps[geometry.coarsest(k)], logits)
            rows = yield logits
            maps, logits = {cell: maps[cell][rows] for cell in kept}, logits[rows]

    def units(self, model: nn.Module) -> Sequence[Unit]:
        """Every cell, also those that a lazy walk never reaches, then what each exit runs besides; published costs."""
        whole = IMTAMSDNet(self.config.model_copy(update={"lazy": False}), self.data)
        return with_published_costs(whole.walker(model).units(), _ours(model).trunk.geometry)

    # ---- published weights ------------------------------------------------------------------------
    @classmethod
    def import_weights(cls, arch: str, state_dict: Mapping[str, Tensor]) -> tuple[Method, nn.Module]:
        """MSDNet, GE and IMTA checkpoints; keys of collaborating exits make it the IMTA network."""
        spec = cls.find_arch(arch)
        state_dict = strip_prefix(state_dict)
        config = imta_config(ARCHS[arch][0]) if is_imta(state_dict) else spec.config
        method = cls(config, spec.data)  # type: ignore[arg-type]  # archs() holds this class's own options
        model = method.build_last()
        load_strict(model, from_published(_ours(model), state_dict), what=arch)
        return method, model

    def export_weights(self, model: nn.Module) -> dict[str, Tensor]:
        return to_published(_ours(model))

    def export_point(self, model: nn.Module, point: Point) -> ExitNet:
        """The part of the network that one exit needs, and its logits."""
        return export_exit(_ours(model), self.config, self.data, point.settings["exit"])

    def export_constructor(self, point: Point) -> str:
        collaborate = self.stages()[-1].name == "isc_ofa"
        return exit_constructor(self.config, self.data, point.settings["exit"], collaborate)


def _ours(model: nn.Module) -> MSDNet | IMTANet:
    if not isinstance(model, (MSDNet, IMTANet)):
        raise TypeError(f"expected a network that this method built, not {type(model).__name__}")
    return model
