"""Runs' processes are forked from one server, and what happens to one of them touches no other."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from quick import bench, fingerprints, statuses, write_quick
from strike import arm, hits, on_path

SMALL = {"name": "fine", "method": "resnet", "options": {"depth": 8}}
RUNS = [SMALL, {**SMALL, "name": "second"}, {**SMALL, "name": "third"}]


def test_torch_is_imported_once_for_all_runs_and_their_bytes_are_those_of_one_process(tmp_path: Path) -> None:
    config = write_quick(tmp_path, RUNS)
    environment = arm(tmp_path, "child", "torch", "pass")
    assert bench("run", config, "--out", tmp_path / "forked", **environment).returncode == 0
    assert hits(tmp_path) == 1
    assert bench("run", config, "--out", tmp_path / "plain", "--in-process").returncode == 0
    assert fingerprints(tmp_path / "forked") == fingerprints(tmp_path / "plain")


@pytest.mark.parametrize("victim", ["os.getpid()", "os.getppid()"], ids=["run", "server"])
def test_a_killed_process_costs_its_own_run_only(tmp_path: Path, victim: str) -> None:
    """The second run dies, or the server under it does: the third one is done all the same."""
    config = write_quick(tmp_path, RUNS)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'bench.launch.worker' in sys.orig_argv:\n"
        "    import bench.launch.run_one as module\n"
        "    whole = module.execute_run\n"
        "    def execute_run(spec, *rest, **more):\n"
        "        if spec.run == 'second':\n"
        f"            os.kill({victim}, {int(signal.SIGKILL)})\n"
        "            time.sleep(60)\n"
        "        return whole(spec, *rest, **more)\n"
        "    module.execute_run = execute_run\n"
    )  # fmt: skip
    done = bench("run", config, "--out", tmp_path / "out", **on_path(tmp_path))
    assert done.returncode == 1
    assert {name: status["status"] for name, status in statuses(tmp_path / "out").items()} == {
        "fine": "done", "second": "failed", "third": "done"
    }  # fmt: skip
    assert statuses(tmp_path / "out")["second"]["reason"] == "its process was ended by SIGKILL (out of memory?)"
    assert "Traceback" not in done.stderr
