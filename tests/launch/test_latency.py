"""Times of trained networks: what is measured and written, for every registered method; what is passed over."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import change_status, write_quick

from bench.cli import main
from bench.config.load import load_config
from bench.cost import timing
from bench.cost.timing import energy_of, peak_memory, time_interleaved
from bench.errors import RunError
from bench.evaluate.latency import COLUMNS, mean_times, read_latency, write_latency
from bench.evaluate.record import DecisionRecord
from bench.evaluate.results import Results, read_results
from bench.launch.folder import RunFolder
from bench.launch.latency import _as_it_was_run
from bench.launch.plans import choose_points
from bench.launch.preflight import plan_runs
from bench.registry import method_names
from bench.report.latency import draw_latency

CHANNELS_LAST = ("--set", "recipe.channels_last=true")
FAST = ("--rounds", 3, "--warmup", 1, "--images", 16, "--batch-sizes", "1,8")


@dataclasses.dataclass
class Done:
    file: Path
    out: Path

    def bench(self, *arguments: object) -> int:
        return main([str(a) for a in (arguments[0], self.file, "--out", self.out, *arguments[1:])])

    def results(self) -> Results:
        return read_results(self.out)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Every registered method, hardly trained."""
    folder = tmp_path_factory.mktemp("latency")
    file = write_quick(folder, data={"train_subset": 64, "val_size": 32, "test_subset": 32})
    made = Done(file, folder / "out")
    assert made.bench("run", "--in-process", "--quiet", "--no-report", *CHANNELS_LAST) == 0
    assert made.bench("latency", *FAST, *CHANNELS_LAST) == 0
    return made


@pytest.mark.parametrize("name", method_names())
def test_every_point_of_every_method_is_timed(done: Done, name: str) -> None:
    rows = [row for row in read_latency(done.out) if row["run"] == name]
    (run,) = [run for run in done.results().runs if run.run == name]
    assert run.measured is not None
    points = run.measured.test.points
    for batch in (1, 8):
        mine = [row for row in rows if row["batch"] == batch]
        assert tuple(row["point"] for row in mine if row["policy"] in ("fixed", "anytime")) == points
        assert len(mine) >= len(points)
    long = {row["point"]: row for row in run.rows if row["policy"] in ("fixed", "anytime")}
    least = (run.measured.cost.total_params()) * 4 / 2**20
    for row in rows:
        assert 0 < row["ms_median"] <= row["ms_p95"]
        assert row["ms_per_image"] * row["batch"] <= row["ms_p95"]
        assert row["agreement"] == 1.0
        assert row["memory_mib"] > least
        assert (row["rounds"], row["images"], row["threads"]) == (3, row["batch"], 1)
        assert (row["device"], row["dtype"], row["run_id"]) == ("cpu", "float32", run.run_id)
        assert row["energy_mj"] is None
        if row["point"] and long[row["point"]]["adaptive"] == "no":
            assert row["macs"] == long[row["point"]]["macs"]


def test_exits_are_also_timed_under_a_policy(done: Done) -> None:
    """Early leaving for real: the mean cost lies between the first and the last exit."""
    exits = [run for run in done.results().runs if run.measured and "exits" in run.measured.capabilities]
    assert exits
    for run in exits:
        rows = [row for row in read_latency(done.out) if row["run"] == run.run and row["batch"] == 8]
        policies = [row for row in rows if row["policy"] == "budgeted"]
        assert {row["setting"] for row in policies} == {0.5, 1.0, 1.5}
        points = [row["macs"] for row in rows if row["point"]]
        assert all(min(points) <= row["macs"] <= max(points) for row in policies)


def test_the_figure_is_drawn_from_the_table(done: Done, tmp_path: Path) -> None:
    drawn = draw_latency(done.results(), mean_times(done.results()), tmp_path)
    assert {path.suffix for path in drawn} == {".png", ".svg", ".pdf"}
    again = draw_latency(done.results(), mean_times(done.results()), tmp_path / "again")
    assert [p.read_bytes() for p in drawn] == [p.read_bytes() for p in again]
    assert draw_latency(done.results(), [], tmp_path) == []


def test_budgets_choose_the_policy(done: Done) -> None:
    """With budgets in reach the setting whose mean cost on the validation part is nearest."""
    name = next(run.run for run in done.results().runs if run.measured and "exits" in run.measured.capabilities)
    measured = next(run.measured for run in done.results().runs if run.run == name)
    assert measured is not None
    from bench.launch.plans import make_plans
    from bench.method import Point

    points = [Point(point) for point in measured.test.points]
    macs = [row["macs"] for row in measured.rows() if row["policy"] == "anytime"]
    half = (min(macs) + max(macs)) / 2
    (plan,) = [plan for plan in make_plans(measured, points, [half, 100 * max(macs)], 16) if plan.policy == "budgeted"]
    spent = {row["setting"]: row["macs"] for row in measured.rows() if row["policy"] == "budgeted"}
    assert plan.setting in spent
    assert abs(spent[plan.setting] - half) < 0.25 * (max(macs) - min(macs))
    assert plan.predictions.shape == (measured.test.n,)


def test_a_record_of_other_predictions_is_noticed_and_older_rows_stay(
    done: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = [run for run in done.results().runs if run.done][:2]
    record = DecisionRecord.load(first.folder, "test")
    wrong = dataclasses.replace(record.signals, prediction=(record.signals.prediction + 1) % 10)
    try:
        DecisionRecord(wrong, record.outcomes).save(first.folder, "test")
        change_status(first.folder)
        change_status(other.folder, status="failed")
        fast = ["--only", first.run, "--only", other.run, "--rounds", 1, "--warmup", 1, "--batch-sizes", 8]
        before = read_latency(done.out)
        capsys.readouterr()
        assert done.bench("latency", *CHANNELS_LAST, *fast) == 0
        assert f"{other.run} seed 0: passed over (failed)" in capsys.readouterr().err
        after = read_latency(done.out)
        own = [row for row in after if row["run"] == first.run and row["batch"] == 8]
        assert {row["agreement"] for row in own if row["point"]} == {0.0}
        assert {row["rounds"] for row in own} == {1}
        kept = [row for row in before if (row["run"], row["batch"]) != (first.run, 8)]
        assert [row for row in after if row in kept] == kept
    finally:
        record.save(first.folder, "test")
        change_status(first.folder)
        change_status(other.folder, status="done")


def test_what_cannot_be_timed_is_one_line(done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(code: int, *arguments: object) -> str:
        capsys.readouterr()
        assert done.bench("latency", *arguments) == code
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        return line

    assert "holds no results yet" in fails(1, "--out", tmp_path / "none")
    assert "is done; `bench run`" in fails(1, "--set", "recipe.lr=0.123")  # other runs than those that were done
    assert "the test part has 32 images" in fails(2, *CHANNELS_LAST, "--batch-sizes", "1,64")
    with pytest.raises(SystemExit) as stop:
        done.bench("latency", "--batch-sizes", "1,0")
    assert stop.value.code == 2


def test_weights_that_were_measured_without_training_are_timed(tmp_path: Path) -> None:
    """`bench run --eval-only` makes a run with a folder of its own; `bench latency FILE` finds it."""
    weights = tmp_path / "published.pt"
    weights.touch()
    file = write_quick(tmp_path)
    first = plan_runs(load_config(file))[0].run
    (spec,) = plan_runs(load_config(file, settings=[f"runs.{first}.weights={weights}"], only=[first]))
    assert _as_it_was_run(spec, tmp_path) is spec
    measured = spec.model_copy(update={"evaluate_only": True})
    RunFolder(tmp_path, measured).set_status("done")
    assert _as_it_was_run(spec, tmp_path) == measured
    RunFolder(tmp_path, spec).set_status("done")
    assert _as_it_was_run(spec, tmp_path) is spec


def test_rows_of_earlier_runs_are_dropped(tmp_path: Path) -> None:
    words = dict.fromkeys(("label", "method", "policy", "point", "dtype", "torch", "host_class"), "x")
    row = dict.fromkeys(COLUMNS, 1) | words | {"run": "a", "run_id": "old", "device": "cpu"}
    write_latency(tmp_path, [row, {**row, "run": "b", "run_id": "kept"}], ["old", "kept"])
    write_latency(tmp_path, [{**row, "run_id": "new", "threads": 2}], ["new", "kept"])
    found = [(r["run"], r["run_id"], r["threads"]) for r in read_latency(tmp_path)]
    assert found == [("b", "kept", 1), ("a", "new", 2)]
    (tmp_path / "latency.csv").write_text("run,seed\na,0\n")
    assert len(read_latency(tmp_path)) == 2, "the table is drawn from the rows with a checksum"
    (tmp_path / "latency.json").write_text((tmp_path / "latency.json").read_text().replace("kept", "lost"))
    with pytest.raises(RunError, match="does not fit its checksum"):
        read_latency(tmp_path)
    (tmp_path / "latency.json").unlink()
    with pytest.raises(RunError, match="no table of times"):
        read_latency(tmp_path)


def test_too_many_points_are_thinned_evenly_by_cost() -> None:
    macs = np.array([100, *range(99, 68, -1)])
    chosen = choose_points(macs, 5)
    assert chosen[0] == 0
    assert len(chosen) == 5
    assert sorted(macs[chosen[1:]]) == [69, 79, 89, 99]
    assert choose_points(macs, 1) == [0]
    assert choose_points(macs[:4], 4) == [0, 1, 2, 3]


def test_rounds_are_interleaved() -> None:
    seen: list[tuple[str, int]] = []

    def call(name: str, seconds: float):  # type: ignore[no-untyped-def]
        def run(batch: int) -> None:
            seen.append((name, batch))
            time.sleep(seconds)

        return run

    taken = time_interleaved([call("a", 0.001), call("b", 0.004)], rounds=6, warmup=2, batches=3, device="cpu")
    assert taken.shape == (2, 6)
    assert (taken[0] >= 1).all()
    assert (taken[1] >= 4).all()
    assert seen[:4] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    for number in range(6):
        pair = seen[4 + 2 * number : 6 + 2 * number]
        assert sorted(pair) == [("a", number % 3), ("b", number % 3)]
    assert len({seen[4 + 2 * number][0] for number in range(6)}) == 2  # neither always goes first


def test_peak_memory_on_the_cpu_is_what_is_alive_at_once() -> None:
    x = torch.randn(256, 1024)  # 1 MiB

    def chain() -> None:
        y = x + 1
        for _ in range(5):
            y = y + 1  # the old one dies when the new one is made

    assert peak_memory(chain, "cpu") == 2 * 2**20
    assert peak_memory(lambda: sum([x + 1 for _ in range(5)]), "cpu") == 7 * 2**20  # five, a sum, the next sum
    assert peak_memory(lambda: x.view(-1)[:100].t(), "cpu") == 0
    assert peak_memory(lambda: (x + 1).relu_().mul_(2), "cpu") == 2**20


def test_energy_is_the_counters_difference_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert energy_of(lambda batch: None, 1, "cpu") is None
    calls: list[int] = []
    monkeypatch.setattr(timing, "ENERGY_WINDOW", 0.01)
    monkeypatch.setattr(timing, "_finish", lambda device: None)
    monkeypatch.setattr(timing, "_nvml_handle", lambda device: (lambda gpu: 1000 + 30 * len(calls), "gpu"))
    assert energy_of(lambda batch: calls.append(batch), 2, "cuda") == 30
    assert set(calls) == {0, 1}

    def refuses(gpu: object) -> int:
        raise RuntimeError("not supported")

    monkeypatch.setattr(timing, "_nvml_handle", lambda device: (refuses, "gpu"))
    assert energy_of(lambda batch: None, 2, "cuda") is None
