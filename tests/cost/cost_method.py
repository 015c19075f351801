"""A small method of two stages for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.config.schema import MethodConfig
from bench.method import Batch, Decisions, Executed, Method, Plan, Stage, Unit
from bench.train.losses import cross_entropy


class SmallConfig(MethodConfig):
    """No options."""


class SmallNet(nn.Module):
    """Two linear layers over flattened images, a gate, and two layers that share their weight."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 40)
        self.gate = nn.Linear(40, 20)
        self.again = nn.Linear(40, 40)
        self.head = nn.Linear(40, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x.flatten(1))))


class SmallMethod(Method):
    """``units`` are set by each test; ``reads_values`` makes the step look into its tensors."""

    Config = SmallConfig

    def __init__(self, units: Sequence[Unit] | None = None, *, reads_values: bool = False) -> None:
        super().__init__(SmallConfig(), DataSpec("small", num_classes=10, image_size=4, channels=1))
        self._units = units
        self.reads_values = reads_values

    def stages(self) -> Sequence[Stage]:
        return [Stage("one"), Stage("two", start_from="one", trains=("head.*",))]

    def build(self, stage: Stage) -> nn.Module:
        return SmallNet(16, self.data.num_classes)

    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        if self.reads_values and batch.images.sum().item() == 0:
            raise ValueError("no image has no light at all")
        return {"loss": cross_entropy(model(batch.images), batch.targets)}

    def units(self, model: nn.Module) -> Sequence[Unit]:
        assert isinstance(model, SmallNet)
        if self._units is not None:
            return self._units
        hidden = torch.zeros(1, 40)
        return [
            Unit("first", nn.Sequential(nn.Flatten(1), model.first), (torch.zeros(1, 1, 4, 4),)),
            Unit("gate", nn.Sequential(nn.ReLU(), model.gate), (hidden,), {"blocks": 0.0}),
            Unit("once", model.again, (hidden,), {"blocks": 1.0, "percent": 12.5}),
            Unit("twice", nn.Sequential(model.again, nn.ReLU(), model.again), (hidden,), {"blocks": 1.0}),
        ]

    def record(self, model: nn.Module, images: Tensor) -> Decisions:
        raise NotImplementedError

    def execute(self, model: nn.Module, images: Tensor, plan: Plan) -> Executed:
        raise NotImplementedError
