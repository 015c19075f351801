"""The gates of SkipNet (section 3.2 of the paper) and the ways of turning what they say into actions.

A gate reads the output of block k and says, per image, how strongly it wants block k + 1 to run: a logit
z, with p = sigmoid(z) the probability of running it. For feed-forward gates z is the difference of the two
outputs under the released softmax, which makes the same p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.norms.factory import NormLayer

#: Gate index k (0-based: it decides block k + 1) and logits [B] -> actions [B]. Actions are bool where the
#: decision is a constant of the step, floating where a gradient passes through them.
Choose = Callable[[int, Tensor], Tensor]


class FeedForwardGate(nn.Module):
    """FFGate-I (two 3x3 convolutions after a max pooling) or FFGate-II (one strided 3x3 convolution).

    [B, C, H, W] -> logits [B], for any H and W.
    """

    def __init__(self, channels: int, kind: int, norm_layer: NormLayer) -> None:
        super().__init__()
        if kind not in (1, 2):
            raise ValueError(f"feed-forward gates are of kind 1 or 2, not {kind}")
        self.features = nn.Sequential()
        if kind == 1:
            # A map of odd side keeps its border; released networks only ever see even ones.
            self.features.add_module("pool", nn.MaxPool2d(2, ceil_mode=True))
        strides = (1, 2) if kind == 1 else (2,)
        for number, stride in enumerate(strides, start=1):
            conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
            self.features.add_module(f"conv{number}", conv)
            self.features.add_module(f"bn{number}", norm_layer(channels))
            self.features.add_module(f"relu{number}", nn.ReLU(inplace=True))
        self.linear = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        skip, run = self.linear(self.features(x).mean((2, 3))).unbind(1)
        return run - skip


class Embedding(nn.Module):
    """What a recurrent gate sees of one block: [B, C, H, W] -> pooled and projected, [B, size]."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class Control(nn.Module):
    """The recurrent gate that all blocks share: one LSTM step and a projection to a logit.

    embedding, hidden, cell: [B, size] each -> logits [B], hidden, cell. The state of the first step is zero;
    it is handed round, never kept on the module.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(size, size)
        self.proj = nn.Linear(size, 1)

    def forward(self, embedding: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, cell = self.cell(embedding, (hidden, cell))
        return self.proj(hidden).squeeze(1), hidden, cell


class Stepper:
    """All recurrent gates of one batch without autograd: the same products in fewer and larger operations.

    gate number k, output of block k [B, C, H, W] -> logits [B]. What reads the hidden state, the recurrent weights
    and the projection, is one product, whose first part waits for the next gate. Gates of the cell are in the order
    input, forget, output, candidate, so that one call squashes three of them. Results are written in place.
    """

    def __init__(self, embeddings: Sequence[Embedding], control: Control, batch: int) -> None:
        cell, size = control.cell, control.cell.hidden_size
        self._linear = [(gate.linear.weight, gate.linear.bias) for gate in embeddings]
        order = torch.arange(4 * size).reshape(4, size)[[0, 1, 3, 2]].flatten().to(cell.weight_ih.device)
        self._seen = cell.weight_ih[order].t()
        self._hidden = torch.cat([cell.weight_hh[order], control.proj.weight]).t()
        self._bias = torch.cat([(cell.bias_ih + cell.bias_hh)[order], control.proj.bias])
        read = self._bias.new_empty(len(embeddings), batch, 4 * size + 1)
        self._read, self._logits = read.unbind(0), read[:, :, -1].unbind(0)
        self._recurrent = [self._bias[:-1].expand(batch, -1), *read[:, :, :-1].unbind(0)]
        self._gates = self._bias.new_empty(batch, 4 * size)
        self._squashed, self._candidate = self._gates.split([3 * size, size], 1)
        self._input, self._forget, self._output = self._squashed.split(size, 1)
        self._cell = self._bias.new_zeros(batch, size)
        self._state = self._bias.new_empty(batch, size)
        self._last: Tensor | None = None

    def __call__(self, k: int, x: Tensor) -> Tensor:
        if x is not self._last or len(x) > 1:  # the map of one image whose block is left out stays as it is
            self._last, self._pooled = x, x.mean((2, 3))
        torch.addmm(self._recurrent[k], F.linear(self._pooled, *self._linear[k]), self._seen, out=self._gates)
        self._squashed.sigmoid_()
        self._candidate.tanh_()
        self._cell.mul_(self._forget).addcmul_(self._input, self._candidate)
        torch.tanh(self._cell, out=self._state).mul_(self._output)
        torch.addmm(self._bias, self._state, self._hidden, out=self._read[k])
        return self._logits[k]


def above(threshold: float) -> Choose:
    """Run the block where p is strictly greater than ``threshold``."""
    return lambda k, logits: torch.sigmoid(logits) > threshold


def straight_through(threshold: float) -> Choose:
    """Forward as ``above``; backward as if the action were p (section 3.4 of the paper, without noise)."""

    def choose(k: int, logits: Tensor) -> Tensor:
        p = torch.sigmoid(logits)
        # p - p.detach() is exactly 0, so that the action is exactly 0 or 1.
        return (p > threshold).to(p.dtype) + (p - p.detach())

    return choose


def soft() -> Choose:
    """The action is p itself: block and shortcut are blended."""
    return lambda k, logits: torch.sigmoid(logits)


def sampled() -> Choose:
    """Run the block with probability p, drawn per image and gate from torch's global generator."""
    return lambda k, logits: torch.bernoulli(torch.sigmoid(logits.detach())).bool()
