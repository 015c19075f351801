"""Online normalisation under torch.compile: one graph, the same numbers, the streams moved as without it."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.norms.online import OnlineNorm1d, OnlineNorm2d


class Small(nn.Module):
    def __init__(self, ecm: str) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), OnlineNorm2d(4, ecm=ecm)
        self.fc, self.last = nn.Linear(4, 5), OnlineNorm1d(5, ecm=ecm)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(F.relu(self.norm(self.conv(x)), inplace=True).mean((2, 3))))


def compare(backend: str, ecm: str, steps: int = 3) -> None:
    torch.manual_seed(0)
    plain = Small(ecm)
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    for _ in range(steps):
        x, weights = torch.randn(6, 3, 6, 6), torch.randn(6, 5)
        for network, call in ((plain, plain), (twin, compiled)):
            network.zero_grad()
            (call(x) * weights).sum().backward()
        gradients = [{name: p.grad for name, p in network.named_parameters()} for network in (plain, twin)]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(twin.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-6)
    assert plain.norm.norm.u.abs().max() > 0
    plain.eval()
    twin.eval()
    torch.testing.assert_close(compiled(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_it_is_captured_whole(ecm: str) -> None:
    """By torch's own tracers, without generating code: forward, backward and both updates of the streams."""
    compare("aot_eager", ecm)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on the CPU")
@pytest.mark.parametrize("ecm", ["ls", "ac"])
def test_it_is_compiled(ecm: str) -> None:
    compare("inductor", ecm)
