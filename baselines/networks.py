"""Networks by family and name: ``torchvision/resnet50``, ``timm/resnet50d``, ``cifar/resnet56-b``.

No network has code of its own here: a builder is told the classes and, where its class takes one, the image size.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn
from torchvision.models import get_model_builder, list_models

from baselines.resnet import CifarResNet
from bench.config.data import DataSpec
from bench.errors import ConfigError
from bench.registry import did_you_mean

__all__ = ["FAMILIES", "make_network", "network_names"]

#: Arguments of a torchvision class that a builder is given where the class takes them. Auxiliary classifiers only
#: help training; they are no part of the network that answers.
_GIVEN: dict[str, Callable[[DataSpec], Any]] = {
    "image_size": lambda data: data.image_size,
    "input_size": lambda data: (data.image_size, data.image_size),
    "aux_logits": lambda data: False,
    "init_weights": lambda data: True,
}


def network_names(family: str) -> list[str]:
    """All names of a family, sorted. Raises ConfigError where its package is not installed."""
    if family == "torchvision":
        return sorted(list_models(module=torchvision.models))
    if family == "timm":
        return sorted(_timm().list_models())
    return [f"resnet{6 * n + 2}{b}" for n in (1, 2, 3, 5, 7, 9, 18) for b in ("", "-b")]


def make_network(name: str, data: DataSpec) -> nn.Module:
    """A network by its full name, freshly initialised from torch's global generator, with a head for the data.

    Raises ConfigError for an unknown name, and where the network cannot be built for the data's images.
    """
    family, _, model = name.partition("/")
    if family not in FAMILIES or not model:
        raise ConfigError(f"'{name}' names no network; write FAMILY/NAME with one of {', '.join(FAMILIES)}")
    return FAMILIES[family](model, data)


def _torchvision(model: str, data: DataSpec) -> nn.Module:
    known = network_names("torchvision")
    if model not in known:
        raise ConfigError(f"torchvision has no classifier '{model}'{did_you_mean(model, known)}")
    if data.channels != 3:
        raise ConfigError(f"torchvision/{model} takes images of 3 channels, {data.name} has {data.channels}")
    builder = get_model_builder(model)
    takes = inspect.signature(typing.get_type_hints(builder)["return"]).parameters
    given = {key: value(data) for key, value in _GIVEN.items() if key in takes}
    return _built(f"torchvision/{model}", data, lambda: builder(weights=None, num_classes=data.num_classes, **given))


def _timm_network(model: str, data: DataSpec) -> nn.Module:
    timm, name = _timm(), f"timm/{model}"
    if not timm.is_model(model):
        raise ConfigError(f"timm has no network '{model}'{did_you_mean(model, timm.list_models())}")
    given = {"num_classes": data.num_classes, "in_chans": data.channels}
    try:
        return timm.create_model(model, pretrained=False, img_size=data.image_size, **given)
    except TypeError:  # a network for any size takes no size
        return _built(name, data, lambda: timm.create_model(model, pretrained=False, **given))
    except (ValueError, AssertionError) as error:
        raise _refused(name, data, error) from None


def _cifar(model: str, data: DataSpec) -> nn.Module:
    match = re.fullmatch(r"resnet(\d+)(-b)?", model)
    depth = int(match[1]) if match else 0
    if match is None or depth < 8 or (depth - 2) % 6:
        raise ConfigError(f"cifar/{model}: write cifar/resnetD or cifar/resnetD-b (projection shortcuts), where D is "
                          "6n+2 (8, 14, 20, 32, 44, 56, 110, ...)")  # fmt: skip
    return CifarResNet(depth, data.num_classes, "B" if match[2] else "A", channels=data.channels)


def _built(name: str, data: DataSpec, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except (ValueError, AssertionError) as error:
        raise _refused(name, data, error) from None


def _refused(name: str, data: DataSpec, error: Exception) -> ConfigError:
    return ConfigError(f"{name} cannot be built for images of {data.image_size} pixels: {' '.join(str(error).split())}")


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise ConfigError("timm is not installed; pip install 'depthbench[timm]'") from None


#: Family -> what builds one of its networks.
FAMILIES: dict[str, Callable[[str, DataSpec], nn.Module]] = {
    "torchvision": _torchvision, "timm": _timm_network, "cifar": _cifar,
}  # fmt: skip
