"""Networks that the tests of this folder share; built once per module, since some are large."""

from __future__ import annotations

import pytest
import torch
from adn_oracle import randomise

from bench.config.data import DataSpec
from methods.adn.config import ADNConfig
from methods.adn.method import ADN
from methods.adn.network import AdaptiveNetwork

#: Side of the test images: as small as the backbone takes without losing a stage.
SIDE = 64
Built = tuple[ADN, AdaptiveNetwork]


@pytest.fixture(scope="module")
def adaptive(request: pytest.FixtureRequest) -> Built:
    """Method and randomised network, in evaluation mode, of the arch that is its parameter; leave it as it is."""
    method = ADN(ADNConfig(arch=request.param), DataSpec("imagenet", 1000, SIDE))
    torch.manual_seed(0)
    network = method.build(method.stages()[-1])
    randomise(network)
    return method, network.eval()
