"""Released names in and out, torchvision's weights as a start, plain networks out."""

from __future__ import annotations

import argparse
import importlib

import adn_oracle as oracle
import pytest
import torch
from torchvision import models

import methods.adn.families  # the constructor expressions name it
from bench.config.data import DataSpec
from bench.errors import BenchError, WeightsError
from bench.launch.export import write_onnx
from methods.adn.blocks import skip_aware_norms
from methods.adn.config import ADNConfig
from methods.adn.export import constructor
from methods.adn.families import build_network
from methods.adn.method import ADN
from methods.adn.weights import load_released, load_torchvision, released_names, unwrap

DATA = DataSpec("imagenet", 1000, 64)
KEYS = {"resnet50": (455, 135), "mobilenet_v2": (484, 170), "vit_b_16": (184, 32), "swin_t": (215, 30)}


def _network(arch: str, seed: int = 0):
    torch.manual_seed(seed)
    network = build_network(ADNConfig(arch=arch), DATA)
    oracle.randomise(network, seed)
    return network


def test_published_architectures():
    archs = ADN.archs()
    assert set(oracle.TABLE) <= set(archs)
    assert {f"torchvision/{a}" for a in oracle.TABLE if not a.endswith("vd")} == set(archs) - set(oracle.TABLE)
    assert {(a.data.num_classes, a.data.image_size) for a in archs.values()} == {(1000, 224)}


@pytest.mark.parametrize("arch", sorted(KEYS))
def test_key_counts_and_norm_names(arch):
    with torch.device("meta"):
        names = released_names(build_network(ADNConfig(arch=arch), DATA), arch).values()
    assert len(names) == len(set(names)) == KEYS[arch][0]
    assert sum("_skip." in name for name in names) == KEYS[arch][1]
    table = oracle.norm_table(arch)
    twins = {name.rpartition(".")[0] for name in names if "_skip." in name}
    assert twins == {f"{norm}_skip" for norm, flag in table.items() if flag is not None}
    assert set(table) <= {name.rpartition(".")[0] for name in names}


def test_vd_shortcuts_keep_the_place_of_their_pooling():
    with torch.device("meta"):
        names = set(released_names(build_network(ADNConfig(arch="resnet50vd"), DATA), "resnet50vd").values())
    assert {"layer1.0.downsample.0.weight", "layer2.0.downsample.1.weight", "layer2.0.downsample.2.weight"} <= names
    assert "layer2.0.downsample.0.weight" not in names


@pytest.mark.parametrize(
    "arch",
    [
        "mobilenet_v2",
        "swin_t",
        "resnet50vd",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("vit_b_16", marks=pytest.mark.slow),
    ],
)
def test_round_trip_through_the_plug(arch):
    method = ADN(*(lambda spec: (spec.config, spec.data))(ADN.archs()[arch]))
    torch.manual_seed(1)
    network = method.build(method.stages()[-1])
    oracle.randomise(network)
    released = method.export_weights(network)
    again, imported = ADN.import_weights(arch, {f"module.{key}": value for key, value in released.items()})
    assert again.config == method.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, imported.state_dict()[name]), name
    exported = again.export_weights(imported)
    assert list(exported) == list(released)
    shared = {t.data_ptr() for t in imported.state_dict().values()} & {t.data_ptr() for t in exported.values()}
    assert not shared - {0}, "exported tensors must be copies"


def test_training_checkpoint_with_averaged_weights():
    plain, averaged = _network("mobilenet_v2", 1), _network("mobilenet_v2", 2)
    names = released_names(plain, "mobilenet_v2")
    file = {
        "model": {names[k]: v for k, v in plain.state_dict().items()},
        "optimizer": {"state": {}},
        "lr_scheduler": {},
        "epoch": 3,
        "args": argparse.Namespace(model="mobilenet_v2"),
    }
    target = _network("mobilenet_v2", 3)
    load_released(target, "mobilenet_v2", file)
    assert torch.equal(target.head.classifier[1].weight, plain.head.classifier[1].weight)
    file["model_ema"] = {
        "n_averaged": torch.tensor(7),
        **{f"module.{names[k]}": v for k, v in averaged.state_dict().items()},
    }
    for layout in (file, file["model_ema"]):
        target = _network("mobilenet_v2", 3)
        load_released(target, "mobilenet_v2", layout)
        for name, tensor in averaged.state_dict().items():
            assert torch.equal(tensor, target.state_dict()[name]), name
    with pytest.raises(WeightsError, match="unknown entries: surprise"):
        unwrap({**file, "surprise": 1})


def test_corrupted_position_index_is_not_taken_over(caplog):
    network = _network("swin_t")
    names = released_names(network, "swin_t")
    state = {names[k]: v.clone() for k, v in network.state_dict().items()}
    state["features.0.0.attn.relative_position_index"][5] -= 1
    target = _network("swin_t", 3)
    load_released(target, "swin_t", state)
    assert "1 entries are wrong" in caplog.text
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.bn1_skip.bias"), r"1 missing \(layer1.0.bn1_skip.bias\)"),
        (lambda s: s.update({"layer9.0.conv1.weight": torch.zeros(1)}), r"1 left over \(layer9.0.conv1.weight\)"),
        (lambda s: s.update({"fc.bias": torch.zeros(10)}), r"fc.bias \(10,\) instead of \(1000,\)"),
        (lambda s: s.update({"fc.bias": "no"}), "'fc.bias' is no tensor but str"),
        (lambda s: [s.pop(k) for k in list(s) if "_skip." in k], "import them as torchvision/resnet50"),
    ],
)
def test_every_key_is_accounted_for(change, message):
    with torch.device("meta"):
        network = build_network(ADNConfig(arch="resnet50"), DATA)
    names = released_names(network, "resnet50")
    state = {names[key]: torch.zeros(tensor.shape) for key, tensor in network.state_dict().items()}
    change(state)
    with pytest.raises(WeightsError, match=message) as error:
        load_released(network, "resnet50", state)
    assert "\n" not in str(error.value)
    assert all(p.is_meta for p in network.parameters()), "nothing is loaded by halves"


def test_unknown_architecture():
    with pytest.raises(WeightsError, match="did you mean 'resnet50'"):
        ADN.import_weights("resnet5", {})


@pytest.mark.parametrize(
    "arch", ["mobilenet_v2", "swin_t", "resnet50", pytest.param("vit_b_32", marks=pytest.mark.slow)]
)
def test_start_from_torchvision(arch):
    size = {"image_size": 64} if arch.startswith("vit") else {}
    torch.manual_seed(5)
    theirs = models.get_model(arch, weights=None, **size)
    oracle.randomise(theirs, 9)
    network = _network(arch)
    load_torchvision(network, arch, theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), theirs.eval()(images))
        for name, norm in skip_aware_norms(network):
            for main, twin in zip(norm.main.state_dict().values(), norm.skip.state_dict().values()):
                assert torch.equal(main, twin), name
    state = dict(theirs.state_dict())
    state.pop(next(k for k in state if k.endswith("bias")))
    with pytest.raises(WeightsError, match=f"do not fit torchvision's {arch}: 1 missing"):
        load_torchvision(network, arch, state)


@pytest.mark.parametrize(
    ("config", "data"),
    [
        (ADNConfig(arch="resnet50"), DATA),
        (ADNConfig(arch="resnet50vd"), DATA),
        (ADNConfig(arch="mobilenet_v2"), DATA),
        (ADNConfig(arch="swin_t"), DATA),
        pytest.param(ADNConfig(arch="swin_v2_t"), DATA, marks=pytest.mark.slow),
        pytest.param(ADNConfig(arch="vit_b_32"), DATA, marks=pytest.mark.slow),
        (ADNConfig(depth=20), DataSpec("cifar10", 10, 32)),
        (ADNConfig(depth=14, shortcut="B", width=8, skip_aware=False), DataSpec("mnist", 7, 32, channels=1)),
    ],
    ids=lambda value: (value.arch or f"cifar{value.depth}") if isinstance(value, ADNConfig) else "",
)
def test_export_of_a_configuration(config, data, tmp_path):
    """A file that needs only the constructor expression to be used again."""
    method = ADN(config, data)
    torch.manual_seed(0)
    network = method.build(method.stages()[-1])
    oracle.randomise(network)
    network.eval()
    images = torch.randn(2, data.channels, data.image_size, data.image_size)
    points = method.points(network)
    state = torch.get_rng_state()
    for point in (points[len(points) // 2 - 1], points[-1]):
        plain = method.export_point(network, point)
        assert not any(type(m).__module__.startswith("methods.adn") for m in plain.modules())
        torch.save(plain.state_dict(), tmp_path / "plain.pt")
        names: dict[str, object] = {}
        for module in ("torchvision", "baselines.resnet", "bench.config.data"):
            importlib.import_module(module)
            names[module.split(".")[0]] = importlib.import_module(module.split(".")[0])
        names["methods"] = methods
        with torch.device("meta"):
            fresh = eval(constructor(config, data, point.settings["skip"]), names)
        fresh.load_state_dict(torch.load(tmp_path / "plain.pt", weights_only=True), strict=True, assign=True)
        with torch.no_grad():
            logits = network(images, point.settings["skip"])
            assert torch.equal(plain(images), logits)
            assert torch.equal(fresh.eval()(images), logits)
    assert torch.equal(state, torch.get_rng_state()), "exporting must not draw random numbers"


def test_constructors_are_torchvisions_own():
    data = DataSpec("imagenet", 1000, 224)
    expression = constructor(ADNConfig(arch="resnet50"), data, (False, True, False, True))
    block = "torchvision.models.resnet.Bottleneck"
    assert expression == f"torchvision.models.ResNet({block}, [3, 2, 6, 2], num_classes=1000)"
    for arch in oracle.TABLE:
        flags = len(oracle.TABLE[arch][0])
        expression = constructor(ADNConfig(arch=arch), data, (True,) * flags)
        assert expression.startswith("methods.adn" if arch.endswith("vd") else "torchvision.models.")


def test_onnx_of_a_configuration(tmp_path):
    data = DataSpec("cifar10", 10, 32)
    method = ADN(ADNConfig(depth=14), data)
    network = method.build(method.stages()[-1])
    plain = method.export_point(network, method.points(network)[-1])
    path = tmp_path / "base.onnx"
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        with pytest.raises(BenchError, match="pip install onnx"):
            write_onnx(plain, path, data)
        assert not path.exists()
        return
    write_onnx(plain, path, data)
    written = onnx.load(str(path))
    onnx.checker.check_model(written)
    from onnx.reference import ReferenceEvaluator

    images = torch.randn(3, 3, 32, 32)
    (logits,) = ReferenceEvaluator(written).run(None, {"images": images.numpy()})
    assert torch.allclose(torch.from_numpy(logits), plain(images), atol=1e-4)
