"""Several processes through torchrun, on the CPU with gloo: the same gradients, the same images, one writer."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import HERE, bench, write_quick

SMALL = {"name": "fine", "method": "resnet", "options": {"depth": 8}}


def _torchrun(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *map(str, arguments)]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "last"])
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, step: int) -> None:
    script = str(HERE / "ddp_gradients.py")
    alone = _run([sys.executable, script, str(tmp_path / "one.pt"), str(step)])
    assert alone.returncode == 0, alone.stderr
    together = _run(_torchrun(script, tmp_path / "two.pt", step))
    assert together.returncode == 0, together.stderr
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name, expected in one.items():
        assert expected.dtype == torch.float64
        difference = (two[name] - expected).norm() / expected.norm().clamp_min(1e-12)
        assert float(difference) < 1e-6, name


def test_a_comparison_by_two_processes(tmp_path: Path) -> None:
    """Test images evaluated once each (65 of them: an odd number), rows written by one; the same command by one
    process afterwards has nothing left to do."""
    config = write_quick(tmp_path, [SMALL], data={"test_subset": 65})
    done = _run(_torchrun("-m", "bench", "run", config, "--out", tmp_path / "two", "--no-report"))
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "two" / "runs").iterdir()
    assert json.loads((folder / "status.json").read_text())["processes"] == 2
    (row,) = csv.DictReader((folder / "rows.csv").open())
    assert row["n"] == "65"
    assert bench("run", config, "--out", tmp_path / "one").returncode == 0
    (other,) = (tmp_path / "one" / "runs").iterdir()
    for split in ("val", "test"):
        signals = [np.load(f / f"{split}-signals.npz") for f in (folder, other)]
        assert np.array_equal(signals[0]["indices"], signals[1]["indices"])
        assert np.array_equal(signals[0]["counts"], signals[1]["counts"])
    assert "already done" in bench("run", config, "--out", tmp_path / "two").stderr


@pytest.mark.parametrize("victim", [0, 1], ids=["writer", "other"])
def test_one_process_killed_ends_all_and_the_run_goes_on(tmp_path: Path, victim: int) -> None:
    config = write_quick(tmp_path, [SMALL], recipe={"epochs": 8, "checkpoint_every": 3})
    out = tmp_path / "out"
    pids = tmp_path / "pids"
    pids.mkdir()
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('RANK'):\n"
        f"    open({str(pids)!r} + '/' + os.environ['RANK'], 'w').write(str(os.getpid()))\n"
    )
    command = _torchrun("-m", "bench", "run", config, "--out", out, "--no-report")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 200
    while not list(out.glob("stages/*/checkpoint-*.pt")):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(str(process.communicate()))
        time.sleep(0.02)
    os.kill(int((pids / str(victim)).read_text()), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    (status,) = out.glob("runs/*/status.json")
    assert json.loads(status.read_text())["status"] in ("interrupted", "running")
    again = _run(command)
    assert again.returncode == 0, again.stderr
    assert json.loads(status.read_text())["status"] == "done"
