"""Damage to a file of a results folder is named, repaired or without effect; it is never taken for a result."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from damage import KINDS, TABLES, Done, Made, call, damage, fault_of, kept_files, tables

#: Files of a run that a measurement makes again.
MEASURED = ("meta.json", "cost.json", "rows.csv", "metrics.jsonl", "status.json", "test-signals.npz",
            "val-outcomes.npz", "test-logits.npz")  # fmt: skip


def path_of(made: Made, name: str) -> Path:
    """A file of the first run, or of its stage, or of the comparison."""
    keys = list(made.out.glob("runs/a-*"))
    found = [*keys[0].glob(name), *made.out.glob(name), *made.out.glob(f"splits/{name}")]
    if not found:
        first = (keys[0] / "status.json").read_text()
        found = [path for path in made.out.glob(f"stages/*/{name}") if path.parent.name in first]
    return found[0]


def check(made: Made, command: str, before: dict[str, bytes]) -> Done:
    done = call(made, command)
    out = made.folder / "both" if command == "compare" else made.out
    assert fault_of(done, before, tables(out) if command != "latency" else before) is None
    return done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*MEASURED, "spec.json"])
def test_a_report_shows_a_damaged_run_as_failed(made: Made, tmp_path: Path, name: str, kind: str) -> None:
    case, before = made.copy(tmp_path / "case"), tables(made.out)
    path = path_of(case, name)
    damage(path, kind, random.Random(f"{name} {kind}"))
    done = check(case, "report", before)
    assert done.code == 1
    assert "a, seed 0: failed" in done.said
    assert "`bench run FILE`" in " ".join(done.said.split())
    (row,) = [line for line in (case.out / "results.csv").read_text().splitlines() if ",failed," in line]
    assert path.name in row
    assert ",b," in (case.out / "summary.csv").read_text() or "\nb," in (case.out / "summary.csv").read_text()
    assert (case.out / "results.csv").read_text().count(",done,") == 1, "the other run keeps its report"


@pytest.mark.parametrize(("name", "kind"), list(zip(MEASURED, (*KINDS, *KINDS))))
def test_a_run_measures_a_damaged_run_again(made: Made, tmp_path: Path, name: str, kind: str) -> None:
    case, before = made.copy(tmp_path / "case"), tables(made.out)
    weights = {path: path.stat().st_mtime_ns for path in case.out.glob("stages/*/weights-*.pt")}
    damage(path_of(case, name), kind, random.Random(f"{name} {kind}"))
    done = check(case, "run", before)
    assert done.code == 0, done.said
    assert f"{name} is" in done.said
    assert "again" in done.said
    assert "epoch" not in done.said, "measured from the weights, not trained"
    assert {path: path.stat().st_mtime_ns for path in case.out.glob("stages/*/weights-*.pt")} == weights
    again = call(case, "run")
    assert again.said.count("already done") == 2


@pytest.mark.parametrize(("name", "kind"), [("weights-*.pt", "flipped"), ("weights-*.pt", "folder"),
                                            ("weights-*.pt", "pipe"), ("stage.json", "truncated")])  # fmt: skip
def test_damaged_weights_are_trained_again(made: Made, tmp_path: Path, name: str, kind: str) -> None:
    case, before = made.copy(tmp_path / "case"), tables(made.out)
    damage(path_of(case, name), kind, random.Random(kind))
    assert call(case, "export").code == 1
    named = call(case, "latency")
    assert named.code == 1
    assert "`bench run` repairs it" in named.said or "no run of" in named.said
    done = check(case, "run", before)
    assert done.code == 0, done.said
    assert "the stage is trained again" in done.said
    assert call(case, "export").code == 0


def test_weights_that_were_removed_to_save_space_are_not_trained_again(made: Made, tmp_path: Path) -> None:
    case = made.copy(tmp_path / "case")
    path_of(case, "weights-*.pt").unlink()
    done = check(case, "run", tables(made.out))
    assert done.code == 0
    assert done.said.count("already done") == 2


@pytest.mark.parametrize(
    ("name", "report", "run"),
    [("comparison.json", (1, 2), 0), ("config.yaml", (1,), 0), ("latency.json", (1,), 1), ("split-*.npz", (1,), 0)],
)
def test_what_belongs_to_no_run_is_named(
    made: Made, tmp_path: Path, name: str, report: tuple[int, ...], run: int
) -> None:
    case, before = made.copy(tmp_path / "case"), tables(made.out)
    path = path_of(case, name)
    damage(path, "truncated", random.Random(1))
    done = check(case, "report", before)
    assert done.code in report
    assert path.name in done.said
    again = check(case, "run", before)
    assert again.code == run, again.said
    assert path.name in again.said
    if run == 0:
        assert call(case, "report").code == 0


def test_a_comparison_takes_a_shared_run_from_where_it_is_whole(made: Made, tmp_path: Path) -> None:
    case = made.copy(tmp_path / "case")
    assert call(case, "compare").code == 0
    whole = tables(case.folder / "both")
    damage(path_of(case, "cost.json"), "digit", random.Random(1))
    done = check(case, "compare", whole)
    assert done.code == 0
    damage(next((case.folder / "other").glob("runs/a-*/cost.json")), "removed", random.Random(1))
    done = check(case, "compare", whole)
    assert done.code == 1
    assert "a, seed 0: failed" in done.said


def test_a_run_without_weights_stays_named_under_eval_only(made: Made, tmp_path: Path) -> None:
    case = made.copy(tmp_path / "case")
    path_of(case, "weights-*.pt").unlink()
    damage(path_of(case, "cost.json"), "digit", random.Random(1))
    done = call(case, "run", "--eval-only")
    assert done.code == 1
    assert "cost.json is damaged" in done.said
    assert call(case, "report").code == 1


def trial(made: Made, folder: Path, number: int) -> str | None:
    """One random thing done to one random file, and one command; the fault, if there is one."""
    rng = random.Random(number)
    case = made.copy(folder / str(number))
    name, kind = rng.choice(kept_files(case)), rng.choice(KINDS)
    command = rng.choice(("report", "report", "run", "compare", "latency", "export"))
    if command == "compare":
        assert call(case, command).code == 0
    before = tables(case.folder / "both" if command == "compare" else made.out)
    damage(case.out / name, kind, rng)
    done = call(case, command)
    apart = command in ("latency", "export")  # neither reads times that are there
    names = tuple(name for name in TABLES if name != "latency.csv") if apart else TABLES
    after = tables(case.folder / "both" if command == "compare" else case.out, names)
    fault = fault_of(done, {key: value for key, value in before.items() if key in after or not apart}, after)
    return None if fault is None else f"trial {number}, {command}, {name} {kind}: {fault}"


def test_random_damage_changes_nothing_silently(made: Made, tmp_path: Path) -> None:
    assert [fault for number in range(12) if (fault := trial(made, tmp_path, number))] == []


@pytest.mark.slow
def test_much_random_damage_changes_nothing_silently(made: Made, tmp_path: Path) -> None:
    import shutil

    faults = []
    for number in range(500):
        faults.append(trial(made, tmp_path, 1000 + number))
        shutil.rmtree(tmp_path / str(1000 + number))
    assert [fault for fault in faults if fault] == []
