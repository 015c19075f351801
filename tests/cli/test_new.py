"""What `bench new` writes works as soon as it is installed, and overwrites nothing."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from plugin import make_package, on_path

from bench.cli import main
from bench.data.catalog import dataset_info
from bench.evaluate.columns import read_rows
from bench.evaluate.policies import policy_class
from bench.registry import method_class
from bench.scaffold import KINDS
from bench.track import tracker_class

FINDS = {"method": method_class, "policy": policy_class, "dataset": dataset_info, "tracker": tracker_class}
FILES = {"README.md", "src", "src/my_own.py", "my_own.yaml", "pyproject.toml", "test_my_own.py"}


@contextmanager
def _installed(folder: Path, name: str) -> Iterator[None]:
    """As `pip install -e` leaves it: src on the path, behind the folder we stand in, and the entry points of its
    pyproject.toml. Its tests can be imported too."""
    text = (folder / "pyproject.toml").read_text()
    group, key, value = re.findall(r'^\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "([\w:]+)"$', text, flags=re.M)[0]
    assert key == name
    with on_path(Path.cwd(), make_package(folder / "src", name, {group: {key: value}}), folder):
        yield


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _own_tests(folder: Path, tmp_path: Path) -> int:
    """Run the tests of the package; returns how many there are."""
    module = importlib.import_module(f"test_{folder.name}")
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    for test in tests:
        test(*([tmp_path / "own"] if inspect.signature(test).parameters else []))
    return len(tests)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_found_and_its_test_passes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", kind, "my_own"]) == 0
    folder = tmp_path / "my_own"
    assert _files(folder) == FILES
    assert len((folder / "README.md").read_text().splitlines()) == 5
    said = capsys.readouterr().out.splitlines()
    assert said[:-1] == [f"my_own/{name}" for name in ("pyproject.toml", "README.md", "src/my_own.py",
                                                       "test_my_own.py", "my_own.yaml")]  # fmt: skip
    with _installed(folder, "my_own"):
        assert FINDS[kind]("my_own").name if kind != "method" else method_class("my_own")
        assert main(["list", {"policy": "policies"}.get(kind, f"{kind}s")]) == 0
        assert re.search(r"^my_own: (?!.*\(my_own:).*$", capsys.readouterr().out, flags=re.M), "no error in its place"
        assert _own_tests(folder, tmp_path) == 1
        assert main(["check", "my_own/my_own.yaml"]) == 0


def test_a_method_passes_bench_test_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "code"
    assert main(["new", "method", "no", "--to", str(folder)]) == 0  # which YAML would read as false
    with _installed(folder, "no"):
        assert main(["test", "no"]) == 0
        assert capsys.readouterr().out.endswith("no: all good\n")
        run = ["run", str(folder / "no.yaml"), "--out", str(tmp_path / "out"), "--in-process", "--quiet", "--no-report"]
        assert main(run) == 0
    (rows,) = (tmp_path / "out").glob("runs/*/rows.csv")
    assert {row["policy"] for row in read_rows(rows)} >= {"anytime", "budgeted", "confidence", "oracle"}


@pytest.mark.parametrize(("kind", "name", "words"), [
    ("method", "3d", "'3d' cannot be the name of a Python module"),
    ("method", "my-net", "'my-net' cannot be the name of a Python module"),
    ("method", "_net", "a letter first"),
    ("method", "class", "'class' cannot be the name of a Python module"),
    ("method", "größe", "cannot be the name of a Python module"),
    ("method", "../x", "cannot be the name of a Python module"),
    ("method", "resnet", "there is a method 'resnet' already; take another name"),
    ("policy", "budgeted", "there is a policy 'budgeted' already"),
    ("dataset", "cifar10", "there is a data set 'cifar10' already"),
    ("tracker", "mlflow", "there is a tracker 'mlflow' already"),
    ("method", "json", "'json' is taken by a Python module or class"),
    ("dataset", "bench", "'bench' is taken by a Python module or class"),
    ("tracker", "tracker", "'tracker' is taken by a Python module or class"),
])  # fmt: skip
def test_a_name_that_cannot_be_is_one_line(
    kind: str, name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["new", kind, name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["file", "folder", "link", "blocked"])
def test_nothing_is_overwritten(there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "there"
    if there == "folder":
        folder.mkdir()
        (folder / "README.md").write_text("mine")
    elif there == "link":
        folder.symlink_to(tmp_path / "nowhere")
    else:
        folder.write_text("mine")
    target = folder / "below" if there == "blocked" else folder
    assert main(["new", "policy", "my_own", "--to", str(target)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(target) in line
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert there == "link" or "mine" in (folder / "README.md" if there == "folder" else folder).read_text()


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    assert main(["new", "policy", "my_own", "--to", str(tmp_path)]) == 0
    assert _files(tmp_path) == FILES
