"""The ResNet baseline: architecture, published weights, the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from pydantic import ValidationError
from resnet_oracle import fill, golden_images, run_published
from torch import Tensor, nn

from baselines.config import ResNetConfig
from baselines.method import ResNetBaseline
from baselines.resnet import CifarResNet, imagenet_resnet
from bench.config.data import DataSpec
from bench.config.schema import Recipe
from bench.cost import CostTable, count_module, count_units
from bench.errors import ConfigError, WeightsError
from bench.method import Batch, Point

CIFAR10 = DataSpec("cifar10", 10, 32)
SMALL_IMAGENET = DataSpec("imagenet", 1000, 64)
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "resnet20_published.json"


def make(config: ResNetConfig, data: DataSpec = CIFAR10) -> tuple[ResNetBaseline, nn.Module]:
    method = ResNetBaseline(config, data)
    return method, method.build(method.stages()[-1])


# ---- architecture ---------------------------------------------------------------------------------
PARAMETERS_B = {8: 78_042, 14: 175_258, 20: 272_474, 32: 466_906, 44: 661_338, 56: 855_770, 110: 1_730_714}
PARAMETERS_IMAGENET = {
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336,
}  # fmt: skip


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("depth", PARAMETERS_B)
def test_parameters_with_projections(depth: int) -> None:
    assert count_parameters(CifarResNet(depth, shortcut="B")) == PARAMETERS_B[depth]
    assert count_parameters(CifarResNet(depth, 100, shortcut="B")) == PARAMETERS_B[depth] + 90 * 65


@pytest.mark.parametrize("depth", [20, 110])
def test_padding_has_no_parameters(depth: int) -> None:
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert count_parameters(CifarResNet(depth)) == PARAMETERS_B[depth] - projections


@pytest.mark.parametrize("arch", PARAMETERS_IMAGENET)
def test_imagenet_parameters(arch: str) -> None:
    with torch.device("meta"):
        assert count_parameters(imagenet_resnet(arch)) == PARAMETERS_IMAGENET[arch]


def test_resnet20_without_norm() -> None:
    network = CifarResNet(20, shortcut="B", norm_layer=lambda channels: nn.Identity())
    assert count_parameters(network) == 270_906


def test_width_channels_and_classes() -> None:
    method, model = make(ResNetConfig(depth=8, width=32), DataSpec("fashion", 7, 28, channels=1))
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 7)
    assert method.backbone() == "resnet8-w32"


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_forward_is_what_is_written_out_by_hand(shortcut: str) -> None:
    """Weights from names alone, batch norm off its defaults; the witness shares no code with the network."""
    _, model = make(ResNetConfig(depth=20, shortcut=shortcut))
    published = fill({k: tuple(v.shape) for k, v in _as_akamaster(model.state_dict()).items()})
    arch = "cifar10_resnet20" if shortcut == "A" else "cifar10_resnet20_b"
    _, model = ResNetBaseline.import_weights(arch, published)
    images = golden_images()
    with torch.no_grad():
        ours, witness = model.eval()(images), run_published(published, images)
    assert witness.std() > 0.1
    torch.testing.assert_close(ours, witness, rtol=1e-4, atol=1e-4)


def _as_akamaster(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.replace("fc.", "linear.").replace("downsample", "shortcut"): v for k, v in state.items()}


# ---- published weights ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def published(shared_dir: Path) -> dict[str, object]:
    file = shared_dir / "parity" / "cifar10_resnet20_published.th"
    if not file.is_file():
        pytest.skip("needs the published ResNet-20 weights of the shared folder")
    return torch.load(file, map_location="cpu", weights_only=True)


def test_published_weights_give_the_golden_logits(published: dict[str, object]) -> None:
    """Golden: logits of the network written out by hand, in double precision."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    images = golden_images()
    assert images.double().sum().item() == pytest.approx(golden["sum_of_images"], abs=1e-3)
    _, model = ResNetBaseline.import_weights("resnet20", published)  # the whole checkpoint, with module.
    with torch.no_grad():
        logits = model.eval()(images)
    torch.testing.assert_close(logits, torch.tensor(golden["logits"]), rtol=1e-4, atol=1e-4)


def test_published_weights_hit_9173_of_10000(published: dict[str, object], cifar_root: Path) -> None:
    """Published error 8.27 %, normalised with ImageNet's mean and std, as the archive of weights says."""
    method, model = ResNetBaseline.import_weights("cifar10_resnet20", published["state_dict"])  # type: ignore[arg-type]
    test = torchvision.datasets.CIFAR10(str(cifar_root), train=False)
    mean, std = (torch.tensor(v)[:, None, None] for v in (method.data.mean, method.data.std))
    pixels = torch.from_numpy(test.data).permute(0, 3, 1, 2)
    labels = torch.tensor(test.targets)
    model.eval().to(memory_format=torch.channels_last)  # nearly twice as fast on a CPU
    hits = 0
    for images, targets in zip(pixels.split(100), labels.split(100)):
        images = ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        decisions = method.record(model, images)
        hits += int((decisions.logits[0].argmax(1) == targets).sum())
    assert hits == 9_173


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"])
def test_torchvision_weights_load_unchanged(arch: str) -> None:
    theirs = torchvision.models.get_model(arch, weights=None).eval()
    _move_statistics(theirs)
    _, ours = ResNetBaseline.import_weights(arch, theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (ours.eval()(images) - theirs(images)).abs().max().item() == 0


def _move_statistics(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d"])
def test_large_torchvision_weights_load_unchanged(arch: str) -> None:
    test_torchvision_weights_load_unchanged(arch)


@pytest.mark.parametrize("arch", ["cifar10_resnet20", "cifar100_resnet32", "resnet44", "cifar10_resnet8_b", "resnet18"])
def test_import_is_the_inverse_of_export(arch: str) -> None:
    spec = ResNetBaseline.archs()[arch]
    method, model = make(spec.config, spec.data)  # type: ignore[arg-type]
    exported = method.export_weights(model)
    again, imported = ResNetBaseline.import_weights(arch, exported)
    assert again.export_weights(imported).keys() == exported.keys()
    assert all(torch.equal(value, imported.state_dict()[key]) for key, value in model.state_dict().items())
    exported["conv1.weight"].zero_()
    assert model.state_dict()["conv1.weight"].abs().sum() > 0, "an export is a copy"


def test_shortcut_a_exports_the_published_names(published: dict[str, object]) -> None:
    state: dict[str, Tensor] = published["state_dict"]  # type: ignore[assignment]
    method, model = ResNetBaseline.import_weights("cifar10_resnet20", state)
    exported = method.export_weights(model)
    assert {k for k in exported if not k.endswith("num_batches_tracked")} == {k.removeprefix("module.") for k in state}
    assert all(torch.equal(exported[k.removeprefix("module.")], v) for k, v in state.items())


def test_weights_that_do_not_fit() -> None:
    method, model = make(ResNetConfig(depth=20))
    state = method.export_weights(model)
    with pytest.raises(WeightsError, match=r"cifar10_resnet32: .*missing \(layer1\.3"):
        ResNetBaseline.import_weights("cifar10_resnet32", state)
    with pytest.raises(WeightsError, match=r"1 left over \(extra\)"):
        ResNetBaseline.import_weights("cifar10_resnet20", {**state, "extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"two keys stand for fc\.bias"):
        ResNetBaseline.import_weights("cifar10_resnet20", {**state, "fc.bias": torch.zeros(10)})
    with pytest.raises(WeightsError, match="'epoch' is no tensor"):
        ResNetBaseline.import_weights("cifar10_resnet20", {"epoch": 3})  # type: ignore[dict-item]
    with pytest.raises(WeightsError, match="'state_dict' holds list"):
        ResNetBaseline.import_weights("cifar10_resnet20", {"state_dict": []})  # type: ignore[dict-item]
    with pytest.raises(WeightsError, match=r"did you mean 'resnext50_32x4d'"):
        ResNetBaseline.import_weights("resnext50_32x4", state)


def test_every_arch_builds_what_it_names() -> None:
    for name, arch in ResNetBaseline.archs().items():
        method = ResNetBaseline(arch.config, arch.data)  # type: ignore[arg-type]
        backbone = name.removeprefix("cifar10_").removeprefix("cifar100_").replace("_b", "-b")
        assert method.backbone() == backbone
        assert arch.data.num_classes == (100 if "cifar100" in name else 1000 if arch.config.arch else 10)  # type: ignore[attr-defined]


# ---- the contract ---------------------------------------------------------------------------------
NETWORKS = {
    "A": (ResNetConfig(depth=20), CIFAR10),
    "B": (ResNetConfig(depth=14, shortcut="B"), CIFAR10),
    "odd size": (ResNetConfig(depth=8, shortcut="B"), DataSpec("odd", 5, 27, channels=1)),
    "basic": (ResNetConfig(arch="resnet18"), SMALL_IMAGENET),
    "bottleneck": (ResNetConfig(arch="resnet50"), DataSpec("odd", 10, 75)),
    "grouped": (ResNetConfig(arch="resnext50_32x4d"), SMALL_IMAGENET),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_units_cover_the_network(name: str) -> None:
    method, model = make(*NETWORKS[name])
    table = count_units(method, model)
    data = method.data
    whole = count_module(model, [torch.zeros(1, data.channels, data.image_size, data.image_size)])
    decisions = method.record(model.eval(), torch.randn(2, data.channels, data.image_size, data.image_size))
    spent = table.cost(decisions.counts)
    assert {column: spent[column].tolist() for column in whole} == {column: [value] for column, value in whole.items()}
    assert spent["params"].item() == table.total_params() == count_parameters(model)
    assert table.params_outside == 0
    assert table.units[0] == "stem"
    assert table.units[-1] == "head"
    assert table.units[1] == "layer1.0"


def test_costs_of_the_pieces_of_a_cifar_resnet() -> None:
    """The published block costs: 4,718,592 for each, 3,538,944 and a projection where the size halves."""
    table = count_units(*make(ResNetConfig(depth=14, shortcut="B")))
    macs = dict(zip(table.units, table.columns["macs"].tolist()))
    assert macs == {
        "stem": 442_368,
        "layer1.0": 4_718_592, "layer1.1": 4_718_592,
        "layer2.0": 3_538_944 + 131_072, "layer2.1": 4_718_592,
        "layer3.0": 3_538_944 + 131_072, "layer3.1": 4_718_592,
        "head": 640,
    }  # fmt: skip


def test_the_table_of_resnet50() -> None:
    table: CostTable = count_units(*make(ResNetConfig(arch="resnet50"), DataSpec("imagenet", 1000, 224)))
    assert len(table.units) == 18
    macs = dict(zip(table.units, table.columns["macs"].tolist()))
    assert macs["stem"] == 118_013_952
    assert macs["layer1.0"] == 179_830_784 + 51_380_224
    assert macs["layer2.0"] == 269_746_176 + 102_760_448
    assert {macs[f"layer3.{k}"] for k in range(1, 6)} == {218_365_952}
    assert macs["head"] == 2_048_000
    assert sum(macs.values()) == 4_089_184_256


@pytest.mark.parametrize("soft", [False, True])
def test_loss_is_cross_entropy_with_the_recipes_smoothing(soft: bool) -> None:
    method, model = make(ResNetConfig(depth=8))
    stage = method.stages()[0].resolve(Recipe(label_smoothing=0.1))
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6)
    hard = torch.nn.functional.one_hot(labels, 10).float()
    targets = 0.7 * hard + 0.3 * hard.flip(0) if soft else labels
    parts = method.loss(model.eval(), Batch(images, targets, labels, images), stage)
    wanted = 0.9 * (targets if soft else hard) + 0.1 / 10
    expected = -(wanted * parts["logits"].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(parts["loss"], expected)
    assert parts["logits"].shape == (6, 10)
    parts["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_record_and_execute_agree_with_what_runs() -> None:
    method, model = make(ResNetConfig(depth=14))
    model.eval()
    images = torch.randn(5, 3, 32, 32)
    units = method.units(model)
    ran: list[int] = []
    hooks = [
        module.register_forward_hook(lambda m, i, o: ran.append(len(o)))
        for module in (model.conv1, *model.layer1, *model.layer2, *model.layer3, model.fc)
    ]
    executed = method.execute(model, images, Point("full"))
    for hook in hooks:
        hook.remove()
    assert ran == [5] * executed.counts.shape[1] == [5] * len(units)
    assert executed.counts.tolist() == [[1] * 8] * 5
    assert executed.taken.tolist() == [0] * 5
    decisions = method.record(model, images)
    assert decisions.logits.shape == (1, 5, 10)
    assert not decisions.logits.requires_grad
    assert decisions.counts.tolist() == [[1] * 8]
    assert torch.equal(decisions.logits[0], executed.logits)
    never = method.execute(model, images, lambda exit, logits: torch.ones(len(logits), dtype=torch.bool))
    assert torch.equal(never.logits, executed.logits), "the only exit is the last"
    assert [point.name for point in method.points(model)] == ["full"]


def test_options_that_make_no_sense() -> None:
    for options in ({}, {"depth": 20, "arch": "resnet18"}, {"depth": 21}, {"depth": 2}, {"arch": "resnet19"}):
        with pytest.raises(ValidationError):
            ResNetConfig.model_validate(options)
    with pytest.raises(ValidationError, match="CIFAR family"):
        ResNetConfig.model_validate({"arch": "resnet18", "shortcut": "B"})
    with pytest.raises(ConfigError, match="resnet18 takes images of 3 channels, mnist has 1"):
        ResNetBaseline(ResNetConfig(arch="resnet18"), DataSpec("mnist", 10, 28, channels=1))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (ResNetConfig(depth=20), "resnet20"),
        (ResNetConfig(depth=110, shortcut="B"), "resnet110-b"),
        (ResNetConfig(depth=8, width=8, shortcut="B"), "resnet8-w8-b"),
        (ResNetConfig(arch="resnext50_32x4d"), "resnext50_32x4d"),
    ],
)
def test_backbone_names(config: ResNetConfig, name: str) -> None:
    assert ResNetBaseline(config, CIFAR10).backbone() == name
