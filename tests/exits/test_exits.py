"""Exits on CIFAR and torchvision networks: where they stand, what is shared with the backbone, how they are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from baselines.networks import make_network
from bench.config.data import DataSpec
from bench.config.schema import Recipe
from bench.cost.units import count_units
from bench.errors import ConfigError
from bench.method import Batch
from bench.testing import check_method, stir
from bench.train.optim import freeze, make_optimizer
from bench.train.step import TrainStep
from methods.exits.config import ExitsConfig
from methods.exits.graph import Backbone
from methods.exits.method import Exits
from methods.exits.network import ExitNet

CIFAR = DataSpec("cifar10", 10, 32)
IMAGENET = DataSpec("imagenet", 1000, 224)


def method(backbone: str, exits: Any, data: DataSpec = CIFAR, **options: Any) -> Exits:
    return Exits(ExitsConfig(backbone=backbone, exits=exits, **options), data)


def built(plug: Exits, seed: int = 0) -> ExitNet:
    torch.manual_seed(seed)
    net = plug.build_last()
    assert isinstance(net, ExitNet)
    stir(net)
    return net.eval()


def batch(count: int = 8, side: int = 32) -> Batch:
    torch.manual_seed(3)
    images, labels = torch.randn(count, 3, side, side), torch.arange(count) % 10
    return Batch(images, labels, labels, images)


# ---- the contract -----------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [
    {"regime": "disjoint", "distill": 0.5, "head": "conv"},
    {"regime": "mixed", "equilibrium": True, "exit_weights": "depth"},
    {"boost": 0.5, "exits": 3, "exit_weights": (0.25, 0.5, 0.75, 1.0)},
], ids=lambda options: "-".join(map(str, options)))  # fmt: skip
def test_every_switch_fulfils_the_contract(options: dict[str, Any]) -> None:
    config = ExitsConfig(**{"backbone": "cifar/resnet8", "exits": ("layer1", "layer2"), **options})
    assert check_method(Exits, "exits", config) == []


# ---- the cut network --------------------------------------------------------------------------------
@pytest.mark.parametrize(("backbone", "exits"), [
    ("cifar/resnet14-b", ("layer1", "layer2.0", "layer2")), ("torchvision/resnet18", 3),
    ("torchvision/mobilenet_v3_small", 2), ("torchvision/squeezenet1_1", ("features.5",)),
])  # fmt: skip
def test_the_last_exit_is_the_backbone_bit_by_bit(backbone: str, exits: Any) -> None:
    plug = method(backbone, exits)
    net = built(plug)
    whole = make_network(backbone, CIFAR)
    whole.load_state_dict(net.backbone_state())
    images = batch().images
    with torch.no_grad():
        assert torch.equal(plug.record(net, images).logits[0], whole.eval()(images))
    own = {name: tensor.shape for name, tensor in whole.state_dict().items()}
    assert {name: tensor.shape for name, tensor in net.backbone_state().items()} == own


def test_named_layers_are_cut_where_they_end() -> None:
    net = built(method("cifar/resnet8", ("layer2", "layer1")))
    whole = make_network("cifar/resnet8", CIFAR)
    whole.load_state_dict(net.backbone_state())
    seen: dict[str, Tensor] = {}
    for name in ("layer1", "layer2"):
        whole.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    images = batch().images
    with torch.no_grad():
        whole.eval()(images)
        first = net.parts[0](images)
        assert torch.equal(first, seen["layer1"])
        assert torch.equal(net.parts[1](first), seen["layer2"])


def test_exits_are_placed_evenly() -> None:
    plug = method("torchvision/resnet50", 3, IMAGENET)
    with torch.device("cpu"):
        net = plug.build_last().to("meta")
    cost = count_units(plug, net)
    macs = plug.walker(net).counts().numpy() @ cost.columns["macs"]
    shares = macs[1:] / macs[0]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.06)
    heads = sum(macs for unit, macs in zip(plug.units(net), cost.columns["macs"]) if unit.name.startswith("heads"))
    assert 0 < heads / macs[0] < 0.02


def test_tokens_are_read_as_the_backbone_reads_them() -> None:
    vit = make_network("torchvision/vit_b_32", CIFAR)
    assert Backbone(vit, "vit", 32).reads_first_token()
    swin = make_network("torchvision/swin_t", CIFAR)
    assert not Backbone(swin, "swin", 32).reads_first_token()
    net = built(method("torchvision/swin_t", ("features.1", "features.3")))
    assert [head[-1].in_features for head in net.heads] == [96, 192]  # of maps with channels at the end


# ---- places that are refused --------------------------------------------------------------------------
@pytest.mark.parametrize(("backbone", "exits", "words"), [
    ("cifar/resnet20", ("layer4",), "runs no layer 'layer4'; the most alike: 'layer2', 'layer1', "),
    ("cifar/resnet20", ("layer1.1.conv1",), "2 tensors are alive; the nearest places: 'layer1.0', 'layer1.1'"),
    ("cifar/resnet20", ("layer3",), "nothing but its own classifier, which is the last exit anyway"),
    ("cifar/resnet20", ("fc",), "nothing but its own classifier, which is the last exit anyway"),
    ("cifar/resnet20", ("layer1", "layer1.2"), "'layer1' and 'layer1.2' of cifar/resnet20 are one place"),
    ("cifar/resnet8", 60, "60, but cifar/resnet8 has "),
    ("torchvision/alexnet", 2, "torchvision/alexnet does not take images of 32 pixels: "),
    ("torchvision/vit_h_14", 2, "torchvision/vit_h_14 cannot be built for images of 32 pixels: "),
    ("torchvision/resnet51", 2, "torchvision has no classifier 'resnet51'; did you mean 'resnet50'?"),
    ("cifar/resnet21", 2, "D is 6n+2"),
    ("keras/resnet50", 2, "one of torchvision, timm, cifar"),
])  # fmt: skip
def test_places_that_there_are_not(backbone: str, exits: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        method(backbone, exits).build_last()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "words"), [
    ({"exits": ()}, "name at least one layer"),
    ({"exits": ("layer1", "layer1")}, "'layer1' stands twice"),
    ({"exit_weights": (1.0, 1.0)}, "exit_weights has 2 numbers, but there are 3 exits with the last"),
    ({"regime": "disjoint", "equilibrium": True}, "equilibrium does nothing"),
    ({"regime": "disjoint", "boost": 0.5}, "boost changes the last exit"),
    ({"backbone": "resnet50"}, "backbone"),
])  # fmt: skip
def test_options_that_contradict_one_another(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ExitsConfig(**{"backbone": "cifar/resnet8", "exits": ("layer1", "layer2"), **options})


def test_a_convolution_reads_maps_only() -> None:
    with pytest.raises(ConfigError, match="head: conv needs maps"):
        method("torchvision/vit_b_32", 2, head="conv").build_last()


# ---- training ---------------------------------------------------------------------------------------
def trained(plug: Exits, steps: int = 2) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The network of every stage after a few steps, and what the last step of each logged."""
    models: dict[str, nn.Module] = {}
    logged: dict[str, Any] = {}
    for planned in plug.stages():
        stage = planned.resolve(Recipe(lr=0.05))
        torch.manual_seed(1)
        model = models[stage.name] = plug.build(stage)
        plug.prepare(model, stage, models.get(stage.start_from or ""))
        freeze(model, stage.trains)
        optimizer = make_optimizer(model, stage.recipe)
        step = TrainStep(plug, model, stage)
        step.train()
        for _ in range(steps):
            optimizer.zero_grad()
            logged[stage.name] = step(*batch())
            logged[stage.name]["loss"].backward()
            optimizer.step()
    return models, logged


@pytest.mark.parametrize("backbone", ["cifar/resnet8", "torchvision/mobilenet_v3_small"])
def test_disjoint_leaves_the_backbone_bit_by_bit(backbone: str) -> None:
    models, _ = trained(method(backbone, 2, regime="disjoint", distill=0.5))
    before, after = models["backbone"].state_dict(), models["heads"].backbone_state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mixed_starts_from_the_backbone_and_trains_it_on() -> None:
    plug = method("cifar/resnet8", 2, regime="mixed")
    models, _ = trained(plug, steps=1)
    stage = plug.stages()[1].resolve(Recipe())
    fresh = plug.build(stage)
    plug.prepare(fresh, stage, models["backbone"])
    before = models["backbone"].state_dict()
    assert all(torch.equal(before[name], value) for name, value in fresh.backbone_state().items())
    moved = models["mixed"].backbone_state()
    assert all(not torch.equal(before[name], moved[name]) for name in before if name.endswith("conv1.weight"))


def test_runs_with_other_exits_share_the_backbone() -> None:
    plugs = [method("cifar/resnet8", exits, regime=regime) for exits, regime in ((2, "mixed"), (1, "disjoint"))]
    assert plugs[0].stages()[0] == plugs[1].stages()[0]


@pytest.mark.parametrize("weights", ["equal", "depth", (0.5, 0.0, 2.0)])
def test_losses_are_weighed(weights: Any) -> None:
    plug = method("cifar/resnet8", 2, exit_weights=weights)
    _, logged = trained(plug, steps=1)
    parts = {name: value.detach() for name, value in logged["joint"].items()}
    numbers = {"equal": (1, 1, 1), "depth": (1 / 3, 2 / 3, 1)}.get(weights, weights)
    expected = sum(weight * float(parts[f"ce_exit{k + 1}"]) for k, weight in enumerate(numbers))
    assert float(parts["loss"]) == pytest.approx(expected)


def test_boosting_adds_half_of_what_was_said_without_a_gradient() -> None:
    plain, boosted = (method("cifar/resnet8", 2, boost=share) for share in (0.0, 0.5))
    own, sums = built(plain)(batch().images), built(boosted)(batch().images)
    expected = own[0]
    for k in (1, 2):
        expected = own[k] + 0.5 * expected
        assert torch.allclose(sums[k], expected, atol=1e-5)
    net = built(boosted)
    net(batch().images)[1].sum().backward()
    assert all(p.grad is None for p in net.heads[0].parameters())


def test_equilibrium_gives_the_mean_of_the_gradients() -> None:
    gradients = []
    for equilibrium in (False, True):
        net = built(method("cifar/resnet8", 2, equilibrium=equilibrium))
        sum(logits.sum() for logits in net(batch().images)).backward()
        gradients.append(next(net.parts[0].parameters()).grad)
    assert torch.allclose(gradients[0] / 3, gradients[1], rtol=1e-3, atol=1e-4 * float(gradients[1].abs().max()))


def test_a_head_and_the_next_part_read_the_same_map() -> None:
    """VGG overwrites what its convolutions return; a head that stands between sees it as it was."""
    plug = method("torchvision/vgg11", ("features.3",), head="conv")
    net = built(plug)
    images = batch(2).images
    net.train()(images)[0].sum().backward()
    assert all(p.grad is not None for p in net.heads.parameters())
    net.eval()
    with torch.no_grad():
        map_ = net.parts[0](images)
        kept = map_.clone()
        net.parts[1](map_)
    assert torch.equal(map_, kept)
