"""What the pages for users say is true: every block of code is run, every command parsed, every link followed."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from torch import nn

import bench.api
from baselines.weights import CIFAR10
from bench.cli import main
from bench.cli.parser import COMMANDS, build_parser
from bench.config.load import Loaded, load_config
from bench.config.resolve import resolve
from bench.cost import opaque, rules
from bench.doors import DATASETS, POLICIES, TRACKERS
from bench.launch.preflight import plan_runs
from bench.launch.session import Outcome, Session
from bench.launch.whole import find_whole
from bench.registry import METHODS, method_class
from bench.report import style

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "methods").glob("*/card.md")),
         ROOT / "baselines/card.md", ROOT / "results/README.md"]  # fmt: skip
#: The smallest of the kept results: what pages call results/quickstart, results/A, ...
KEPT = ROOT / "results/reference/cifar10_resnet_cpu"

#: What is parsed but not run, and why.
NOT_RUN = {
    "bench run": "trains for minutes to weeks",
    "bench check": "needs the data; it is run in tests/cli and tests/launch",
    "bench latency": "needs trained weights; it is run in tests/launch/test_latency.py",
    "bench import": "needs published weights; it is run in tests/cli/test_weights.py",
    "bench export": "needs trained weights; it is run in tests/cli/test_export.py",
    "bench data": "fetches a data set",
    "bench ablate": "trains, unless it has --dry-run",
    "torchrun": "starts several processes; they are run in tests/launch/test_distributed.py",
    "make": "makes an environment",
    "python": "is a script of this repository, which is there",
    "pytest": "is a part of this suite",
    "pip": "installs packages",
    "architecture.md": "its block without a language is a diagram",
}


class Block(NamedTuple):
    page: Path
    language: str
    text: str


def blocks(*languages: str) -> list[Any]:
    """Every block of code of these languages on all pages, as parameters of a test."""
    found = []
    for page in PAGES:
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.S | re.M)
        assert page.read_text().count("\n```") == 2 * len(fenced), f"{page}: a block is not closed"
        for number, (language, text) in enumerate(fenced):
            if language in languages:
                name = f"{page.parent.name}/{page.name}"
                found.append(pytest.param(Block(page, language, text), id=f"{name}-{number}"))
    return found


def test_every_block_has_a_language_that_is_tested() -> None:
    for page in PAGES:
        languages = set(re.findall(r"^```(\w+)$", page.read_text(), flags=re.M))
        assert languages <= {"python", "yaml", "toml"}, page


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


# ---- Python -----------------------------------------------------------------------------------------
class StraightThrough(torch.autograd.Function):
    """A stand-in of docs/cost-policy.md."""


class HardSigmoid3(torch.autograd.Function):
    """A stand-in of docs/cost-policy.md."""


class MyNorm(nn.Module):
    """A stand-in of docs/cost-policy.md."""


def _published() -> dict[str, Any]:
    cls = method_class("resnet")
    method = cls(cls.Config(depth=20), CIFAR10)
    state = method.export_weights(method.build(method.stages()[-1]))
    return {"state_dict": state, "images": torch.randn(2, 3, 32, 32)}


#: Names that a page's code takes for granted.
GIVEN: dict[str, Any] = {
    "README.md": _published,
    "cost-policy.md": lambda: {"StraightThrough": StraightThrough, "HardSigmoid3": HardSigmoid3, "MyNorm": MyNorm},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder such as a user's: the shipped configurations, results, a comparison file; registries are put back."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("quickstart", "name", "A", "B"):
        shutil.copytree(KEPT, tmp_path / "results" / name)
    (tmp_path / "FILE").write_text(
        "name: stand_in\ndata: {name: synthetic, val_size: 32, train_subset: 64, test_subset: 32}\ndevice: cpu\n"
        "recipe: {epochs: 1, batch_size: 32}\nruns: [{name: r, method: resnet, options: {depth: 8}}]\n"
        "ablation: {axes: {lr: {key: recipe.lr, values: [0.1, 0.3]}}}\n"
    )
    (tmp_path / "file.yaml").write_text((tmp_path / "FILE").read_text().partition("ablation")[0])
    monkeypatch.setattr(style, "FORMATS", ("svg",))  # one of three: figures are what takes the time
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    tables = [table for module in (rules, opaque) for table in vars(module).values() if type(table) is dict]
    before = [dict(table) for table in tables]
    yield tmp_path
    for table, content in zip(tables, before):
        table.clear()
        table.update(content)
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def _run_page(page: Path, folder: Path) -> dict[str, Any]:
    """Run a page's Python blocks in order; one that begins with `# folder/file.py` is that file, and is imported."""
    names: dict[str, Any] = GIVEN.get(page.name, dict)()
    for block in (parameter.values[0] for parameter in blocks("python") if parameter.values[0].page == page):
        file = re.match(r"# (\w[\w/]*\.py)\n", block.text)
        if file is None:
            exec(compile(block.text, f"{page.name}", "exec"), names)
            continue
        path = folder / file[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        importlib.invalidate_caches()
        names[path.stem] = importlib.import_module(file[1].removesuffix(".py").replace("/", "."))
    return names


WITH_PYTHON = sorted({parameter.values[0].page for parameter in blocks("python")})


def _quick_run(config: Loaded, **_: Any) -> Outcome:
    """As bench.run, without a process and a report of its own: bench.report is the page's next line."""
    specs, out = plan_runs(config), Path("results") / config.comparison.name
    session = Session(out, isolate=False, quiet=True, report=False)
    return session.run(specs, find_whole(config, specs, out))


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda p: p.name)
def test_python_runs(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.api, "run", _quick_run)
    (project / "results/name/report.html").unlink()
    names = _run_page(page, project)
    if page.name == "README.md":
        assert list(project.glob("results/stand_in/runs/*/rows.csv"))
        assert (project / "results/name/report.html").is_file()
        assert names["decisions"].logits.shape == (1, 2, 10)


# ---- commands ---------------------------------------------------------------------------------------
def _lines() -> list[Any]:
    found = []
    for parameter in blocks(""):
        block = parameter.values[0]
        for line in block.text.splitlines():
            if line.strip() and block.page.name not in NOT_RUN and not line.startswith("error: "):  # what is printed
                found.append(pytest.param(line, id=f"{block.page.name}: {line[:50].strip()}"))
    return found


def _executed(words: list[str]) -> bool:
    return words[0] == "bench" and (f"bench {words[1]}" not in NOT_RUN or "--dry-run" in words)


@pytest.mark.parametrize("line", _lines())
def test_commands_parse_and_the_quick_ones_run(line: str, project: Path) -> None:
    words = shlex.split(line, comments=True)
    if words[:1] == ["torchrun"]:
        words = ["bench", *words[words.index("bench") + 1 :]]
    if words[0] != "bench":
        assert words[0] in NOT_RUN
        assert words[0] != "make" or f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        return
    build_parser().parse_args(words[1:])
    if _executed(words):
        assert main(words[1:]) == 0


@pytest.mark.parametrize("module", COMMANDS, ids=lambda m: m.NAME)
def test_examples_of_the_help_parse(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for example in module.EXAMPLES:
        words = shlex.split(re.split(r" [|>] ", example)[0], comments=True)
        build_parser().parse_args(words[words.index("bench") + 1 :])
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([module.NAME, "--help"])
    assert stop.value.code == 0
    assert all(example in capsys.readouterr().out for example in module.EXAMPLES[:1])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_commands_in_sentences_are_real(page: Path) -> None:
    """`bench COMMAND --OPTION` names what there is; with arguments it is a whole command line. Scripts are there."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for span in re.findall(r"`([^`]+)`", prose):
        words = span.split()
        if words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), span
        elif words[0] == "bench" and any(not word.startswith("-") for word in words[2:]):
            build_parser().parse_args(words[1:])
        elif words[0] == "bench" and len(words) > 1:
            (command,) = [command for command in COMMANDS if words[1] == command.NAME]
            parser = argparse.ArgumentParser()
            command.add_arguments(parser)
            assert all(f"{option} " in f"{parser.format_help()} ".replace("\n", " ") for option in words[2:]), span


# ---- YAML and TOML ----------------------------------------------------------------------------------
@pytest.mark.parametrize("block", blocks("yaml"))
def test_comparisons_load(block: Block, project: Path) -> None:
    """A whole file as it is; a part of one with what it leaves out."""
    given = yaml.safe_load(block.text)
    rest = {"name": "rest", "data": {"name": "cifar10"},
            "runs": [{"name": "resnet20", "method": "resnet", "options": {"depth": 20}}]}  # fmt: skip
    missing = {key: value for key, value in rest.items() if key not in given}
    path = project / "page.yaml"
    path.write_text(f"{block.text}\n{yaml.safe_dump(missing) if missing else ''}")
    for run in given.get("runs", []):
        if "weights" in run:
            (project / run["weights"]).touch()
    names = {run["name"] for run in given.get("runs", rest["runs"])}
    assert names <= {spec.run for spec in resolve(load_config(path))}


@pytest.mark.parametrize("block", blocks("toml"))
def test_entry_points_name_our_groups(block: Block) -> None:
    tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    assert set(groups) <= {METHODS, POLICIES, DATASETS, TRACKERS}


# ---- and what is not code ---------------------------------------------------------------------------
#: Extras that bring dozens of packages: their tests are skipped where they are not installed.
LARGE = {"wandb", "mlflow"}


def test_extras_are_what_the_code_needs() -> None:
    tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"dev", "onnx", "ray", "svhn", "tensorboard", *LARGE} <= set(extras)
    names = {extra: {re.split(r"[<>=;\[ ]", entry)[0] for entry in entries} for extra, entries in extras.items()}
    assert names["onnx"] == {"onnx", "onnxscript"}
    code = [path for room in ("bench", "baselines", "methods") for path in (ROOT / room).rglob("*.py")]
    for extra in set(extras) - {"dev"}:
        assert extra in LARGE or names[extra] <= names["dev"], f"the tests do not have what {extra} needs"
        for package in names[extra]:
            used = any(re.search(rf"\b{package}\b", path.read_text()) for path in code)
            assert used, f"the extra {extra} brings {package}, which nothing uses"


def test_the_harness_names_no_method() -> None:
    for path in (ROOT / "bench").rglob("*.py"):
        found = re.search(r"\b(adn|skipnet|msdnet|imta)\b", path.read_text(), flags=re.I)
        assert found is None, f"{path.name}: {found}"


def test_no_machine_paths() -> None:
    pattern = re.compile(r"/(home|work|root|Users)/[a-z]")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.yaml"),
                 *(ROOT / "bench").rglob("*.py"), *(ROOT / "results").rglob("*.csv")]:  # fmt: skip
        assert pattern.search(path.read_text()) is None, path
