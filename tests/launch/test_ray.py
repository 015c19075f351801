"""The runs of a comparison side by side on a Ray cluster: the same results, and the same care, as one after another."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from quick import bench, fingerprints, quick_run, statuses, write_quick, write_useless_weights

from bench.train.checkpoint import read_weights

pytest.importorskip("ray")
SMALL = {"method": "resnet", "options": {"depth": 8}}


def _without_weights(out: Path) -> dict[str, str]:
    return {path: digest for path, digest in fingerprints(out).items() if not path.startswith("stages")}


def _weights(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    """By stage. Their files also say which run trained them, and of two that share a stage either may."""
    return {path.parent.name: read_weights(path)[0] for path in out.glob("stages/*/weights-*.pt")}


def test_side_by_side_is_as_one_after_another(tmp_path: Path) -> None:
    """Two runs share a stage, one fails; weights, records and tables are those of a plain ``bench run``."""
    both = quick_run("skipnet")
    only = {**both, "name": "supervised", "options": {**both["options"], "hrl": False}, "stages": {"sp": {"epochs": 2}}}
    write_useless_weights(tmp_path / "weights.pt")
    broken = {**SMALL, "name": "broken", "weights": "weights.pt", "evaluate_only": True}
    config = write_quick(tmp_path, [both, only, broken, {**SMALL, "name": "plain"}])
    spread, plain = tmp_path / "spread", tmp_path / "plain"
    done = bench("run", config, "--out", spread, "--ray", "local", RAY_ADDRESS="")
    assert done.returncode == 1, done.stderr
    assert bench("run", config, "--out", plain).returncode == 1
    wanted = {"skipnet": "done", "supervised": "done", "broken": "failed", "plain": "done"}
    for out in (spread, plain):
        assert {name: status["status"] for name, status in statuses(out).items()} == wanted
    assert "not finite" in statuses(spread)["broken"]["reason"]
    assert _without_weights(spread) == _without_weights(plain)
    ours, theirs = _weights(spread), _weights(plain)
    assert len(ours) == 3  # the shared stage once
    assert ours.keys() == theirs.keys()
    for key, state in ours.items():
        assert state.keys() == theirs[key].keys()
        assert all(torch.equal(value, theirs[key][name]) for name, value in state.items())
    assert "Traceback" not in done.stderr

    # Nothing is missing: no cluster is needed to say so.
    again = bench("run", config, "--out", spread, "--ray", "nowhere.invalid:6379")
    assert again.returncode == 1
    assert "already done" in again.stderr


def test_an_interrupt_reaches_the_runs_and_they_go_on_later(tmp_path: Path) -> None:
    runs = [{**SMALL, "name": name, "recipe": {"epochs": epochs}} for name, epochs in (("a", 30), ("b", 31))]
    config = write_quick(tmp_path, runs, recipe={"checkpoint_every": 3})
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", str(config), "--out", str(out), "--ray", "local", "--no-report"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while not list(out.glob("stages/*/checkpoint-*.pt")):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(str(process.communicate()))
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, error
    assert "Traceback" not in error
    assert {status["status"] for status in statuses(out).values()} <= {"interrupted", "pending"}
    assert "interrupted" in {status["status"] for status in statuses(out).values()}
    # what no cluster did, this machine does: the folder is the same
    short = bench("run", config, "--out", out, "--only", "a")
    assert short.returncode == 0, short.stderr
    assert "epoch 1/30" not in short.stderr or statuses(out)["b"]["status"] == "interrupted"


@pytest.mark.parametrize(("arguments", "message"), [
    (("--ray", "nowhere.invalid:6379"), "no Ray cluster at nowhere.invalid:6379"),
    (("--ray", "local", "--in-process"), "not allowed with"),
])  # fmt: skip
def test_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    config = write_quick(tmp_path, [{**SMALL, "name": "plain"}])
    done = bench("run", config, "--out", tmp_path / "out", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
