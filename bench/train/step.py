"""The one module that training wraps: DDP, torch.compile and CUDA graphs see a single forward."""

from __future__ import annotations

from torch import Tensor, nn

from bench.method import Batch, Method, RunStage


class TrainStep(nn.Module):
    """Method, network and stage as one module whose forward is the method's loss.

    However many passes a method makes, they are one forward and one backward to whatever wraps this, so
    buffers are not touched between the passes.
    """

    def __init__(self, method: Method, model: nn.Module, stage: RunStage) -> None:
        super().__init__()
        self.model = model
        self._method = method
        self._stage = stage

    def train(self, mode: bool = True) -> TrainStep:
        super().train(mode)
        if mode:
            self._method.set_mode(self.model, self._stage)
        return self

    def forward(self, images: Tensor, targets: Tensor, labels: Tensor, clean_images: Tensor) -> dict[str, Tensor]:
        return self._method.loss(self.model, Batch(images, targets, labels, clean_images), self._stage)
