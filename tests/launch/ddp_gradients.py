"""Gradients of one step in float64, by one process or by several (torchrun): ddp_gradients.py OUT.pt STEP.

Step 0 is a whole batch of 16, step 1 the last one of the epoch, of 7.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.config.schema import Data, Recipe
from bench.data import open_data
from bench.method import Batch, Stage
from bench.registry import method_class, method_config
from bench.train.loop import StageJob, _Training
from bench.train.world import join_world, leave_world

ResNet = method_class("resnet")


class Double(ResNet):  # type: ignore[valid-type,misc]
    """ResNet-8 in float64 whose batch norm uses its running statistics, so that images do not mix."""

    def build(self, stage: Stage) -> nn.Module:
        return super().build(stage).double()

    def set_mode(self, model: nn.Module, stage: Stage) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        return super().loss(model, batch._replace(images=batch.images.double()), stage)


def main(out: Path, step: int) -> None:
    torch.set_num_threads(1)
    world = join_world("cpu")
    recipe = Recipe(iterations=2, lr=1e-9, batch_size=16)
    bundle = open_data(Data(name="synthetic", train_subset=23))
    method = Double(method_config("resnet")(depth=8), bundle.spec(recipe))
    device = torch.device("cpu")
    loader = bundle.train_loader(recipe, seed=3, device=device, rank=world.rank, world=world.size)
    with tempfile.TemporaryDirectory() as folder:
        job = StageJob(method, Stage("train").resolve(recipe), loader, Path(folder), 0, device, lambda m: None,
                       world=world, quiet=True)  # fmt: skip
        training = _Training(job)
        training.module.train()
        training.step = step
        training._train_on(next(iter(loader.epoch(0, step))))
        gradients = {name: p.grad for name, p in training.model.named_parameters()}
    if world.is_main:
        torch.save(gradients, out)
    world.barrier()
    leave_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
