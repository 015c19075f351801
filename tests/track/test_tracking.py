"""What a run tells its trackers: each step once, however often it is stopped, and nothing that is another run's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin import forget, make_package
from quick import R8, fingerprints, write_quick

from bench.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs/adding-a-tracker.md").read_text()
JOURNAL = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)[0]


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tracker of the page, for this process and those that it starts."""
    entry = {"bench.trackers": {"journal": "journal:Journal"}}
    site = make_package(tmp_path / "site", "my_trackers", entry, journal=JOURNAL)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
    monkeypatch.syspath_prepend(str(site))
    forget()
    yield
    sys.modules.pop("journal", None)
    monkeypatch.undo()
    forget()


def _run(config: Path, out: Path, *more: str, dies_at: int | None = None) -> int:
    """`bench run` in this process. dies_at: the step of this session, by all its stages, that raises instead."""
    steps, step = 0, torch.optim.SGD.step

    def dying(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == dies_at:
            raise RuntimeError("no further")
        return step(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", dying)
        quietly = ("--retry", "failed", "--in-process", "--quiet", "--no-report")
        return main(["run", str(config), "--out", str(out), *quietly, *more])


def _journals(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Run -> what its tracker was told, in order."""
    paths = out.glob("trackers/journal/*.jsonl")
    return {path.name.split("-seed")[0]: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}


def _epochs(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in lines if "step" in line]


def _curve(out: Path, run: str) -> list[dict[str, Any]]:
    (path,) = out.glob(f"runs/{run}-seed*/metrics.jsonl")
    return _epochs([json.loads(line) for line in path.read_text().splitlines()])


def test_no_step_is_told_twice(tmp_path: Path) -> None:
    """Epochs of 6 steps, a checkpoint every 5: the end of an epoch is reached again after each of these failures."""
    out = tmp_path / "out"
    config = write_quick(tmp_path, [R8], trackers=["journal"], recipe={"epochs": 3})
    for number in (8, 8, 3):
        assert _run(config, out, dies_at=number) == 1
    assert _run(config, out) == 0
    told = _journals(out)["r8"]
    assert _epochs(told) == _curve(out, "r8")
    assert sum("config" in line for line in told) == 1
    assert [line["status"] for line in told if "status" in line] == ["failed", "failed", "failed", "done"]
    assert sum("policy" in line for line in told) == 1


def test_beginning_anew_is_another_training(tmp_path: Path) -> None:
    out, config = tmp_path / "out", write_quick(tmp_path, [R8], trackers=["journal"])
    keys = []
    for more in ((), ("--fresh",)):
        assert _run(config, out, *more) == 0
        (state,) = out.glob("runs/*/trackers.json")
        keys.append(json.loads(state.read_text())["key"])
    assert keys[0] != keys[1]
    told = _journals(out)["r8"]
    assert _epochs(told) == _curve(out, "r8")
    assert sum("config" in line for line in told) == 1


def test_a_stage_that_another_run_has_trained_is_told_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = write_quick(tmp_path, [R8, {**R8, "name": "again"}], trackers=["journal"])
    assert _run(config, out) == 0
    told = _journals(out)
    assert len(list(out.glob("stages/*/stage.json"))) == 1
    assert _epochs(told["again"]) == _epochs(told["r8"]) == _curve(out, "again")


def test_one_that_is_named_later_hears_what_it_missed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = {"epochs": 3, "checkpoint_every": 6}
    assert _run(write_quick(tmp_path, [R8], recipe=recipe), out, dies_at=14) == 1
    assert not (out / "trackers").exists()
    config = write_quick(tmp_path, [R8], recipe=recipe, trackers=["journal"])
    assert _run(config, out) == 0
    told = _epochs(_journals(out)["r8"])
    assert told == _curve(out, "r8")
    assert all(one["step"] < two["step"] for one, two in pairwise(told))


def test_a_state_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    out, config = tmp_path / "out", write_quick(tmp_path, [R8], trackers=["journal"])
    assert _run(config, out, dies_at=8) == 1
    (state,) = out.glob("runs/*/trackers.json")
    state.write_text('{"key": "abc", "told": {"journal": {"train": "6"}}, "rows": {}}')
    assert _run(config, out) == 0
    assert json.loads(state.read_text())["key"] != "abc"
    assert _epochs(_journals(out)["r8"]) == _curve(out, "r8")


def test_a_tracker_changes_no_result(tmp_path: Path) -> None:
    found = []
    for name, more in (("with", {"trackers": ["journal"]}), ("without", {})):
        config = write_quick(tmp_path, [R8], **more)
        assert _run(config, tmp_path / name) == 0
        found.append(fingerprints(tmp_path / name))
    assert found[0] == found[1]


@pytest.mark.slow
def test_of_two_processes_the_first_one_tells(tmp_path: Path) -> None:
    out, config = tmp_path / "out", write_quick(tmp_path, [R8], trackers=["journal"])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, "-m", "bench", "run", str(config), "--out", str(out), "--no-report"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = _journals(out)["r8"]
    assert _epochs(told) == _curve(out, "r8")
    assert sum("config" in line for line in told) == sum("status" in line for line in told) == 1
