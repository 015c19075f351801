"""TensorBoard, Weights & Biases and MLflow, each read back by its own means: a run, stopped once and continued."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quick import R8, write_quick

from bench.config.load import load_config
from bench.config.resolve import RunSpec
from bench.evaluate.columns import read_rows
from bench.launch.preflight import plan_runs
from bench.launch.run_one import execute_run
from bench.track.base import flat, headline
from bench.train.watch import Watch


class _OneEpoch(Watch):
    """Stops a run in its second epoch."""

    asked = 0

    @property
    def stops(self) -> bool:
        self.asked += 1
        return self.asked > 9

    def check(self) -> None:
        if self.asked > 9:
            raise RuntimeError("stopped")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_PROJECT", "WANDB_API_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def _run(tmp_path: Path, tracker: str) -> tuple[RunSpec, list[dict[str, Any]], dict[str, Any]]:
    """The run, its training curve and the row of its default point, as they are stored."""
    (spec,) = plan_runs(load_config(write_quick(tmp_path, [R8], trackers=[tracker], recipe={"epochs": 3})))
    out = tmp_path / "out"
    assert execute_run(spec, out, watch=_OneEpoch(), quiet=True)["status"] == "failed"
    assert execute_run(spec, out, quiet=True)["status"] == "done"
    folder = out / "runs" / spec.folder
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return spec, curve, dict(read_rows(folder / "rows.csv")[0])


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec, curve, row = _run(tmp_path, "tensorboard")
    found = EventAccumulator(str(tmp_path / "out/trackers/tensorboard" / spec.folder))
    found.Reload()
    for key in ("loss", "accuracy", "lr"):
        told = [(event.step, event.value) for event in found.Scalars(f"train/{key}")]
        assert told == [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in curve]
    (top1,) = found.Scalars("test/top1")
    assert top1.value == pytest.approx(row["top1"], rel=1e-6)
    (said,) = found.Tensors("configuration/text_summary")
    assert b"| options.depth | 8 |" in said.tensor_proto.string_val[0]


def test_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs MLflow")
    spec, curve, row = _run(tmp_path, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/out/trackers/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("quick")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == spec.folder
    assert run.info.status == "FINISHED"
    assert run.data.params["options.depth"] == "8"
    assert run.data.params["stages.train.lr"] == "0.05"
    for key in ("loss", "accuracy", "lr"):
        told = [(entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, f"train/{key}")]
        assert told == [(line["step"], line[key]) for line in curve]
    assert run.data.metrics["test/top1"] == row["top1"]
    stored = json.loads((tmp_path / "out/trackers/mlflow/files" / run.info.run_id / "artifacts/rows.json").read_text())
    assert stored[0]["macs"] == row["macs"]


def test_wandb(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs Weights & Biases")
    spec, curve, row = _run(tmp_path, "wandb")
    sessions = sorted((tmp_path / "out/trackers/wandb/wandb").glob("offline-run-*/*.wandb"))
    assert len({path.name for path in sessions}) == 1, "both sessions are of one run"
    kinds = [(record.WhichOneof("record_type"), record) for path in sessions for record in _records(path)]
    runs = [record.run for kind, record in kinds if kind == "run"]
    assert {(run.display_name, run.project, run.run_group) for run in runs} == {(spec.folder, "quick", "r8")}
    told = [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for kind, record in kinds if kind == "history"]  # fmt: skip
    epochs = [entry for entry in told if "train/step" in entry]
    for key in ("step", "loss", "accuracy", "lr"):
        assert [entry[f"train/{key}"] for entry in epochs] == [line[key] for line in curve]
    (table,) = tmp_path.glob("out/trackers/wandb/wandb/offline-run-*/files/media/table/*.json")
    stored = json.loads(table.read_text())
    assert dict(zip(stored["columns"], stored["data"][0]))["top1"] == row["top1"]


def _records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format, blocks of 32 KiB, after seven bytes of its own."""
    from wandb.proto import wandb_internal_pb2

    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


@pytest.mark.parametrize(("name", "key"), [("WANDB_API_KEY", "0" * 40),
                                           ("NETRC", "machine api.wandb.ai login u password p")])  # fmt: skip
def test_wandb_without_a_key_asks_for_none(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.track.wandb import _has_key

    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not _has_key()
    if name == "NETRC":
        (tmp_path / "netrc").write_text(key)
    else:
        monkeypatch.setenv(name, key)
    assert _has_key()


def test_sections_are_named_by_their_path() -> None:
    said = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": {}, "f": None}
    assert flat(said) == {"a.b.c": 1, "a.d": [1, 2], "e": {}, "f": None}


def test_the_headline_is_that_of_the_default_point() -> None:
    rows = [{"default": False, "top1": 1.0}, {"default": True, "top1": 2.0, "macs": 3, "ece": None}]
    assert headline(rows) == {"top1": 2.0, "macs": 3.0}
    assert headline([]) == {}
