"""`bench export`: what was trained, as a network that needs nothing of ours but (at most) its constructor."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from bench.api import save_official
from bench.cli import main
from bench.launch.export import open_run, open_weights
from bench.method import DataSpec
from bench.registry import method_class
from bench.store.comparison import read_comparison
from bench.store.status import read_status, write_status

CONFIG = """\
name: tiny
data: {name: synthetic, val_size: 32, train_subset: 64, test_subset: 32}
recipe: {epochs: 1, batch_size: 32, lr: 0.05}
device: cpu
threads: 1
seeds: [3, 4]
runs:
  - {name: plain, method: resnet, options: {depth: 8, shortcut: B, norm: {kind: group, gn_num_groups: 4}}}
  - {name: paths, method: adn, options: {depth: 14}, seeds: [3]}
  - {name: exits, method: imta_msdnet, seeds: [3], options: OPTIONS}
  - {name: gated, method: skipnet, options: {depth: 8, hrl: false}, seeds: [3]}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was run; its file lies in the folder of the results' parent."""
    from bench.registry import method_config

    small = method_config("imta_msdnet").small().model_dump_json(exclude_unset=True)
    folder = tmp_path_factory.mktemp("export")
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.replace("OPTIONS", small) + f"out: {folder / 'out'}\n")
    assert main(["run", str(path), "--in-process", "--no-report", "--quiet"]) == 0
    return folder


def _construct(printed: str) -> nn.Module:
    """The network of the printed expression, with nothing imported but what it names."""
    expression = next(line for line in printed.splitlines() if line.startswith("network: ")).removeprefix("network: ")
    names: dict[str, Any] = {}
    for module in ("torchvision", "baselines.resnet", "baselines.norms.factory", "baselines.norms.config",
                   "bench.config.data", "methods.adn.families", "methods.adn.config", "methods.imta_msdnet.export",
                   "methods.imta_msdnet.config"):  # fmt: skip
        importlib.import_module(module)
        names[module.split(".")[0]] = importlib.import_module(module.split(".")[0])
    return eval(expression, names)


def _load(network: nn.Module, path: Path) -> nn.Module:
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return network.eval()


@pytest.mark.parametrize("name", ["plain", "paths", "exits"])
def test_every_point_of_a_trained_run(trained: Path, tmp_path: Path, capsys: Any, name: str) -> None:
    original = open_run(trained / "out", name)
    images = torch.randn(4, 3, 32, 32)
    recorded = original.method.record(original.model, images).logits
    points = original.method.points(original.model)
    assert len(points) == {"plain": 1, "paths": 8}.get(name, len(points))
    for logits, point in zip(recorded, points):
        out = tmp_path / f"{point.name}.pt"
        capsys.readouterr()
        assert main(["export", str(trained / "out"), "--run", name, "--point", point.name, "--to", str(out)]) == 0
        printed = capsys.readouterr().out
        plain = _load(_construct(printed), out)
        assert f"{sum(p.numel() for p in plain.parameters()):,} parameters" in printed
        with torch.no_grad():
            assert torch.equal(plain(images), original.method.execute(original.model, images, point).logits)
            assert torch.equal(plain(images), logits)
    smallest = min(sum(v.numel() for v in torch.load(p, weights_only=True).values()) for p in tmp_path.glob("*.pt"))
    whole = sum(v.numel() for v in original.model.state_dict().values())
    assert smallest < whole or name == "plain", "an exported part must leave out what it does not run"


def test_comparison_file_seed_and_default_point(trained: Path, tmp_path: Path) -> None:
    """The YAML stands for the folder of its results; the default seed is the first, the default point the run's."""
    for seed, name in ((None, "a.pt"), (3, "b.pt"), (4, "c.pt")):
        more = [] if seed is None else ["--seed", str(seed)]
        assert main(["export", str(trained / "tiny.yaml"), "--run", "plain", *more, "--to", str(tmp_path / name)]) == 0
    first, same, other = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt", "c.pt"))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert main(["export", str(trained / "out"), "--run", "paths", "--to", str(tmp_path / "super.pt")]) == 0
    assert main(["export", str(trained / "out"), "--run", "paths", "--point", "fff", "--to",
                 str(tmp_path / "fff.pt")]) == 0  # fmt: skip
    whole, named = (torch.load(tmp_path / name, weights_only=True) for name in ("super.pt", "fff.pt"))
    assert list(whole) == list(named)


def test_a_run_of_compared_folders_is_found_where_it_lies(trained: Path, tmp_path: Path) -> None:
    """`bench compare` leaves runs and weights in the folders that it compares."""
    said = read_comparison(trained / "out")
    runs = [{**run, "folder": os.path.relpath(trained / "out" / run["folder"], tmp_path)} for run in said["runs"]]
    (tmp_path / "comparison.json").write_text(json.dumps({**said, "runs": runs}))
    assert main(["export", str(tmp_path), "--run", "plain", "--to", str(tmp_path / "a.pt")]) == 0


@pytest.mark.parametrize(("point", "depths"), [("FFFF", [3, 4, 6, 3]), ("TTTT", [2, 2, 3, 2]), ("FTTF", [3, 2, 3, 3])])
def test_a_weights_file_goes_into_torchvisions_resnet(
    tmp_path: Path, capsys: Any, point: str, depths: list[int]
) -> None:
    cls = method_class("adn")
    data = DataSpec("imagenet", 1000, 64)
    method = cls(cls.Config(arch="resnet50"), data)
    torch.manual_seed(0)
    network = method.build(method.stages()[-1])
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.8, 1.2)
    save_official(method, network, "adn", "resnet50", tmp_path / "adn.pt")
    out = tmp_path / "plain.pt"
    assert main(["export", str(tmp_path / "adn.pt"), "--point", point, "--to", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, {depths}, num_classes=1000)" in printed
    assert "mean (0.485, 0.456, 0.406)" in printed
    user = models.resnet50() if point == "FFFF" else models.ResNet(models.resnet.Bottleneck, depths)
    plain = _load(user, out)
    images = torch.randn(2, 3, 64, 64)
    settings = next(p for p in method.points(network) if p.name == point)
    with torch.no_grad():
        own = method.execute(network.eval(), images, settings).logits
        assert float((plain(images) - own).abs().max()) == 0
    assert open_weights(tmp_path / "adn.pt").method.backbone() == "resnet50"


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["{out}"], 2, "holds several runs"),
    (["{out}", "--run", "path"], 2, "did you mean 'paths'"),
    (["{out}", "--run", "plain", "--seed", "9"], 2, "has no seed 9; it has 3, 4"),
    (["{out}", "--run", "paths", "--point", "TTTTT"], 2, "no operating point 'TTTTT'"),
    (["{out}", "--run", "gated"], 1, "no plain network computes what it computes"),
    (["{folder}"], 1, "holds no results of a comparison"),
    (["{folder}/none"], 2, "no such file or folder"),
    (["{folder}/tiny.yaml", "--run", "none"], 2, "has no run 'none'"),
    (["{weights}", "--run", "plain"], 2, "leave --run and --seed out"),
    (["{weights}"], 1, "bench import"),
    (["{folder}/tiny.yaml", "--run", "plain", "--to", "{folder}/tiny.yaml/x.pt"], 1, "cannot write"),
])  # fmt: skip
def test_refusals_are_one_line_and_write_nothing(
    trained: Path, tmp_path: Path, capsys: Any, arguments: list[str], code: int, words: str
) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "bare.pt")
    places = {"out": trained / "out", "folder": trained, "weights": tmp_path / "bare.pt"}
    given = [argument.format(**places) for argument in arguments]
    target = [] if "--to" in given else ["--to", str(tmp_path / "new" / "out.pt")]
    assert main(["export", *given, *target]) == code
    error = capsys.readouterr().err
    assert words in error
    assert len([line for line in error.splitlines() if line.startswith("error:")]) == len(error.splitlines()) == 1
    assert not (tmp_path / "new" / "out.pt").exists()


def test_what_is_not_trained_yet_says_so(trained: Path, tmp_path: Path, capsys: Any) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(trained / "out", out)
    folder = next((out / "runs").glob("plain-seed4-*"))
    write_status(folder, {**read_status(folder), "status": "interrupted", "stages": None})
    assert main(["export", str(out), "--run", "plain", "--seed", "4", "--to", str(tmp_path / "x.pt")]) == 1
    assert "no trained weights (status interrupted); `bench run` trains it" in capsys.readouterr().err
    assert main(["export", str(out), "--run", "plain", "--to", str(tmp_path / "x.pt")]) == 0  # seed 3 is there
    stage = next(p for p in (out / "stages").glob("*/stage.json") if '"resnet"' in p.read_text())
    weights = next(stage.parent.glob("weights-*.pt"))
    assert main(["export", str(weights), "--to", str(tmp_path / "y.pt")]) == 0  # a trained stage is a file of weights


def test_onnx_without_its_packages_is_one_line(
    trained: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("bench.launch.export.importlib.util.find_spec",
                        lambda name: None if name.startswith("onnx") else find(name))  # fmt: skip
    arguments = ["export", str(trained / "out"), "--run", "paths", "--to", str(tmp_path / "x.pt")]
    assert main([*arguments, "--onnx", str(tmp_path / "x.onnx")]) == 1
    assert "pip install onnx onnxscript" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_onnx_gives_the_same_logits(trained: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    for name, point in (("plain", "full"), ("paths", "TTT"), ("exits", "exit1")):
        folder = tmp_path / name
        assert main(["export", str(trained / "out"), "--run", name, "--point", point, "--to", str(folder / "x.pt"),
                     "--onnx", str(folder / "x.onnx")]) == 0  # fmt: skip
        assert sorted(p.name for p in folder.iterdir()) == ["x.onnx", "x.pt"], "one file holds graph and weights"
        written = onnx.load(str(folder / "x.onnx"))
        onnx.checker.check_model(written)
        original = open_run(trained / "out", name)
        images = torch.randn(3, 3, 32, 32)  # another batch size than the example's
        (logits,) = ReferenceEvaluator(written).run(None, {"images": images.numpy()})
        expected = original.method.execute(original.model, images, original.point(point)).logits
        assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-4)
