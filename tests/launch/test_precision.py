"""The precision of evaluation: the training's own, or `evaluate.amp`; rows and times say which it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import quick_run, write_quick

from bench.api import run
from bench.config.load import load_config
from bench.config.resolve import resolve
from bench.data import open_data
from bench.evaluate.latency import read_latency
from bench.evaluate.record import DecisionRecord
from bench.launch.export import open_run
from bench.launch.latency import LatencySettings, measure_latency


@pytest.mark.parametrize(("asked", "used", "dtype"), [("recipe", "bf16", "bfloat16"), ("off", "off", "float32")])
def test_rows_record_and_times_have_the_precision_that_was_asked_for(
    tmp_path: Path, asked: str, used: str, dtype: str
) -> None:
    path = write_quick(tmp_path, [quick_run("resnet")], recipe={"amp": "bf16"}, evaluate={"amp": asked})
    out = tmp_path / "out"
    assert run(path, out=out, isolate=False, quiet=True).exit_code == 0
    (folder,) = (out / "runs").iterdir()
    assert json.loads((folder / "meta.json").read_text())["amp"] == used
    assert {row["amp"] for row in csv.DictReader((folder / "rows.csv").open())} == {used}

    loaded = load_config(path)
    (spec,) = resolve(loaded)
    record, trained = DecisionRecord.load(folder, "test"), open_run(out)
    loader = open_data(spec.data).eval_loader("test", spec.stages[-1].recipe, batch_size=64, device=torch.device("cpu"))
    images = torch.cat([batch[0] for batch in loader])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=used == "bf16"):
        logits = trained.method.record(trained.model, images).logits[0]
    confidence = logits.float().softmax(-1).amax(-1).numpy()
    assert np.allclose(record.signals.confidence[0], confidence, atol=1e-6)

    measure_latency([spec], loaded.comparison, out, LatencySettings((4,), rounds=1, warmup=0, images=8), lambda _: None)
    assert {row["dtype"] for row in read_latency(out)} == {dtype}
