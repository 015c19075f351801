"""Content decides: what a folder holds is of the data that it was measured on, and of no other."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quick import R8, change_status, make_pictures, statuses, write_folder_file, write_quick

from bench.cli import main
from bench.evaluate.latency import COLUMNS, read_latency, write_latency
from bench.evaluate.results import read_results
from bench.store.sealed import read_sealed, write_sealed


def run(*arguments: object) -> None:
    """In this process, which has imported torch."""
    assert main(["run", *map(str, arguments), "--in-process", "--no-report", "--quiet"]) == 0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in a/, results of one run on them in out/ and its file."""
    top = tmp_path_factory.mktemp("measured")
    make_pictures(top / "a")
    run(write_folder_file(top), "--data-root", top / "a", "--out", top / "out")
    return top


@pytest.fixture
def here(measured: Path, tmp_path: Path) -> Path:
    """A copy of it. Whatever is done there without success must leave its results as they were."""
    top = tmp_path / "here"
    shutil.copytree(measured, top, symlinks=True)
    return top


def hashes(out: Path) -> dict[str, str]:
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(out.rglob("*")) if p.is_file() and p.name != ".lock"}  # fmt: skip


def change(root: Path, how: str) -> None:
    cat = root / "val" / "cat"
    if how == "other contents":
        for path in root.rglob("*.png"):
            Image.fromarray(np.full((16, 16, 3), len(path.name), np.uint8)).save(path)
    elif how == "an image more":
        shutil.copy(cat / "cat0.png", cat / "zz.png")
    elif how == "a byte":
        content = bytearray((cat / "cat1.png").read_bytes())
        content[-1] ^= 1
        (cat / "cat1.png").write_bytes(bytes(content))
    elif how == "labels permuted":
        for part in ("train", "val"):
            (root / part / "cat").rename(root / part / "x")
            (root / part / "dog").rename(root / part / "cat")
            (root / part / "x").rename(root / part / "dog")


CHANGES = [
    ("other contents", "both parts: the same names with other contents"),
    ("an image more", "test part: 7 images instead of 6"),
    ("a byte", "test part: the same names with other contents"),
    ("labels permuted", "both parts: the same images with other labels"),
]


def refused(capsys: pytest.CaptureFixture[str], out: Path, words: str, *arguments: object) -> None:
    """One line that says what changed, exit code 2, and every file as it was."""
    before = hashes(out)
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert words in line
    assert "--fresh" in line
    assert "another --out" in line
    assert hashes(out) == before


@pytest.mark.parametrize(("how", "words"), CHANGES, ids=[how for how, _ in CHANGES])
def test_other_data_is_noticed_before_anything_is_done(
    here: Path, capsys: pytest.CaptureFixture[str], how: str, words: str
) -> None:
    change(here / "a", how)
    rest = [here / "quick.yaml", "--data-root", here / "a", "--out", here / "out"]
    refused(capsys, here / "out", f"r8 seed 0 used other data than is there now ({words})", "run", *rest)


def test_every_way_of_going_on_looks_at_the_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also a run that is new to the folder, a changed policy setting, and commands that only look or time."""
    change(here / "a", "a byte")
    words = "r8 seed 0 used other data"
    rest = [here / "quick.yaml", "--data-root", here / "a", "--out", here / "out"]
    for more in (["--eval-only"], ["--ray"], ["--seeds", "5"], ["--retry", "all"], ["--verify"],
                 ["--set", "evaluate.confidence_level=0.9"], ["--in-process", "--no-report"]):  # fmt: skip
        refused(capsys, here / "out", words, "run", *rest, *more)
    for command in ("check", "latency"):
        refused(capsys, here / "out", words, command, *rest)
    write_folder_file(here, [R8, {**R8, "name": "added", "recipe": {"lr": 0.01}}])
    refused(capsys, here / "out", words, "run", *rest, "--only", "added")


def test_moved_data_is_the_same_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a").rename(here / "b")
    (path,) = (here / "out").glob("runs/*/rows.csv")
    before = path.stat().st_mtime_ns
    rest = [str(here / "quick.yaml"), "--data-root", str(here / "b"), "--out", str(here / "out"), "--no-report"]
    assert main(["run", *rest]) == 0
    said = capsys.readouterr().err
    assert "already done" in said
    assert "fingerprint" not in said
    assert path.stat().st_mtime_ns == before
    assert main(["run", *rest, "--eval-only", "--verify"]) == 0


def test_fresh_forgets_and_stages_know_their_images(here: Path) -> None:
    """The stage of the old images has another address; neither --fresh nor --out finds it."""
    change(here / "a", "other contents")
    times = [{**dict.fromkeys(COLUMNS), "run": "r8", "seed": 0, "batch": 1, "run_id": run_id, "threads": 1}
             for run_id in (statuses(here / "out")["r8"]["run_id"], "another")]  # fmt: skip
    write_latency(here / "out", times, ["another"])
    old = {path.name for path in (here / "out" / "stages").iterdir()}
    run(here / "quick.yaml", "--data-root", here / "a", "--out", here / "out", "--fresh")
    new = {path.name for path in (here / "out" / "stages").iterdir()}
    assert len(new) == 1
    assert [row["run_id"] for row in read_latency(here / "out")] == ["another"]
    assert not old & new
    found = statuses(here / "out")["r8"]
    (stage,) = (here / "out").glob("stages/*/stage.json")
    assert json.loads(stage.read_text())["data"] == found["data"]
    assert found["stages"] == list(new)


def forget_fingerprints(out: Path) -> None:
    """As an earlier version left it."""
    for path in [*out.glob("runs/*/status.json"), *out.glob("stages/*/stage.json")]:
        value = read_sealed(path)
        value.pop("data")
        write_sealed(path, value)


def test_results_without_a_fingerprint_are_kept_and_it_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_fingerprints(here / "out")
    change(here / "a", "a byte")
    before = hashes(here / "out")
    rest = [str(here / "quick.yaml"), "--data-root", str(here / "a"), "--out", str(here / "out")]
    assert main(["run", *rest, "--no-report"]) == 0
    said = capsys.readouterr().err
    assert "1 finished run carries no fingerprint of the data" in said
    assert "already done" in said
    assert main(["check", *rest]) == 0
    assert "1 finished run carries no fingerprint" in capsys.readouterr().out
    after = hashes(here / "out")
    changed = {Path(name).name for name in after if after[name] != before.get(name)}
    assert changed <= {"runs.csv", "config.yaml", "spec.json"}
    assert all(one.done for one in read_results(here / "out").runs)


def test_a_failed_run_binds_nobody_to_its_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that stopped a run is replaced: the run goes on, since nothing was measured."""
    (path,) = (here / "out").glob("runs/*/status.json")
    change_status(path.parent, status="failed", reason="a bad image")
    change(here / "a", "a byte")
    rest = [str(here / "quick.yaml"), "--data-root", str(here / "a"), "--out", str(here / "out")]
    assert main(["run", *rest, "--no-report"]) == 1
    assert "--retry failed" in capsys.readouterr().err


def test_data_that_changes_while_runs_are_done_fails_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process looks when it begins, each run when its turn comes."""
    from bench.launch import run_one

    opened = run_one.open_data

    def change_and_open(*arguments, **more):
        change(here / "a", "an image more")
        return opened(*arguments, **more)

    monkeypatch.setattr(run_one, "open_data", change_and_open)
    rest = [str(here / "quick.yaml"), "--data-root", str(here / "a"), "--out", str(here / "new")]
    assert main(["run", *rest, "--in-process", "--no-report"]) == 1
    reason = statuses(here / "new")["r8"]["reason"]
    assert reason == "the data changed while this comparison ran (test part: 7 images instead of 6)"


def test_the_file_behind_split_file_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.config.schema import Data
    from bench.data import open_data

    splits = [open_data(Data(name="synthetic", val_size=size)).save_split(tmp_path / "s") for size in (900, 850)]
    shutil.copy(splits[0], tmp_path / "my.npz")
    data = {"split_file": str(tmp_path / "my.npz"), "train_subset": 64, "val_subset": 32}
    rest = [write_quick(tmp_path, [R8], data=data, recipe={"epochs": 1}), "--out", tmp_path / "out"]
    run(*rest)
    shutil.copy(splits[1], tmp_path / "my.npz")
    refused(capsys, tmp_path / "out", "(data.split_file: another split)", "run", *rest)
    (tmp_path / "my.npz").write_bytes(b"not a split")
    assert main(["run", *map(str, rest)]) == 1
    assert "is no readable split file" in capsys.readouterr().err
    shutil.copy(splits[0], tmp_path / "my.npz")
    run(*rest)


@pytest.mark.slow
def test_under_torchrun_the_first_process_says_it(here: Path) -> None:
    from test_distributed import _run, _torchrun

    change(here / "a", "labels permuted")
    before = hashes(here / "out")
    rest = [here / "quick.yaml", "--data-root", here / "a", "--out", here / "out"]
    done = _run(_torchrun("-m", "bench", "run", *rest, "--no-report"))
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert "both parts: the same images with other labels" in done.stderr
    assert hashes(here / "out") == before


def test_fresh_of_one_run_does_not_mix_data_with_the_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--fresh forgets the runs that are named; the others stay in the tables and bind the folder to their data."""
    config = here / "quick.yaml"
    other = "runs:\n- {name: other, method: resnet, options: {depth: 8}}"
    config.write_text(config.read_text().replace("runs:", other))
    run(config, "--data-root", here / "a", "--out", here / "out")
    before = hashes(here / "out")
    shutil.copytree(here / "a", here / "b")
    change(here / "b", "a byte")
    again = ["run", config, "--data-root", here / "b", "--out", here / "out", "--fresh", "--only", "other"]
    capsys.readouterr()
    assert main([*map(str, again)]) == 2
    assert "used other data" in capsys.readouterr().err
    assert hashes(here / "out") == before
