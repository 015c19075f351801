"""What the pages for users say is true: their code runs, their files exist, their commands parse."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml

from bench.cli import build_parser
from bench.config.schema import Comparison, Recipe
from bench.cost.units import count_units
from bench.method import Batch, DataSpec

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readmes_commands_and_file_are_real() -> None:
    text = (ROOT / "README.md").read_text()
    for line in re.findall(r"^bench (.+?)(?:\s{2,}#.*)?$", text, flags=re.M):
        build_parser().parse_args(line.split(" | ")[0].split())
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    assert len(Comparison.model_validate(yaml.safe_load(block.replace("5e-4", "5.0e-4"))).runs) == 3


def test_the_example_method_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class of docs/adding-a-method.md: trains, records, executes what it recorded, costs are counted."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/adding-a-method.md").read_text(), flags=re.S)
    package = types.ModuleType("my_methods")
    monkeypatch.setitem(sys.modules, "my_methods", package)
    for name, code in zip(("config", "method"), blocks, strict=True):
        module = types.ModuleType(f"my_methods.{name}")
        monkeypatch.setitem(sys.modules, f"my_methods.{name}", module)
        exec(compile(code, f"my_methods/{name}.py", "exec"), module.__dict__)
    method = module.TwoExits(module.TwoExitsConfig.small(), DataSpec("synthetic", 10, 32))
    stage = method.stages()[0].resolve(Recipe())
    model = method.build(stage)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    method.loss(model, Batch(images, labels, labels, images), stage)["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    cost = count_units(method, model)
    assert int(cost.columns["params"].sum()) == sum(p.numel() for p in model.parameters())
    decisions = method.record(model, images)
    for index, point in enumerate(method.points(model)):
        executed = method.execute(model, images, point)
        assert torch.allclose(executed.logits, decisions.logits[index], atol=1e-6)
        assert torch.equal(executed.counts, decisions.counts[index].expand(4, -1))


def test_the_harness_names_no_method() -> None:
    for path in (ROOT / "bench").rglob("*.py"):
        found = re.search(r"\b(adn|skipnet|msdnet|imta)\b", path.read_text(), flags=re.I)
        assert found is None, f"{path.name}: {found}"


def test_no_machine_paths() -> None:
    pattern = re.compile(r"/(home|work|root|Users)/[a-z]")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.yaml"),
                 *(ROOT / "bench").rglob("*.py"), *(ROOT / "results").rglob("*.csv")]:  # fmt: skip
        assert pattern.search(path.read_text()) is None, path
