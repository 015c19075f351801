"""The methods of docs/adding-a-method.md are as short as it says, pass the checks and run in a comparison."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin import make_package, on_path
from quick import R8, write_quick

from bench.cli import main
from bench.config.load import load_config
from bench.evaluate.columns import read_rows
from bench.launch.preflight import plan_runs
from bench.launch.run_one import execute_run

PAGE = (Path(__file__).resolve().parents[2] / "docs/adding-a-method.md").read_text()
CODE = dict(re.findall(r"^```python\n# my_methods/(\w+)\.py\n(.*?)^```", PAGE, flags=re.S | re.M))
CLASSES = {"plain": "Plain", "three_exits": "ThreeExits"}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    entries = {"bench.methods": {name: f"page_{name}:{cls}" for name, cls in CLASSES.items()}}
    modules = {f"page_{name}": CODE[name] for name in CLASSES}
    with on_path(make_package(tmp_path / "page", "page", entries, **modules)):
        yield


@pytest.mark.parametrize(("name", "most"), [("plain", 10), ("three_exits", 30)])
def test_it_is_short(name: str, most: int) -> None:
    assert len(CODE[name].splitlines()) <= most


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", CLASSES)
def test_it_passes_bench_test(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", name]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.endswith(f"{name}: all good\n")


@pytest.mark.usefixtures("installed")
def test_they_run_in_a_comparison(tmp_path: Path) -> None:
    runs = [R8, *({"name": name, "method": name} for name in CLASSES)]
    specs = plan_runs(load_config(write_quick(tmp_path, runs)))
    found = {}
    for spec in specs[1:]:
        assert execute_run(spec, tmp_path / "out", quiet=True)["status"] == "done"
        (folder,) = (tmp_path / "out/runs").glob(f"{spec.run}-*")
        found[spec.run] = {row["policy"] for row in read_rows(folder / "rows.csv")}
    assert found["plain"] == {"fixed"}
    assert found["three_exits"] >= {"anytime", "budgeted", "confidence", "oracle"}
