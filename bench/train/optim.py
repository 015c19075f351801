"""Optimiser and its parameter groups, by torchvision's reference rules for weight decay."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from bench.config.schema import Recipe
from bench.errors import ConfigError

#: Smoothing of rmsprop's squared gradients in torchvision's references.
_ALPHA = 0.9
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation; one of another class says so with ``is_normalisation = True``."""
    return isinstance(module, _NORMS) or bool(getattr(module, "is_normalisation", False))


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups of trainable parameters by weight decay.

    The first rule that fits decides: a pattern of ``weight_decay_overrides`` over the full name (in their
    order); the leaf name ``bias`` where ``bias_weight_decay`` is given; membership of a norm where
    ``norm_weight_decay`` is given; else ``weight_decay``. A pattern that fits nothing is a ConfigError.
    """
    groups: dict[str, tuple[float, list[nn.Parameter]]] = {}
    unused = set(recipe.weight_decay_overrides)
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name = f"{prefix}.{leaf}" if prefix else leaf
            key, decay = _rule(name, leaf, module, recipe)
            unused.discard(key)
            if parameter.requires_grad:
                groups.setdefault(key, (decay, []))[1].append(parameter)
    if unused:
        raise ConfigError(f"weight_decay_overrides: no parameter is called like {', '.join(sorted(unused))}")
    if not groups:
        raise ConfigError("the stage trains no parameter: its patterns match none")
    return [{"params": params, "weight_decay": decay} for decay, params in groups.values()]


def _rule(name: str, leaf: str, module: nn.Module, recipe: Recipe) -> tuple[str, float]:
    for pattern, decay in recipe.weight_decay_overrides.items():
        if fnmatchcase(name, pattern):
            return pattern, decay
    if leaf == "bias" and recipe.bias_weight_decay is not None:
        return "\0bias", recipe.bias_weight_decay
    if is_norm(module) and recipe.norm_weight_decay is not None:
        return "\0norm", recipe.norm_weight_decay
    return "\0other", recipe.weight_decay


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over the trainable parameters."""
    groups = parameter_groups(model, recipe)
    if recipe.opt == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    if recipe.opt == "rmsprop":
        return torch.optim.RMSprop(groups, lr=recipe.lr, momentum=recipe.momentum, alpha=_ALPHA, eps=recipe.eps)
    adam = torch.optim.AdamW if recipe.opt == "adamw" else torch.optim.Adam
    return adam(groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> None:
    """Let only parameters whose name fits a pattern be trained. A pattern that fits none is a ConfigError."""
    fits = dict.fromkeys(patterns, False)
    for name, parameter in model.named_parameters():
        found = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
        fits.update(dict.fromkeys(found, True))
        parameter.requires_grad_(bool(found))
    missing = [pattern for pattern, used in fits.items() if not used]
    if missing:
        raise ConfigError(f"the stage trains {', '.join(missing)}, but no parameter is called like that")
