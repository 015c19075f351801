"""Ctrl-C and kills at named points: one line, no traceback, nobody left behind, nothing lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from quick import bench, fingerprints, killed, statuses, write_quick, write_useless_weights
from strike import INTERRUPT, INTERRUPT_ALL, KILL_PARENT, arm, hits

from bench.config.load import load_config
from bench.config.resolve import resolve
from bench.evaluate.results import read_results
from bench.launch.session import Session
from bench.launch.whole import find_whole
from bench.locks import ABANDONED, LOCK, locked
from bench.train.watch import Watch

SMALL = {"name": "fine", "method": "resnet", "options": {"depth": 8}}
STOPPED = "stopped; the same command continues"


def _group(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process group of its own; returns when every process that has its streams is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, **environment},
    )  # fmt: skip
    out, error = process.communicate(timeout=240)
    return subprocess.CompletedProcess(command, process.returncode, out, error)


@pytest.mark.parametrize(("module", "times"), [("bench.cli.parser", 1), ("pydantic", 2), ("bench.launch.session", 1)])
def test_an_interrupt_during_start_up_is_one_line(tmp_path: Path, module: str, times: int) -> None:
    config = write_quick(tmp_path, [SMALL])
    environment = arm(tmp_path, "parent", module, "\n".join([INTERRUPT] * times))
    done = _group("bench", "run", config, "--out", tmp_path / "out", **environment)
    assert hits(tmp_path) == 1
    assert (done.returncode, done.stderr, done.stdout) == (130, STOPPED + "\n", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["bench.launch.run_one", "torch"])
def test_an_interrupt_while_the_run_starts(tmp_path: Path, module: str) -> None:
    """From a terminal it reaches both processes; the run's ignores it and is told by its parent."""
    config = write_quick(tmp_path, [SMALL])
    environment = arm(tmp_path, "child", module, INTERRUPT_ALL)
    done = _group("bench", "run", config, "--out", tmp_path / "out", "--no-report", **environment)
    assert hits(tmp_path) == 1
    assert done.returncode == 130
    lines = done.stderr.splitlines()
    assert lines[-1] == STOPPED
    assert lines[-2] in ("[1/1] fine seed 0  not begun", "[1/1] fine seed 0  interrupted: stopped by SIGINT")
    assert len(lines) == 3
    assert statuses(tmp_path / "out")["fine"]["status"] in ("pending", "interrupted")


def test_an_interrupt_while_the_report_is_drawn(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [SMALL])
    environment = arm(tmp_path, "parent", "bench.report.draw", INTERRUPT)
    done = _group("bench", "run", config, "--out", tmp_path / "out", "--quiet", **environment)
    assert (done.returncode, done.stderr) == (130, STOPPED + "\n")
    assert statuses(tmp_path / "out")["fine"]["status"] == "done"


def test_a_run_whose_parent_is_killed_while_it_imports_dies(tmp_path: Path) -> None:
    """Orphans trained to the end and held the lock. ``communicate`` returns when nobody has the streams any more."""
    config = write_quick(tmp_path, [SMALL])
    out = tmp_path / "out"
    environment = arm(tmp_path, "child", "torch", KILL_PARENT)
    done = _group("bench", "run", config, "--out", out, "--no-report", **environment)
    assert (hits(tmp_path), done.returncode) == (1, -signal.SIGKILL)
    assert not (tmp_path / "mark").exists(), "it outlived its parent"
    assert statuses(out)["fine"]["status"] == "pending"
    assert bench("run", config, "--out", out, "--eval-only").returncode == 1  # the folder is free


def test_a_parent_that_died_before_the_run_asked(tmp_path: Path) -> None:
    """Its number is passed in: a process that was adopted at once cannot know otherwise."""
    done = subprocess.run([sys.executable, "-m", "bench.launch.worker", str(tmp_path), "--parent", "1"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def test_a_rank_dies_with_its_torchrun(tmp_path: Path) -> None:
    """torchrun's part is played by a shell of Python: only that it is the parent matters."""
    environment = arm(tmp_path, "parent", "pydantic", KILL_PARENT)
    start = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'bench', 'list', 'methods'])"
    process = subprocess.Popen(
        [sys.executable, "-c", start], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment, "TORCHELASTIC_RUN_ID": "none"},
    )  # fmt: skip
    out, error = process.communicate(timeout=120)
    assert (hits(tmp_path), process.returncode) == (1, -signal.SIGKILL)
    assert (out, error) == ("", "")
    assert not (tmp_path / "mark").exists(), "it outlived its parent"


def test_a_run_that_has_no_memory_to_begin_is_one_line(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [SMALL])
    action = "raise ImportError('libtorch_cpu.so: failed to map segment from shared object')"
    environment = arm(tmp_path, "child", "torch", action)
    done = _group("bench", "run", config, "--out", tmp_path / "out", "--no-report", **environment)
    assert done.returncode == 1
    reason = "out of memory: libtorch_cpu.so: failed to map segment from shared object"
    assert done.stderr.splitlines()[1:] == [f"[1/1] fine seed 0  failed: {reason}"]


def test_after_a_kill_the_table_does_not_say_running(tmp_path: Path) -> None:
    """Nothing runs if nobody holds the folder, whatever a status says; who takes the folder corrects it."""
    runs = [SMALL, {**SMALL, "name": "other", "weights": "weights.pt", "evaluate_only": True}]
    write_useless_weights(tmp_path / "weights.pt")
    config = write_quick(tmp_path, runs)
    out = tmp_path / "out"
    assert killed("step", 7, "run", config, "--out", out, "--quiet") == -signal.SIGKILL
    assert statuses(out)["fine"]["status"] == "running"
    read = {run.run: (run.status, run.reason) for run in read_results(out).runs}
    assert read["fine"] == ("interrupted", ABANDONED)
    with locked(out / LOCK, lambda holder: pytest.fail(holder)):  # somebody runs
        assert read_results(out).runs[0].status == "running"
    assert bench("run", config, "--out", out, "--only", "other").returncode == 1
    assert statuses(out)["fine"]["status"] == "interrupted"
    assert statuses(out)["fine"]["reason"] == ABANDONED


@pytest.mark.parametrize(("code", "why", "status"), [
    (-9, "", "interrupted"), (None, "the cluster lost it (NodeDiedError)", "interrupted"),
    (1, "could not be started on its node: OSError", "failed"), (1, "", "failed"),
])  # fmt: skip
def test_what_a_cluster_kills_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, why: str, status: str
) -> None:
    class Killing:
        def run(self, folders: Any, watch: Watch, ended: Any) -> None:
            for folder in folders:
                folder.set_status("running")
                ended(folder, code, why)

    monkeypatch.setattr("bench.launch.cluster.join", lambda address, quiet: nullcontext(Killing()))
    loaded = load_config(write_quick(tmp_path, [SMALL]))
    session = Session(tmp_path / "out", ray="auto", report=False, quiet=True)
    specs = resolve(loaded)
    assert list(session.run(specs, find_whole(loaded, specs, session.out)).statuses.values()) == [status]


# ---- all moments ----------------------------------------------------------------------------------------
def _pause(out: Path, rng: random.Random) -> str:
    """Wait for a random moment of a random phase."""
    phase = rng.choice(["start-up", "training", "record", "report"])
    signs = {"training": "stages/*/metrics.jsonl", "record": "stages/*/stage.json", "report": "results.csv"}
    deadline = time.monotonic() + 60
    while phase in signs and not list(out.glob(signs[phase])) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.05, 5.0) if phase == "start-up" else rng.uniform(0, 1.5))
    return phase


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(50))
def test_any_moment(tmp_path: Path, trial: int, peace: dict[str, str]) -> None:
    """Ctrl-C once and twice, SIGKILL of parent or child: no traceback, no orphan, the same bytes afterwards."""
    rng = random.Random(trial)
    config = write_quick(tmp_path, [SMALL])
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", str(config), "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    phase = _pause(out, rng)
    how = rng.choice(["interrupt", "interrupt", "kill parent", "kill child"])
    try:
        if how == "kill parent":
            process.kill()
        elif how == "kill child":
            for child in _children(process.pid):
                os.kill(child, signal.SIGKILL)
        else:
            for _ in range(rng.choice([1, 2])):
                os.killpg(process.pid, signal.SIGINT)
                time.sleep(rng.choice([0.01, 0.3, 1.2]))
    except ProcessLookupError:
        pass
    printed, error = process.communicate(timeout=120)  # returns when nobody has its streams any more
    print(trial, phase, how, process.returncode)
    assert "Traceback" not in printed + error, (phase, how, error)
    assert process.returncode in {"interrupt": (0, 130), "kill parent": (0, -9), "kill child": (0, 1)}[how]
    again = bench("run+report", config, "--out", out, "--quiet", "--retry", "failed")
    assert again.returncode == 0, again.stderr
    assert fingerprints(out) == peace


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("peace")
    assert bench("run+report", write_quick(folder, [SMALL]), "--out", folder / "out").returncode == 0
    return fingerprints(folder / "out")
