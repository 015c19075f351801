"""Published architectures by name: which options build them, and for which data their heads are."""

from __future__ import annotations

from bench.config.data import DataSpec
from methods.imta_msdnet.config import IMTAMSDNetConfig

IMAGENET = DataSpec("imagenet", 1000, 224)
CIFAR10 = DataSpec("cifar10", 10, 32, mean=(0.4914, 0.4824, 0.4467), std=(0.2471, 0.2435, 0.2616))
CIFAR100 = DataSpec("cifar100", 100, 32, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))

#: Architecture name -> name of the network option, data.
ARCHS: dict[str, tuple[str, DataSpec]] = {
    **{f"IN-{n}": (f"imagenet{n}", IMAGENET) for n in (4, 5, 6, 7)},
    **{
        f"{prefix}-{network}": (network, data)
        for prefix, data in (("C10", CIFAR10), ("C100", CIFAR100))
        for network in ("any7", "any10", "any11", "lg4", "lg5", "lg6", "lg7", "lg8")
    },
}


def plain_config(network: str) -> IMTAMSDNetConfig:
    """The network alone. Gradient equilibrium leaves no trace in weights, so its checkpoints fit too."""
    return IMTAMSDNetConfig.model_validate({"network": network, "ge": "none", "isc": "none", "ofa": "none"})


def imta_config(network: str) -> IMTAMSDNetConfig:
    """The network with collaborating exits, all techniques on as released."""
    return IMTAMSDNetConfig.model_validate({"network": network})
