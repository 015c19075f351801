"""Exits on networks that nobody here wrote: record = execute, and what is paid is what was computed."""

from __future__ import annotations

import warnings

import pytest
import torch

from baselines.networks import network_names
from bench.config.data import DataSpec
from bench.cost.count import count_products
from bench.errors import ConfigError
from bench.testing import stir
from bench.testing.subject import close
from methods.exits.config import ExitsConfig
from methods.exits.method import Exits
from methods.exits.network import ExitNet

#: The smallest that a network takes is tried; ImageNet's size last.
SIDES = (32, 64, 96, 224)
#: Why a network is not tried here.
LEFT_OUT = {
    "torchvision/vit_h_14": "633 M parameters", "torchvision/regnet_y_128gf": "645 M parameters",
    "torchvision/vit_l_16": "304 M parameters", "torchvision/vit_l_32": "307 M parameters",
}  # fmt: skip
#: Networks with a product that runs once a batch, whatever its size: paid for every image, they cost up to 2 % more
#: than they compute.
ONCE_A_BATCH = {f"torchvision/swin_v2_{size}" for size in "tsb"}
#: Words of the names of small networks; a family is tried with its first two.
_SMALL = ("atto", "femto", "pico", "nano", "xxs", "xx_small", "tiny", "mini", "micro", "small", "xs", "_s", "18", "050")


def torchvision_names() -> list[str]:
    names = [f"torchvision/{name}" for name in network_names("torchvision")]
    return [name for name in names if name not in LEFT_OUT]


def timm_names() -> list[str]:
    """Two small networks of each of timm's families, or its only one; none if timm is not installed."""
    try:
        import timm
    except ImportError:
        return []
    found = []
    for family in timm.list_modules():
        names = sorted(timm.list_models(module=family), key=lambda name: (len(name), name))
        small = list(dict.fromkeys(name for word in _SMALL for name in names if word in name))
        found += [f"timm/{name}" for name in small[:2] or names[:1]]
    return found


def made(name: str) -> tuple[Exits, ExitNet, int] | None:
    """With the smallest images that it takes, and their size; None if it is refused with one line, whatever the
    size."""
    for side in SIDES:
        plug = Exits(ExitsConfig(backbone=name, exits=3), DataSpec("synthetic", 10, side))
        torch.manual_seed(0)
        try:
            net = plug.build(plug.stages()[0])  # type: ignore[arg-type]
        except ConfigError as error:
            refusal = str(error)
            assert "\n" not in refusal
            continue
        assert isinstance(net, ExitNet)
        stir(net)
        return plug, net.eval(), side
    return None


def check(name: str) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found = made(name)
        if found is None:
            pytest.skip(f"{name} is refused at every size")
        plug, net, side = found
        images = torch.randn(3, 3, side, side)
        recorded, points = plug.record(net, images), plug.points(net)
        for place, point in enumerate(points):
            assert close(plug.execute(net, images, point).logits, recorded.logits[place]), point
        where = {point.settings["exit"]: place for place, point in enumerate(points)}

        def stay(k: int, logits: torch.Tensor) -> torch.Tensor:  # one image leaves at every exit
            return torch.arange(len(logits)) > 0

        prices = torch.tensor([count_products(unit.module, lambda u=unit: u.module(*u.inputs))[0]
                               for unit in plug.units(net)])  # fmt: skip
        for plan in (stay, *points[:2]):
            computed, executed = count_products(net, lambda plan=plan: plug.execute(net, images, plan))
            paid = int((executed.counts.long() @ prices).sum())
            assert paid == computed if name not in ONCE_A_BATCH else computed <= paid <= 1.03 * computed
        executed = plug.execute(net, images, stay)
        assert executed.taken is not None
        assert len(set(executed.taken.tolist())) == min(3, len(points))
        for row, taken in enumerate(executed.taken.tolist()):
            assert close(executed.logits[row], recorded.logits[where[taken]][row])


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_names())
def test_exits_on_torchvisions_networks(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", timm_names())
def test_exits_on_timms_networks(name: str) -> None:
    check(name)


def test_exits_on_a_network_of_each_kind() -> None:
    for name in ("torchvision/mobilenet_v3_small", "torchvision/shufflenet_v2_x0_5"):
        check(name)
