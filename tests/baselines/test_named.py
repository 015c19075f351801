"""Static networks by name: torchvision's own, published weights from torch hub's folder, timm where it is installed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import nn

from baselines.named import TimmBaseline, TorchvisionBaseline
from baselines.networks import make_network, network_names
from baselines.networks_config import TimmConfig, TorchvisionConfig
from bench.config.data import DataSpec
from bench.config.schema import Recipe
from bench.cost.units import count_units
from bench.errors import ConfigError, WeightsError
from bench.testing import check_method, stir
from bench.testing.subject import close

IMAGENET = DataSpec("imagenet", 1000, 224)
CIFAR = DataSpec("cifar10", 10, 32)
FILE = "mobilenet_v3_small-047dcff4.pth"
#: Larger than 32 pixels, which is what the others take.
SIDES = {"alexnet": 64, "inception_v3": 96, "maxvit_t": 224}
#: Why a network cannot be recorded and executed here.
REFUSED = {"vit_h_14": "its 632 M parameters are more than a test should fill", "regnet_y_128gf": "645 M parameters"}


def method(data: DataSpec = CIFAR, **options: str) -> TorchvisionBaseline:
    return TorchvisionBaseline(TorchvisionConfig.model_validate({"model": "mobilenet_v3_small", **options}), data)


def started(plug: TorchvisionBaseline) -> nn.Module:
    stage = plug.stages()[0].resolve(Recipe())
    torch.manual_seed(1)
    net = plug.build(stage)
    plug.prepare(net, stage, None)
    return net.eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """MobileNetV3 with random weights, whose file lies where torch hub keeps the published one."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v3_small(weights=None)
    stir(net)
    torch.save(net.state_dict(), tmp_path / "checkpoints" / FILE)
    return net.eval()


def test_published_weights_answer_as_torchvisions(hub: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plug = method(IMAGENET, weights="DEFAULT")
        net = started(plug)
        assert torch.equal(plug.record(net, images).logits[0], hub(images))


def test_a_head_for_other_classes_starts_fresh(hub: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = started(method(weights="IMAGENET1K_V1"))
    own, theirs = net.state_dict(), hub.state_dict()
    other = [key for key in own if own[key].shape != theirs[key].shape]
    assert other == ["classifier.3.weight", "classifier.3.bias"]
    assert all(torch.equal(own[key], theirs[key]) for key in own if key not in other)
    assert "were trained with images of 224, its images get 32" in caplog.text


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError) as error:
        started(method(weights="DEFAULT"))
    assert str(error.value) == (
        f"no file {tmp_path / 'checkpoints' / FILE}; put https://download.pytorch.org/models/{FILE} there"
    )
    with pytest.raises(ConfigError, match="has no weights 'IMAGENET1K_V7'; did you mean 'IMAGENET1K_V1'"):
        started(method(weights="IMAGENET1K_V7"))
    with pytest.raises(ValidationError):
        TorchvisionConfig(model="resnet18", weights="file.pth")


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "googlenet", "swin_t"])
def test_a_network_is_counted_recorded_and_executed(name: str) -> None:
    check_one(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in network_names("torchvision") if name not in REFUSED])
def test_every_network_is_counted_recorded_and_executed(name: str) -> None:
    check_one(name)


def check_one(name: str) -> None:
    side = SIDES.get(name, 32)
    plug = TorchvisionBaseline(TorchvisionConfig(model=name), DataSpec("synthetic", 10, side))
    torch.manual_seed(0)
    net = plug.build_last().eval()
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        recorded, whole = plug.record(net, images), net(images)
        executed = plug.execute(net, images, plug.points(net)[0])
    assert recorded.logits.shape == (1, 2, 10)
    assert torch.equal(recorded.logits[0], whole)
    assert close(executed.logits, whole)
    assert int(count_units(plug, net).columns["macs"].sum()) > 0


def test_timm() -> None:
    """Also what is said where it is absent."""
    try:
        import timm
    except ImportError:
        with pytest.raises(ConfigError, match=r"pip install 'depthbench\[timm\]'"):
            make_network("timm/resnet18", CIFAR)
        return
    assert timm.is_model("test_resnet")
    assert check_method(TimmBaseline, "timm", TimmConfig.small()) == []
    with pytest.raises(ConfigError, match="timm has no network 'resnet51'; did you mean"):
        make_network("timm/resnet51", CIFAR)
