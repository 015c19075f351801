"""The two training objectives: supervised pre-training and hybrid reinforcement learning.

Gate statistics of every step go with the losses: gates that all close, or never close, are the way in which
SkipNet fails silently.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.method import Batch
from bench.train.losses import cross_entropy
from methods.skipnet.config import SkipNetConfig
from methods.skipnet.gates import sampled, soft, straight_through
from methods.skipnet.network import GatedResNet, Routed

#: The batch size that ``rl_weight`` is quoted at.
REFERENCE_BATCH = 128
#: Beside the probability in the policy gradient grad(pi) / (pi + eps), as in the released estimator.
EPS = 1e-6


def supervised_loss(
    network: GatedResNet, batch: Batch, config: SkipNetConfig, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Mean cross-entropy with straight-through or soft gates (the paper's supervised pre-training).

    Added where configured: the pull of the open rate to a target. Without gates, plain cross-entropy.
    """
    routed = network.route(batch.images, soft() if config.soft_gates else straight_through(config.threshold))
    ce = cross_entropy(routed.logits, batch.targets, label_smoothing=label_smoothing, reduction="mean")
    parts = {
        "loss": ce,
        "ce": ce.detach(),
        "logits": routed.logits.detach(),
        **gate_statistics(routed, config.threshold),
    }
    if config.target_rate is not None and len(routed.actions):
        rates = routed.actions.mean(1) if config.target_rate_of == "gate" else routed.actions.mean()
        pull = (rates - config.target_rate).square().sum()
        parts["loss"] = ce + config.target_rate_weight * pull
        parts["rate_penalty"] = pull.detach()
    return parts


def hybrid_loss(
    network: GatedResNet, batch: Batch, config: SkipNetConfig, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Mean cross-entropy plus the policy term of sampled gates: a scalar whose gradient is the update.

    With actions a, probabilities pi of the actions taken and w = rl_weight, it is the gradient of
    mean_b CE_b - w * sum_{b,t} G_{b,t} * log(pi_{b,t} + 1e-6), G detached. Sampled actions are constants of
    the step: cross-entropy reaches no gate. The policy term reaches gates and, through what they read, stem,
    projections and the blocks that ran; never the classifier. Its value means nothing (only its gradient
    does), so it is left out of the value of ``loss``, which is the mean cross-entropy.
    """
    routed = network.route(batch.images, sampled())
    ce = cross_entropy(routed.logits, batch.targets, label_smoothing=label_smoothing, reduction="none")
    gain = returns(routed.actions, ce, config)
    if config.baseline == "batch":
        gain = gain - others_mean(gain)
    policy = -(gain * action_log_probabilities(routed)).sum()
    if config.rl_reduction == "mean":
        policy = policy * (REFERENCE_BATCH / len(ce))
    mean_ce = ce.mean()
    return {
        "loss": mean_ce + config.rl_weight * (policy - policy.detach()),
        "ce": mean_ce.detach(),
        "policy": policy.detach(),
        "return": gain.mean().detach(),
        "logits": routed.logits.detach(),
        **gate_statistics(routed),
    }


def returns(actions: Tensor, ce: Tensor, config: SkipNetConfig) -> Tensor:
    """Discounted return of every gate, without gradient: actions bool [T, B], ce [B] -> [T, B].

    G_t = sum_{k>=t} gamma^(k-t) (1 - a_k) alpha / T  -  gamma^(T-t+1) beta CE for t = 1..T, where beta is 1
    (``ce_reward: full``) or alpha / T (``scaled``).
    """
    per_skip = config.alpha / len(actions)
    rewards = (~actions).to(ce.dtype) * per_skip
    gain = -(1.0 if config.ce_reward == "full" else per_skip) * ce.detach()
    gains = []
    for reward in reversed(rewards.unbind(0)):
        gain = reward + config.gamma * gain
        gains.append(gain)
    return torch.stack(gains[::-1])


def others_mean(gain: Tensor) -> Tensor:
    """Per gate, the mean over the *other* images of the batch: [T, B] -> [T, B]; zero for a batch of one.

    An image's own actions do not enter its baseline, so the gradient stays unbiased.
    """
    others = gain.shape[1] - 1
    return (gain.sum(1, keepdim=True) - gain) / others if others else torch.zeros_like(gain)


def action_log_probabilities(routed: Routed) -> Tensor:
    """log(pi(a) + 1e-6) of the actions taken: [T, B]. Its gradient is grad(pi) / (pi + 1e-6)."""
    towards = torch.where(routed.actions, routed.gate_logits, -routed.gate_logits)
    return torch.log(torch.sigmoid(towards) + EPS)


@torch.no_grad()
def gate_statistics(routed: Routed, threshold: float | None = None) -> dict[str, Tensor]:
    """What shows a collapse of the gates, as scalars of this batch; empty without gates.

    gate_open: fraction of blocks that run. gate_entropy: mean entropy of p in bits. gates_constant: fraction
    of gates that say the same for every image. gates_collapsed: 1 where all gates are open, or all closed,
    for every image. gateKK_open, gateKK_entropy: the same per gate. Soft gates count as open above threshold.
    """
    if not len(routed.actions):
        return {}
    z = routed.gate_logits
    ran = routed.actions if threshold is None else torch.sigmoid(z) > threshold
    rate = ran.to(z.dtype).mean(1)
    p = torch.sigmoid(z)
    entropy = (p * F.softplus(-z) + (1 - p) * F.softplus(z)).mean(1) / torch.log(z.new_tensor(2.0))
    constant = (rate == 0) | (rate == 1)
    parts = {
        "gate_open": rate.mean(),
        "gate_entropy": entropy.mean(),
        "gates_constant": constant.to(z.dtype).mean(),
        "gates_collapsed": ((rate == 0).all() | (rate == 1).all()).to(z.dtype),
    }
    for k, (opened, spread) in enumerate(zip(rate.unbind(), entropy.unbind())):
        parts[f"gate{k:02d}_open"] = opened
        parts[f"gate{k:02d}_entropy"] = spread
    return parts
