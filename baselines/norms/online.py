"""Online normalisation (Chiley et al., NeurIPS 2019, arXiv 1905.05894), one sample at a time, for a batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.norms.online_function import OnlineNormFunction
from baselines.norms.online_math import Settings
from baselines.norms.online_passes import wide_dtype


class StreamState(nn.Module):
    """What a layer carries from sample to sample, each [C]; float32 or wider whatever the model is cast to.

    m, var: running mean and variance of the input. u, v: the two integrators of the backward pass.
    """

    m: Tensor
    var: Tensor
    u: Tensor
    v: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("m", "var", "u", "v"):
            self.register_buffer(name, torch.zeros(channels))
        self.reset()

    def reset(self) -> None:
        """A fresh stream: mean 0, variance 1, no error to compensate."""
        with torch.no_grad():
            for buffer in (self.m, self.u, self.v):
                buffer.zero_()
            self.var.fill_(1.0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StreamState:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype in (torch.float16, torch.bfloat16):
                # a memory of a thousand samples moves by steps that half precision rounds away
                self._buffers[name] = old.to(device=new.device, dtype=wide_dtype(old.dtype))
        return self


class OnlineNormBase(nn.Module):
    """What the classes share; they differ in the shapes that they take."""

    #: Weight decay of normalisation parameters applies (``norm_weight_decay`` of a recipe).
    is_normalisation = True

    def __init__(
        self,
        num_features: int,
        afwd: float = 0.999,
        abkw: float = 0.99,
        eps: float = 1e-5,
        ecm: Literal["ls", "ac", "none"] = "ls",
        affine: bool = True,
        clamp_val: float = 5.0,
        ls_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        for name, value in (("afwd", afwd), ("abkw", abkw)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {value}")
        if ecm not in ("ls", "ac", "none"):
            raise ValueError(f"ecm must be ls, ac or none, not {ecm!r}")
        self.num_features = num_features
        self.settings = Settings(afwd, abkw, eps, ecm, clamp_val, ls_eps)
        self.norm = StreamState(num_features)
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None

    def reset_parameters(self) -> None:
        """Scale 1, shift 0 and a fresh stream."""
        self.norm.reset()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if not self.training or x.numel() == 0:
            return self._frozen(x)
        state = self.norm
        return OnlineNormFunction.apply(
            x, self.weight, self.bias, state.m, state.var, state.u, state.v, *self.settings
        )

    def _frozen(self, x: Tensor) -> Tensor:
        """Evaluation: the statistics stand still, the error compensation stays in force."""
        _, _, eps, ecm, clamp_val, ls_eps = self.settings
        dtype = wide_dtype(x.dtype)
        m, var = self.norm.m.to(dtype), self.norm.var.to(dtype)
        weight, bias = (None if t is None else t.to(dtype) for t in (self.weight, self.bias))
        z = F.batch_norm(x, m, var, weight, bias, training=False, eps=eps)
        if ecm == "ac":
            return F.hardtanh(z, -clamp_val, clamp_val)
        if ecm == "ls":
            square = z.to(dtype).square().mean(tuple(range(1, z.dim())), keepdim=True)
            return (z * (square + ls_eps).rsqrt()).to(z.dtype)
        return z

    def _check(self, x: Tensor) -> None:
        raise NotImplementedError

    def extra_repr(self) -> str:
        afwd, abkw, eps, ecm, clamp_val, ls_eps = self.settings
        extra = {"ls": f", ls_eps={ls_eps}", "ac": f", clamp_val={clamp_val}"}.get(ecm, "")
        affine = self.weight is not None
        return f"{self.num_features}, afwd={afwd}, abkw={abkw}, eps={eps}, ecm={ecm}{extra}, affine={affine}"


class OnlineNorm2d(OnlineNormBase):
    """Online normalisation of [N, C, H, W]."""

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.num_features:
            raise ValueError(f"expected an input of shape [N, {self.num_features}, H, W], not {list(x.shape)}")


class OnlineNorm1d(OnlineNormBase):
    """Online normalisation of [N, C]."""

    def _check(self, x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != self.num_features:
            raise ValueError(f"expected an input of shape [N, {self.num_features}], not {list(x.shape)}")
