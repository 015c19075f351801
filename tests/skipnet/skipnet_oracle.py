"""A second implementation of the released CIFAR networks, by hand, for gradients: functions over released names.

Written from the paper and the released behaviour, sharing nothing with the package: masks multiply, the
LSTM is spelled out, and the policy gradient is injected at the sampled entries of [1 - p, p] as the
stochastic nodes of early PyTorch did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


@dataclass
class Replayed:
    logits: Tensor
    probabilities: list[Tensor]  # per gate [B, 2]: skip, run


def forward(
    w: Weights, blocks: int, gate: str, images: Tensor, decide: Callable[[int, Tensor], Tensor], train: bool = True
) -> Replayed:
    """blocks: per group. gate: rnn, ff1 or ff2. decide(k, [B, 2]) -> mask [B] that multiplies."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = (None, None) if train else (w[f"{name}.running_mean"], w[f"{name}.running_var"])
        return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"], training=train)

    def project(x: Tensor, prefix: str) -> Tensor:
        return norm(F.conv2d(x, w[f"{prefix}.0.weight"], stride=2), f"{prefix}.1")

    def block(x: Tensor, name: str, stride: int) -> Tensor:
        out = F.relu(norm(F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
        out = norm(F.conv2d(out, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        return F.relu(out + (project(x, f"{name}.downsample") if stride == 2 else x))

    def read(x: Tensor, name: str) -> Tensor:
        nonlocal hidden, cell
        if gate == "rnn":
            pooled = F.avg_pool2d(x, x.shape[-1])
            seen = F.conv2d(pooled, w[f"{name}.1.weight"], w[f"{name}.1.bias"]).flatten(1)
            summed = (
                seen @ w["control.rnn.weight_ih_l0"].T + w["control.rnn.bias_ih_l0"]
                + hidden @ w["control.rnn.weight_hh_l0"].T + w["control.rnn.bias_hh_l0"]
            )  # fmt: skip
            i, f, g, o = summed.chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            p = torch.sigmoid(hidden @ w["control.proj.weight"].T + w["control.proj.bias"])
            return torch.cat([1 - p, p], 1)
        if gate == "ff1":
            x = F.max_pool2d(x, 2)
            x = F.relu(norm(F.conv2d(x, w[f"{name}.conv1.weight"], padding=1), f"{name}.bn1"))
        last = "2" if gate == "ff1" else "1"
        x = F.relu(norm(F.conv2d(x, w[f"{name}.conv{last}.weight"], stride=2, padding=1), f"{name}.bn{last}"))
        x = F.avg_pool2d(x, x.shape[-1])
        x = F.conv2d(x, w[f"{name}.linear_layer.weight"], w[f"{name}.linear_layer.bias"])
        return torch.softmax(x.flatten(1), 1)

    hidden = images.new_zeros(len(images), 10)
    cell = hidden
    x = F.relu(norm(F.conv2d(images, w["conv1.weight"], padding=1), "bn1"))
    x = block(x, "group1_layer0", 1)
    probabilities = []
    places = [(group, index) for group in (1, 2, 3) for index in range(blocks)]
    for k, (group, index) in enumerate(places[1:]):
        before_group, before_index = places[k]
        both = read(x, f"group{before_group}_gate{before_index}")
        probabilities.append(both)
        mask = decide(k, both)[:, None, None, None]
        stride = 2 if index == 0 else 1
        shortcut = project(x, f"group{group}_ds{index}") if stride == 2 else x
        x = mask * block(x, f"group{group}_layer{index}", stride) + (1 - mask) * shortcut
    return Replayed(F.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1), w["fc.weight"], w["fc.bias"]), probabilities)


def supervised_gradients(w: Weights, blocks: int, gate: str, images: Tensor, labels: Tensor) -> Weights:
    """Gradient of the mean cross-entropy under straight-through gates, by released name."""

    def hard(k: int, both: Tensor) -> Tensor:
        p = both[:, 1]
        return (p > 0.5).to(p.dtype) - p.detach() + p

    replayed = forward(w, blocks, gate, images, hard)
    return _gradients(w, [F.cross_entropy(replayed.logits, labels)], [None])


def hybrid_gradients(
    w: Weights, blocks: int, gate: str, images: Tensor, labels: Tensor, actions: Tensor,
    *, alpha: float, weight: float, gamma: float = 1.0, ce_scale: float = 1.0, eps: float = 1e-6,
) -> tuple[Weights, Replayed]:  # fmt: skip
    """Gradient of mean cross-entropy with reward injected at the sampled nodes. actions: bool [T, B]."""
    replayed = forward(w, blocks, gate, images, lambda k, both: actions[k].to(both.dtype))
    ce = F.cross_entropy(replayed.logits, labels, reduction="none")
    total, batch = actions.shape
    injected = []
    for t in range(total):
        at_node = torch.zeros_like(replayed.probabilities[t])
        for b in range(batch):
            gain = sum(gamma ** (k - t) * (alpha / total) * float(not actions[k, b]) for k in range(t, total))
            gain -= gamma ** (total - t) * ce_scale * float(ce[b].detach())
            taken = int(actions[t, b])
            at_node[b, taken] = -weight * gain / (float(replayed.probabilities[t][b, taken].detach()) + eps)
        injected.append(at_node)
    return _gradients(w, [ce.mean(), *replayed.probabilities], [None, *injected]), replayed


def _gradients(w: Weights, outputs: list[Tensor], injected: list[Tensor | None]) -> Weights:
    leaves = {name: value for name, value in w.items() if value.requires_grad}
    found = torch.autograd.grad(outputs, list(leaves.values()), injected, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found)
    }
