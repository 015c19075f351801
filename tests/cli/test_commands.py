"""Every command as a user meets it: exit codes, what it prints, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.cli import main
from bench.cli.parser import COMMANDS
from bench.registry import method_class, method_names

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
name: tiny
data: {name: synthetic, val_size: 32, train_subset: 64, test_subset: 32}
recipe: {epochs: 1, batch_size: 32, lr: 0.05}
device: cpu
runs:
  - {name: resnet8, method: resnet, options: {depth: 8}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def _fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """The command ends with ``code`` and one line on stderr that is no traceback."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == code
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


def test_help_comes_before_torch() -> None:
    code = (
        "import sys, bench.cli\n"
        "try: bench.cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'matplotlib')))"
    )
    for arguments in (["--help"], ["run", "--help"], ["run", "none.yaml"], ["list", "methods"], ["list", "datasets"],
                      ["explain", str(ROOT / "configs/quickstart.yaml")],
                      ["run", str(ROOT / "configs/cifar10_resnet.yaml"), "--data-root", "nowhere"],
                      ["check", str(ROOT / "configs/quickstart.yaml"), "--config-only"]):  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.parametrize("module", COMMANDS, ids=lambda m: m.NAME)
def test_every_command_explains_itself(module: object, capsys: pytest.CaptureFixture[str]) -> None:
    name = module.NAME  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"bench {name}" in capsys.readouterr().out.split("examples:")[1]


@pytest.mark.parametrize("text", ["", "nonsense", "run", "run a.yaml --device tpu", "run a.yaml --seeds a,b",
                                  "run a.yaml --fresh --resume"])  # fmt: skip
def test_unusable_arguments_exit_with_2(text: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(text.split())
    assert stop.value.code == 2


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["list", "methods", "--options"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}:" in out for name in method_names())
    assert "depth:" in out
    assert main(["list", "models", "torchvision/*v3_"]) == 0
    assert capsys.readouterr().out.split() == ["torchvision/mobilenet_v3_large", "torchvision/mobilenet_v3_small"]
    assert "did you mean 'torchvision/resnet50'?" in _fails(capsys, 2, "list", "models", "torchvision/resnet55")
    assert main(["list", "datasets"]) == 0
    assert "fashion_mnist_mini" in capsys.readouterr().out
    assert main(["list", "configs"]) == 0
    assert "\nquickstart: " in capsys.readouterr().out
    assert main(["list", "configs", "--folder", str(ROOT / "configs")]) == 0
    assert "configs/quickstart.yaml: " in capsys.readouterr().out
    assert "no folder" in _fails(capsys, 2, "list", "configs", "--folder", "nowhere")


def test_explain_says_where_values_come_from(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(config), "--set", "recipe.lr=0.5", "--seeds", "3,4"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows["runs.resnet8.stages.train.lr"].endswith("command line")
    assert "0.5" in rows["runs.resnet8.stages.train.lr"]
    assert rows["runs.resnet8.stages.train.epochs"].endswith("tiny.yaml:3")
    assert rows["runs.resnet8.stages.train.momentum"].endswith("default")
    assert rows["seeds"].split()[1:3] == ["[3,", "4]"]


def test_check_finds_everything_before_training(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(config)]) == 0
    out = capsys.readouterr().out
    assert "64 train" in out
    assert "MACs" in out
    assert "MiB" in out
    assert "all good" in out
    assert "unknown data set" in _fails(capsys, 2, "check", config, "--set", "data.name=cifar11")
    assert "missing" in _fails(capsys, 2, "check", config, "--set", "data.name=cifar10", "--data-root", "nowhere")
    large = ["--set", "recipe.batch_size=65", "--set", "recipe.drop_last=true"]
    assert "batch" in _fails(capsys, 2, "check", config, *large)
    assert "no parameter is called" in _fails(
        capsys, 2, "check", config, "--set", "recipe.weight_decay_overrides={nothing: 0.0}")  # fmt: skip
    if not torch.cuda.is_available():
        assert "no CUDA" in _fails(capsys, 2, "check", config, "--device", "cuda")


def test_cost_writes_tables(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", str(config), "--units", "--csv", str(tmp_path / "costs")]) == 0
    out = capsys.readouterr().out
    assert "12.24 M" in out  # ResNet-8, shortcut A
    assert "layer3.0" in out
    assert (tmp_path / "costs" / "resnet8.csv").read_text().startswith("unit,")


def test_data_says_what_goes_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fashion_mnist_mini"]) == 0
    assert "2,000" in capsys.readouterr().out
    assert "unknown data set" in _fails(capsys, 2, "data", "cifar11")
    line = _fails(capsys, 1, "data", "imagenet", "--data-root", tmp_path)
    assert "train" in line


def test_import_makes_weights_that_a_run_can_name(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cls = method_class("resnet")
    arch = cls.archs()["cifar10_resnet20"]
    method = cls(arch.config, arch.data)
    torch.manual_seed(0)
    model = method.build(method.stages()[-1])
    published = tmp_path / "published.th"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}, "best": 1.0}, published)
    assert main(["import", "resnet", "cifar10_resnet20", str(published), "-o", str(tmp_path / "w.pt")]) == 0
    settings = ["--set", "runs.resnet8.options.depth=20", "--set", f"runs.resnet8.weights={tmp_path / 'w.pt'}",
                "--set", "runs.resnet8.evaluate_only=true", "--out", str(tmp_path / "out"), "--in-process"]  # fmt: skip
    assert main(["run", str(config), *settings]) == 0
    rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert len(rows) == 2

    assert main(["import", "resnet", "list"]) == 0
    assert "resnet50" in capsys.readouterr().out
    assert "did you mean 'resnet'" in _fails(capsys, 2, "import", "resnett", "x", published)
    assert "did you mean" in _fails(capsys, 2, "import", "resnet", "cifar10_resnet21", published)
    assert "no such file" in _fails(capsys, 2, "import", "resnet", "resnet50", tmp_path / "none")
    assert "do not fit" in _fails(capsys, 1, "import", "resnet", "cifar10_resnet32", published)
    assert "our own format" in _fails(capsys, 2, "import", "resnet", "cifar10_resnet20", tmp_path / "w.pt")


def test_report_needs_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no results" in _fails(capsys, 2, "report", tmp_path)


def test_schema_is_json(tmp_path: Path) -> None:
    assert main(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert "Recipe" in json.loads((tmp_path / "s.json").read_text())["$defs"]


def test_a_pipe_that_closes_is_no_error() -> None:
    command = f"{sys.executable} -m bench list methods --options | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_mistakes_of_ours_are_one_line_too(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.cli.explain.load", lambda options: 1 / 0)
    monkeypatch.delenv("BENCH_TRACEBACK", raising=False)
    line = _fails(capsys, 1, "explain", config)
    assert "internal: ZeroDivisionError" in line
    assert "test_commands.py" in line
