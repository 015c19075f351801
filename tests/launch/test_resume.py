"""Killed at any moment and started again with the same command: the same bits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from quick import bench, fingerprints, killed, quick_run, write_quick

from bench.registry import method_names

#: Through worker processes, so that their order of arrival is part of the test.
WORKERS = {"loader": "workers", "workers": 2}


def _run_in_peace(tmp_path: Path, methods: list[str]) -> tuple[Path, dict[str, str]]:
    """The comparison file and what it leaves behind when nothing disturbs it."""
    config = write_quick(tmp_path, [quick_run(name) for name in methods], recipe=WORKERS)
    peace = bench("run+report", config, "--out", tmp_path / "peace", "--in-process", "--quiet")
    assert peace.returncode == 0, peace.stderr
    expected = fingerprints(tmp_path / "peace")
    assert len(expected) > 6 * len(methods)
    return config, expected


def _kill_and_compare(config: Path, expected: dict[str, str], out: Path, kills: list[tuple[str, int]]) -> int:
    """Run with kills, then to the end; returns how many kills hit. The results must be those of peace."""
    hits = 0
    for kind, number in kills:
        code = killed(kind, number, "run", config, "--out", out, "--quiet")
        assert code in (-9, 0)
        hits += code == -9
    end = bench("run+report", config, "--out", out, "--in-process", "--quiet")
    assert end.returncode == 0, end.stderr
    assert (out / "results.csv").is_file()
    assert fingerprints(out) == expected
    return hits


def test_kills_anywhere_leave_no_trace(tmp_path: Path) -> None:
    """Every method in one comparison; each kill comes a little later in it than the one before."""
    kills = [("step", 7), ("write", 2), ("step", 13), ("rename", 3), ("step", 17), ("write", 4), ("rename", 2)]
    assert _kill_and_compare(*_run_in_peace(tmp_path, method_names()), tmp_path / "war", kills) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", method_names())
def test_ten_kills_of_ten(tmp_path: Path, name: str) -> None:
    """Ten times from the start: killed at a random step or during a checkpoint, then finished."""
    rng = random.Random(name)
    config, expected = _run_in_peace(tmp_path, [name])
    for round_ in range(10):
        kill = (rng.choice(["step", "step", "write", "rename"]), rng.randint(1, 2))
        if kill[0] == "step":
            kill = ("step", rng.randint(1, 11))
        assert _kill_and_compare(config, expected, tmp_path / str(round_), [kill]) == 1


def test_the_same_command_again_does_nothing(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [quick_run("resnet")])
    assert bench("run", config, "--out", tmp_path / "out").returncode == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("runs/*/*")}
    again = bench("run", config, "--out", tmp_path / "out")
    assert again.returncode == 0
    assert "already done" in again.stderr
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("runs/*/*")}
    changed = {p.name for p in before if before[p] != after[p]} - {"spec.json"}
    assert not changed


def test_a_damaged_checkpoint_costs_one_checkpoint(tmp_path: Path) -> None:
    config = write_quick(tmp_path, [quick_run("resnet")])
    peace = bench("run", config, "--out", tmp_path / "peace", "--quiet")
    assert peace.returncode == 0, peace.stderr
    assert killed("step", 12, "run", config, "--out", tmp_path / "war", "--quiet") == -9
    newest = max((tmp_path / "war").glob("stages/*/checkpoint-*.pt"))
    content = bytearray(newest.read_bytes())
    content[1000] ^= 0x40
    newest.write_bytes(bytes(content))
    end = bench("run", config, "--out", tmp_path / "war", "--quiet")
    assert end.returncode == 0
    assert "damaged" in end.stderr
    assert fingerprints(tmp_path / "war") == fingerprints(tmp_path / "peace")


def test_stages_that_are_the_same_are_trained_once(tmp_path: Path) -> None:
    """A second run that differs only in a name, or in a later stage, shares what came before."""
    staged = [n for n in method_names() if len(_stages(n)) > 1]
    runs = [quick_run("resnet"), {**quick_run("resnet"), "name": "twin"}]
    for name in staged[:1]:
        other = quick_run(name)
        last = list(other["stages"])[-1]
        other["stages"] = {**other["stages"], last: {"epochs": 1}}
        runs += [quick_run(name), {**other, "name": "other"}]
    config = write_quick(tmp_path, runs)
    assert bench("run", config, "--out", tmp_path / "out", "--in-process", "--quiet").returncode == 0
    stages = len(list((tmp_path / "out" / "stages").iterdir()))
    assert stages == 1 + (len(_stages(staged[0])) + 1 if staged else 0)


def _stages(name: str) -> list[str]:
    return list(quick_run(name)["stages"])
