"""What goes wrong stays where it went wrong, is said in one line, and can be gone on from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quick import bench, fingerprints, statuses, write_quick, write_useless_weights

SMALL = {"name": "fine", "method": "resnet", "options": {"depth": 8}}


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_failed_run_does_not_touch_the_others(tmp_path: Path) -> None:
    runs = [
        {**SMALL, "name": "diverges", "recipe": {"lr": 1e30}},
        {**SMALL, "name": "broken", "weights": "weights.pt", "evaluate_only": True},
        {**SMALL, "name": "left-out", "skip": "not today"},
        SMALL,
    ]
    write_useless_weights(tmp_path / "weights.pt")
    config = write_quick(tmp_path, runs, recipe={"epochs": 1, "checkpoint_every": 1})
    out = tmp_path / "out"
    done = bench("run+report", config, "--out", out)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    found = statuses(out)
    assert {name: status["status"] for name, status in found.items()} == {
        "diverges": "diverged", "broken": "failed", "left-out": "skipped", "fine": "done",
    }  # fmt: skip
    assert "no longer finite" in found["diverges"]["reason"]
    assert "not finite" in found["broken"]["reason"]
    assert found["left-out"]["reason"] == "not today"
    text = (out / "results.csv").read_text()
    assert text.count(",done,") >= 1
    assert "not today" in text
    assert "diverged" in done.stdout

    # The same command again: settled runs are left alone and said, the exit code stays.
    again = bench("run", config, "--out", out)
    assert again.returncode == 1
    assert "--retry diverged" in again.stderr
    assert "already done" in again.stderr
    assert "step" not in again.stderr


def test_a_run_out_of_time_is_stopped_and_can_go_on(tmp_path: Path) -> None:
    """No clock decides this test: 5,000 epochs are longer than any limit, and the run behind trains nothing."""
    slow = {**SMALL, "name": "slow", "recipe": {"epochs": 5000}}
    broken = {**SMALL, "name": "broken", "weights": "weights.pt", "evaluate_only": True}
    write_useless_weights(tmp_path / "weights.pt")
    config = write_quick(tmp_path, [slow, broken], recipe={"checkpoint_every": 5})
    out = tmp_path / "out"
    done = bench("run", config, "--out", out, "--set", "timeout_minutes=0.15")
    assert done.returncode == 1
    found = statuses(out)
    assert found["slow"]["status"] == "timeout"
    assert "timeout_minutes: 0.15" in found["slow"]["reason"]
    assert found["broken"]["status"] in ("failed", "timeout")  # it was begun, whatever became of it
    assert list(out.glob("stages/*/checkpoint-*.pt"))

    # Left alone until asked for; then only it runs, from where it was.
    again = bench("run", config, "--out", out, "--only", "slow")
    assert again.returncode == 1
    assert "--retry timeout" in again.stderr
    asked = bench("run", config, "--out", out, "--retry", "timeout", "--only", "slow", "--set", "timeout_minutes=0.1")
    assert asked.returncode == 1
    assert "timeout_minutes: 0.1" in statuses(out)["slow"]["reason"]
    assert "epoch 1/5000" not in asked.stderr


def test_the_last_good_checkpoint_of_a_diverged_run_is_kept(tmp_path: Path) -> None:
    recipe = {"lr": 1e-3, "epochs": 4, "checkpoint_every": 2, "lr_scheduler": "exponential", "lr_gamma": 1e12}
    config = write_quick(tmp_path, [{**SMALL, "recipe": recipe}])
    assert bench("run", config, "--out", tmp_path / "out").returncode == 1
    assert statuses(tmp_path / "out")["fine"]["status"] == "diverged"
    from bench.train.checkpoint import load_checkpoint

    (stage,) = (tmp_path / "out" / "stages").iterdir()
    saved = load_checkpoint(stage)
    assert saved is not None
    assert all(bool(v.isfinite().all()) for v in saved["model"].values() if v.is_floating_point())


def _start(config: Path, out: Path) -> subprocess.Popen[str]:
    """``bench run`` until a training step has been seen to be checkpointed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", str(config), "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.glob("stages/*/checkpoint-*.pt")):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(str(process.communicate()))
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("how", ["interrupt", "terminate", "group"])
def test_signals_stop_cleanly_and_the_run_goes_on_later(tmp_path: Path, how: str) -> None:
    config = write_quick(tmp_path, [{**SMALL, "recipe": {"epochs": 12}}], recipe={"checkpoint_every": 3})
    out = tmp_path / "out"
    process = _start(config, out)
    signum = signal.SIGTERM if how == "terminate" else signal.SIGINT
    if how == "group":  # what a terminal does: everyone in the foreground gets it
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    _, error = process.communicate(timeout=120)  # a second or two if the machine is not busy
    assert process.returncode == 128 + signum, error
    assert "Traceback" not in error
    assert statuses(out)["fine"]["status"] == "interrupted"
    again = bench("run", config, "--out", out)
    assert again.returncode == 0, again.stderr
    peace = bench("run", config, "--out", tmp_path / "peace")
    assert peace.returncode == 0
    assert fingerprints(out) == fingerprints(tmp_path / "peace")


def test_a_killed_bench_takes_its_run_along_and_goes_on(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [{**SMALL, "recipe": {"epochs": 12}}], recipe={"checkpoint_every": 3})
    out = tmp_path / "out"
    process = _start(config, out)
    process.kill()
    process.communicate()
    again = bench("run", config, "--out", out)
    assert again.returncode == 0, again.stderr


def test_two_in_one_folder(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [{**SMALL, "recipe": {"epochs": 40}}], recipe={"checkpoint_every": 3})
    out = tmp_path / "out"
    process = _start(config, out)
    try:
        second = bench("run", config, "--out", out)
        assert second.returncode == 1
        assert f"in use by process {process.pid}" in _one_line(second)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_worker_that_is_killed_is_a_failed_run(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal, torch, runpy\n"
        "step = torch.optim.SGD.step\n"
        "def die(self, *a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.optim.SGD.step = die\n"
    )
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nif 'bench.launch.worker' in ' '.join(sys.orig_argv):\n    exec({code!r})\n"
    )
    config = write_quick(tmp_path, [SMALL])
    done = bench("run", config, "--out", tmp_path / "out", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    status = statuses(tmp_path / "out")["fine"]
    assert status["status"] == "failed"
    assert "SIGKILL" in status["reason"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [SMALL])
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = bench("run", config, "--out", locked / "out")
    assert done.returncode == 2
    assert "cannot write" in _one_line(done)


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [SMALL])
    (tmp_path / "file").write_text("x")
    done = bench("run", config, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot write" in _one_line(done)


def test_a_full_disk_is_said_and_nothing_half_written_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: a checkpoint does not fit."""
    config = write_quick(tmp_path, [SMALL], recipe={"checkpoint_every": 1})
    out = tmp_path / "out"
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "from bench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", limited, "run", str(config), "--out", str(out)],
                          capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    status = statuses(out)["fine"]
    assert status["status"] == "failed"
    assert "cannot write" in status["reason"]
    assert not list(out.rglob(".tmp-*"))
    again = bench("run", config, "--out", out, "--retry", "failed")
    assert again.returncode == 0, again.stderr


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """In the middle of an epoch, in a worker process."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for index in range(12):
                pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / part / label / f"{index:02}.png")
    bad = tmp_path / "data" / "train" / "b" / "07.png"
    bad.write_bytes(bad.read_bytes()[:300])
    data = {"name": "image_folder", "root": str(tmp_path / "data"), "val_size": 4}
    config = write_quick(tmp_path, [SMALL], data=data)
    text = config.read_text().replace("  train_subset: 192\n", "").replace("  test_subset: 64\n", "")
    config.write_text(text)
    recipe = ["--set", "recipe.batch_size=8", "--set", "recipe.workers=2", "--set", "recipe.train_crop_size=32",
              "--set", "recipe.val_resize_size=36", "--set", "recipe.val_crop_size=32"]  # fmt: skip
    done = bench("run", config, "--out", tmp_path / "out", *recipe)
    assert done.returncode == 1, done.stderr
    status = statuses(tmp_path / "out")["fine"]
    assert status["status"] == "failed"
    assert str(bad) in status["reason"]
    assert len(status["reason"].splitlines()) == 1


def test_eval_only_trains_nothing(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [SMALL])
    out = tmp_path / "out"
    done = bench("run", config, "--out", out, "--eval-only")
    assert done.returncode == 1
    assert "not trained yet" in done.stderr
    assert not (out / "stages").exists() or not list((out / "stages").iterdir())


def test_a_method_that_is_not_built_right_is_a_failed_run(tmp_path: Path) -> None:
    """A mistake in a plug-in: its traceback is kept in a file, the user sees one line."""
    config = write_quick(tmp_path, [SMALL])
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'bench.launch.worker' in ' '.join(sys.orig_argv):\n"
        "    import baselines.method as m\n    m.ResNetBaseline.loss = lambda *a: 1 / 0\n"
    )
    done = bench("run", config, "--out", tmp_path / "out", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "ZeroDivisionError" in statuses(tmp_path / "out")["fine"]["reason"]
    (trace,) = (tmp_path / "out").glob("runs/*/traceback.txt")
    assert "ZeroDivisionError" in trace.read_text()


