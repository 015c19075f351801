"""Files of weights from a configuration or a command to a network, and out again: every mistake in one line."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from bench.api import save_official
from bench.cli import main
from bench.config.load import load_config
from bench.config.resolve import RunSpec, resolve
from bench.errors import ConfigError
from bench.launch.stages import load_given_weights
from bench.method import DataSpec, Method
from bench.registry import method_class
from bench.train.checkpoint import FORMAT, read_weights

CIFAR = DataSpec("cifar10", 10, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))


def resnet8(data: DataSpec = CIFAR) -> tuple[Method, torch.nn.Module]:
    cls = method_class("resnet")
    method = cls(cls.Config(depth=8), data)
    return method, method.build(method.stages()[-1])


def spec_of(folder: Path, weights: object, *settings: str, method: str = "resnet") -> RunSpec:
    path = folder / "c.yaml"
    path.write_text(f"name: t\ndata: {{name: cifar10}}\nruns: [{{name: r, method: {method}, options: {{depth: 8}}, "
                    f"weights: '{weights}', evaluate_only: true}}]\n")  # fmt: skip
    (spec,) = resolve(load_config(path, settings=settings))
    return spec


# ---- in ---------------------------------------------------------------------------------------------
def test_one_of_several_networks_is_part_of_the_identity(tmp_path: Path) -> None:
    method, model = resnet8()
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    torch.save({"model": zeros, "model_ema": model.state_dict()}, tmp_path / "f.pth")
    plain, averaged, other = (spec_of(tmp_path, f"f.pth{key}") for key in ("", "#model_ema", "#model"))
    assert len({plain.run_id, averaged.run_id, other.run_id}) == 3
    assert len(plain.weights_sha256 or "") == 64
    for spec, expected in ((plain, model.state_dict()), (averaged, model.state_dict()), (other, zeros)):
        _, network = resnet8()
        load_given_weights(spec, method, network)
        assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_what_is_not_a_file_is_named_before_anything_runs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder").mkdir()
    gone = ("gone.pth", "gone.pth#model", "n" * 300)
    for name, words in [("pipe.pth", "is a named pipe"), ("folder", "is a folder"), ("/dev/zero", "is a device"),
                        *((name, "no such file") for name in gone)]:  # fmt: skip
        with pytest.raises(ConfigError, match=words) as error:
            spec_of(tmp_path, name)
        assert "c.yaml:3" in str(error.value)
        assert "runs.r.weights" in str(error.value)
        assert main(["import", "resnet", "resnet50", str(tmp_path / name)]) == 2


@pytest.mark.parametrize(("settings", "expected"), [
    ([], ["mean", "std"]), (["data.mean=[0.485, 0.456, 0.406]"], ["std"]),
    (["data.mean=[0.485, 0.456, 0.406]", "data.std=[0.229, 0.224, 0.225]"], []),
])  # fmt: skip
def test_another_normalisation_than_that_of_the_weights_is_reported(
    tmp_path: Path, settings: list[str], expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Ours says so in the file; published architectures say so themselves (akamaster's: ImageNet's mean and std)."""
    method, model = resnet8(DataSpec("cifar10", 10, 32))  # ImageNet's mean and std
    save_official(method, model, "resnet", "", tmp_path / "ours.pt")
    torch.save(method.export_weights(model), tmp_path / "published.th")
    for name, arch in (("ours.pt", []), ("published.th", ["runs.r.arch=cifar10_resnet8_b"])):
        spec = spec_of(tmp_path, name, *settings, *arch)
        cls = method_class("resnet")
        data = DataSpec("cifar10", 10, 32, mean=spec.data.mean or CIFAR.mean, std=spec.data.std or CIFAR.std)
        run = cls(cls.Config(depth=8, shortcut="B" if arch else "A"), data)
        network = run.build(run.stages()[-1])
        if arch:
            torch.save(run.export_weights(network), tmp_path / name)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_given_weights(spec, run, network)
        assert [word for word in ("mean", "std") if f"trained with {word} [0." in caplog.text] == expected
        assert len(caplog.messages) == len(expected)


def test_the_hint_about_published_names_is_given_for_names_only(tmp_path: Path, capsys: Any) -> None:
    method, model = resnet8()
    state = model.state_dict()
    for changed, hinted in [
        ({**state, "fc.weight": torch.zeros(100, 64), "fc.bias": torch.zeros(100)}, False),
        ({name.replace("fc.", "linear."): value for name, value in state.items()}, True),
    ]:
        torch.save(changed, tmp_path / "f.pth")
        with pytest.raises(Exception, match="do not fit run 'r'") as error:
            load_given_weights(spec_of(tmp_path, "f.pth"), method, model)
        assert ("arch: NAME" in str(error.value)) == hinted


def test_import_names_its_file_after_an_architecture_with_a_slash(tmp_path: Path, capsys: Any) -> None:
    torch.save(models.mobilenet_v2().state_dict(), tmp_path / "f.pth")
    assert main(["import", "adn", "torchvision/mobilenet_v2", str(tmp_path / "f.pth")]) == 0
    state, about = read_weights(tmp_path / "adn-torchvision-mobilenet_v2.pt")
    assert about is not None
    assert (about["method"], about["arch"], len(state)) == ("adn", "torchvision/mobilenet_v2", 484)
    capsys.readouterr()
    published = tmp_path / "f.pth"
    before = published.read_bytes()
    assert main(["import", "adn", "torchvision/mobilenet_v2", str(published), "-o", str(published)]) == 2
    assert "is the published file itself" in capsys.readouterr().err
    assert published.read_bytes() == before


# ---- out --------------------------------------------------------------------------------------------
@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return save_official(*resnet8(), "resnet", "", tmp_path / "ours.pt")


@pytest.mark.parametrize("place", ["/proc/new.pt", "/proc/self/fd/new/x.pt", "{}", "{}/ours.pt/x.pt", "{}/ours.pt", "",
                                   "{}/" + "n" * 300, "{}/pipe.pt/x.pt"])  # fmt: skip
@pytest.mark.parametrize("what", ["--to", "--onnx"])
def test_places_that_cannot_be_written_to(ours: Path, tmp_path: Path, capsys: Any, place: str, what: str) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    before, content = sorted(tmp_path.iterdir()), ours.read_bytes()
    place = place.format(tmp_path)
    more = [] if what == "--to" else ["--to", str(tmp_path / "new.pt")]
    assert main(["export", str(ours), what, place, *more]) == (2 if place == str(ours) else 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "internal" not in line
    assert sorted(tmp_path.iterdir()) == before
    assert ours.read_bytes() == content


def test_two_files_of_one_name_are_refused(ours: Path, tmp_path: Path, capsys: Any) -> None:
    new = str(tmp_path / "new")
    assert main(["export", str(ours), "--to", new, "--onnx", new]) == 2
    assert "name the same file" in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "words"), [
    ({"num_classes": 1e9}, "num_classes is 1000000000, but no tensor has that size"),
    ({"num_classes": float("inf")}, "infinity"), ({"num_classes": "ten"}, "ten"), ({"num_classes": -1}, "no tensor"),
    ({"image_size": 10**9}, "image_size is 1000000000"), ({"channels": 4}, "must have 4 values"),
    ({"mean": None}, "cannot be used"), ({"mean": ["a", 1, 2]}, "cannot be used"), ({"method": "nosuch"}, "nosuch"),
    ({"stage": "nosuch"}, "cannot be used"), ({"options": {"depth": 8, "width": 10**9}}, "cannot be used"),
    ({"options": {"depth": -8}}, "depth"), ({"options": 3}, "cannot be used"), ({"about": None}, "which network"),
    ({"model": None}, "no weights"), ({"options": {"depth": 14}}, "do not fit"),
])  # fmt: skip
def test_what_a_file_says_of_itself_is_not_believed(
    ours: Path, tmp_path: Path, capsys: Any, changes: dict[str, Any], words: str
) -> None:
    state, about = read_weights(ours)
    file = {"format": FORMAT, "about": {**(about or {}), **changes}, "model": state}
    file |= {key: value for key, value in changes.items() if key in ("about", "model")}
    torch.save(file, ours)
    assert main(["export", str(ours), "--to", str(tmp_path / "new.pt")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "internal" not in line
    assert not (tmp_path / "new.pt").exists()
