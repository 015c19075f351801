"""Small networks whose gates differ between images, and batches to feed them."""

from __future__ import annotations

import torch

from bench.config.data import DataSpec
from bench.method import Batch
from methods.skipnet.method import SkipNet
from methods.skipnet.network import GatedResNet, final_gate_layers

DATA = DataSpec("cifar10", 10, 32)


def lively_network(method: SkipNet, dtype: torch.dtype = torch.float32, seed: int = 0) -> GatedResNet:
    """A network in training mode with random normalisation, whose gates are centred and spread alike: fresh
    ones mostly say the same for every image."""
    torch.manual_seed(seed)
    network = method.build(method.stages()[0]).to(dtype)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    images = random_batch(16, dtype, seed=99, side=method.data.image_size).images
    every_other = torch.arange(16) % 2 == 0
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
            norm.momentum = 1.0  # running statistics become those of this batch
        z = network.route(images, lambda k, z: every_other.roll(k)).gate_logits
        for norm in norms:
            norm.momentum = 0.1
        for k, layer in enumerate(final_gate_layers(network)):
            said = z if network.control is not None else z[k]
            factor = 2 / said.std()
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)
            layer.bias[-1] -= factor * said.median()
    return network.train()


def random_batch(size: int, dtype: torch.dtype = torch.float32, seed: int = 7, side: int = 32) -> Batch:
    """Images whose scale and offset vary, so that gates do too."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, side, side, generator=generator, dtype=torch.float64)
    steps = torch.linspace(-1, 1, size, dtype=torch.float64).reshape(-1, 1, 1, 1)
    images = (images * (1.6 + 1.4 * steps) + steps).to(dtype)
    labels = torch.randint(10, (size,), generator=generator)
    return Batch(images, labels, labels, images)
