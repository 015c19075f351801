"""training.csv and the columns that a wide terminal shows: what a step of training took."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_results import static, write_results

from bench.evaluate.analysis import Analysis
from bench.evaluate.results import read_results
from bench.evaluate.speed import training_speed
from bench.evaluate.training import COLUMNS
from bench.report.summary import print_summary

NORMS = [(name, f"{name} norm", "resnet", [], static(40.6, skill), ["warm", "train"])
         for name, skill in (("batch", 1.0), ("online", 1.1), ("none", 0.7))]  # fmt: skip
MIXED = [NORMS[0], ("large", "a larger one", "resnet", [], static(60, 1.2), ["train"])]


def _say(out: Path, **facts: Any) -> None:
    """Add facts to every status.json; a callable gets the run's place."""
    for place, path in enumerate(sorted(out.glob("runs/*/status.json"))):
        value = json.loads(path.read_text())
        value |= {name: fact(place) if callable(fact) else fact for name, fact in facts.items()}
        path.write_text(json.dumps(value))


def _written(out: Path) -> list[dict[str, str]]:
    Analysis(read_results(out)).write()
    first = (out / "training.csv").read_bytes()
    Analysis(read_results(out)).write()
    assert (out / "training.csv").read_bytes() == first
    return list(csv.DictReader(io.StringIO(first.decode())))


def _printed(out: Path, width: int) -> str:
    stream = io.StringIO()
    print_summary(Analysis(read_results(out)), Console(file=stream, width=width))
    return stream.getvalue()


@pytest.fixture
def norms(tmp_path: Path) -> Path:
    out = write_results(tmp_path / "norms", NORMS, seeds=(0, 1, 2), n=200, val=100, epochs=4,
                        broken={("none", 1): ("diverged", "the loss is no longer finite")})  # fmt: skip
    _say(out, train_memory_mib=191.543, train_steps=2800, ms_per_step=lambda place: 100.0 + place,
         images_per_s=lambda place: 1280 - place)  # fmt: skip
    return out


def test_one_line_per_run_with_accuracy_cost_and_training(norms: Path) -> None:
    rows = _written(norms)
    assert [row["run"] for row in rows] == ["batch", "online", "none"]
    assert list(rows[0]) == list(COLUMNS)
    summary = {line["run"]: line for line in Analysis(read_results(norms)).summary if line["default"] == "yes"}
    for row in rows:
        line = summary[row["run"]]
        for name in ("top1_mean", "top1_lo", "top1_hi", "macs_mean", "macs_elementwise_mean", "params"):
            if name in ("top1_lo", "top1_hi") and row["n_seeds"] == "2":
                assert (row[name], line[name]) == ("", None)  # two seeds have no interval
            else:
                assert float(row[name]) == pytest.approx(line[name]), name
        assert row["interval"] == line["interval"]
        assert row["train_memory_mib"] == "191.543"
    assert [row["n_seeds"] for row in rows] == ["3", "3", "2"]
    # folders sort as batch 0-2, none 0-2, online 0-2; the diverged seed (place 4) says nothing
    assert [float(row["ms_per_step"]) for row in rows] == [101, 107, statistics.median([103, 105])]
    assert float(rows[0]["images_per_s"]) == 1279


def test_a_folder_without_facts_has_the_speed_from_its_epochs(tmp_path: Path) -> None:
    out = write_results(tmp_path / "old", NORMS, n=200, val=100, epochs=4)
    assert {(row["train_memory_mib"], row["ms_per_step"], row["images_per_s"]) for row in _written(out)} == {("",) * 3}
    for path in out.glob("runs/*/spec.json"):
        value = json.loads(path.read_text())
        for stage in value["stages"]:
            stage["recipe"]["batch_size"] = 100
        path.write_text(json.dumps(value))
    for row in _written(out):
        assert (row["ms_per_step"], row["images_per_s"]) == (repr(round(100_000 / 1234.5, 3)), "1234.5")
        assert row["train_memory_mib"] == ""


def test_a_run_without_numbers_stays_a_line(tmp_path: Path) -> None:
    out = write_results(tmp_path / "r", NORMS, n=200, val=100, broken={("none", 0): ("failed", "disk full")})
    rows = _written(out)
    assert [row["run"] for row in rows] == ["batch", "online", "none"]
    assert (rows[2]["label"], rows[2]["n_seeds"], rows[2]["top1_mean"], rows[2]["ms_per_step"]) == (
        "none norm", "0", "", "")  # fmt: skip


def test_speed_is_all_images_over_all_time_of_all_stages() -> None:
    """A long stage and a quick last one: neither the last stage's speed nor a mean of speeds."""
    curves = [
        {"stage": "whole", "epoch": 1, "step": 10, "images": 1000, "seconds": 20.0, "images_per_s": 50.0},
        {"stage": "whole", "epoch": 2, "step": 20, "images": 1000, "seconds": 10.0, "images_per_s": 100.0},
        {"stage": "heads", "epoch": 1, "step": 5, "images": 1000, "seconds": 2.0, "images_per_s": 500.0},
        {"stage": "heads", "epoch": 2},
    ]
    sizes = {"whole": 100, "heads": 200}
    expected = {"train_s": 32.0, "train_steps": 25, "images_per_s": round(3000 / 32, 1), "ms_per_step": 1280.0}
    assert training_speed(curves, sizes) == expected
    older = [{k: v for k, v in line.items() if k not in ("images", "seconds")} for line in curves]
    assert training_speed(older, sizes) == expected
    assert training_speed(curves, {**sizes, "more": 1}) == {}


def test_memory_of_the_last_stage_alone_is_not_that_of_the_run(tmp_path: Path) -> None:
    """Earlier versions stored facts of the last stage: speed is worked out anew, memory is left out."""
    out = write_results(tmp_path / "old", NORMS, n=200, val=100, epochs=4)
    _say(out, train_memory_mib=0.2, ms_per_step=1.0, images_per_s=7569.0)
    for path in out.glob("runs/*/spec.json"):
        value = json.loads(path.read_text())
        value["stages"] = [{"name": name, "recipe": {"batch_size": 100}} for name in ("warm", "train")]
        path.write_text(json.dumps(value))
    (first, *_) = _written(out)
    assert (first["images_per_s"], first["train_memory_mib"]) == ("1234.5", "")


def test_the_terminal_shows_it_where_it_fits(norms: Path) -> None:
    """Runs of equal MACs make room for it; others show it where everything fits."""
    for width, columns in ((60, ()), (80, ()), (110, ("Elementwise", "Step MiB", "ms/step")),
                           (140, ("Top-5 %", "Params", "Elementwise", "Step MiB", "ms/step"))):  # fmt: skip
        text = _printed(norms, width)
        table = text.split("batch norm")[0]
        assert all(column in table for column in columns), width
        assert ("Step MiB" in table) == bool(columns)
        assert ("Step MiB: activations" in text) == bool(columns)
        assert max(map(len, text.split("Tables:")[0].splitlines())) <= width
    line = next(line for line in _printed(norms, 110).splitlines() if line.startswith("online norm"))
    assert line.split()[-3:] == ["191.5", "107.0", "done"]


def test_runs_of_different_cost_keep_the_usual_columns(tmp_path: Path) -> None:
    out = write_results(tmp_path / "mixed", MIXED, n=200, val=100)
    _say(out, train_memory_mib=5.0, ms_per_step=10.0)
    assert "Params" in _printed(out, 85)
    assert "Step MiB" not in _printed(out, 85)
    assert "Step MiB" in _printed(out, 140)


def test_a_run_stores_what_its_training_took(tmp_path: Path) -> None:
    """From a real training: the estimate of the memory room, and the time of a step from the logged speed."""
    from bench.cli import main
    from bench.cost.memory import estimate_memory
    from bench.launch.folder import read_spec
    from bench.method import DataSpec
    from bench.registry import method_class

    path = tmp_path / "tiny.yaml"
    path.write_text("""\
name: tiny
data: {name: synthetic, val_size: 32, train_subset: 64, test_subset: 32}
recipe: {epochs: 3, batch_size: 32, lr: 0.05}
device: cpu
threads: 1
runs:
  - {name: batch, method: resnet, options: {depth: 8, norm: batch}}
  - {name: none, method: resnet, options: {depth: 8, norm: none}}
""")
    out = tmp_path / "out"
    assert main(["run", str(path), "--out", str(out), "--in-process", "--no-report", "--quiet"]) == 0
    found = {}
    for status in sorted(out.glob("runs/*/status.json")):
        facts = json.loads(status.read_text())
        spec = read_spec(status.parent)
        cls = method_class("resnet")
        method = cls(cls.Config.model_validate(spec.options), DataSpec("synthetic", 10, 32))
        memory = estimate_memory(method, method.stages()[-1], spec.stages[-1].recipe)
        assert facts["train_memory_mib"] == round(memory["activations"] / 2**20, 3)
        metrics = (status.parent / "metrics.jsonl").read_text().splitlines()
        rates = [json.loads(line)["images_per_s"] for line in metrics]
        assert len(rates) == 3
        seconds = [json.loads(line)["seconds"] for line in metrics]
        assert facts["ms_per_step"] == pytest.approx(1000 * sum(seconds) / 6, abs=0.01)
        assert facts["images_per_s"] == pytest.approx(192 / sum(seconds), abs=0.1)
        assert facts["wall_s"] >= facts["train_s"] > 0
        found[facts["run"]] = facts
    assert found["batch"]["train_memory_mib"] > 1.3 * found["none"]["train_memory_mib"] > 0
    table = list(csv.DictReader((out / "runs.csv").open()))
    for row in table:
        for name in ("train_memory_mib", "ms_per_step", "images_per_s"):
            assert float(row[name]) == found[row["run"]][name]
