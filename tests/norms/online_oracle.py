"""Online normalisation as the paper writes it: one sample after the other, float64, no shortcut."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Oracle:
    """A layer with its four streams. ``step`` is one training step: forward, and backward for a gradient."""

    channels: int
    afwd: float
    abkw: float
    ecm: str = "none"
    gamma: Tensor | None = None
    beta: Tensor | None = None
    eps: float = 1e-5
    ls_eps: float = 1e-5
    clamp_val: float = 5.0
    m: Tensor = field(init=False)
    var: Tensor = field(init=False)
    u: Tensor = field(init=False)
    v: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.m, self.u, self.v = (torch.zeros(self.channels, dtype=torch.float64) for _ in range(3))
        self.var = torch.ones(self.channels, dtype=torch.float64)

    def step(self, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """x, gradient: float64 [N, C, ...]. Returns output, gradients and the streams after the batch."""
        shape, k = x.shape, 1 - self.abkw
        x, gradient = x.reshape(*shape[:2], -1), gradient.reshape(*shape[:2], -1)
        ys, scales = [], []
        for sample in x:
            s = (self.var + self.eps).sqrt()
            ys.append((sample - self.m[:, None]) / s[:, None])
            scales.append(s)
            mean = sample.mean(1)
            variance = (sample - mean[:, None]).square().mean(1)
            step = mean - self.m
            self.var = self.afwd * self.var + (1 - self.afwd) * variance + self.afwd * (1 - self.afwd) * step**2
            self.m = self.m + (1 - self.afwd) * step
        y = torch.stack(ys).requires_grad_()
        gamma = torch.ones(self.channels, dtype=torch.float64) if self.gamma is None else self.gamma
        beta = torch.zeros(self.channels, dtype=torch.float64) if self.beta is None else self.beta
        gamma, beta = gamma.clone().requires_grad_(), beta.clone().requires_grad_()
        z = self._compensate(y * gamma[:, None] + beta[:, None])
        gy, d_gamma, d_beta = torch.autograd.grad(z, (y, gamma, beta), gradient)
        dxs = []
        for g, sample, s in zip(gy, y.detach(), scales):
            h = g - k * self.v[:, None] * sample
            self.v = self.v + (h * sample).mean(1)
            dx = h / s[:, None] - k * self.u[:, None]
            self.u = self.u + dx.mean(1)
            dxs.append(dx)
        found = {"z": z.detach().reshape(shape), "dx": torch.stack(dxs).reshape(shape)}
        if self.gamma is not None:
            found |= {"d_gamma": d_gamma, "d_beta": d_beta}
        return found | {"m": self.m, "var": self.var, "u": self.u, "v": self.v}

    def _compensate(self, z: Tensor) -> Tensor:
        if self.ecm == "ls":
            return z / (z.square().mean((1, 2), keepdim=True) + self.ls_eps).sqrt()
        return z.clamp(-self.clamp_val, self.clamp_val) if self.ecm == "ac" else z


def step_of(layer: nn.Module, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """The same step of our layer."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    z = layer(x)
    z.backward(gradient)
    found = {"z": z.detach(), "dx": x.grad}
    if layer.weight is not None:
        found |= {"d_gamma": layer.weight.grad, "d_beta": layer.bias.grad}
    return found | {name: getattr(layer.norm, name).clone() for name in ("m", "var", "u", "v")}


def relative_errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference of each quantity, relative to its largest value."""
    assert found.keys() == expected.keys()
    return {
        name: float((found[name].double() - value).abs().max() / value.abs().max().clamp_min(1e-300))
        for name, value in expected.items()
    }
