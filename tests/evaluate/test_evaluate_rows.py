"""The long results table: right numbers, stable bytes, no test labels in any choice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import exits_record, make_cost, make_record

from bench.config.schema import Evaluate
from bench.errors import RunError
from bench.evaluate.columns import COLUMNS, INTEGERS, NUMBERS, ON_DEMAND, Row
from bench.evaluate.record import DecisionRecord
from bench.evaluate.rows import failed_row, make_rows, read_rows, write_rows
from bench.evaluate.stats import wilson

META = {
    "protocol_version": 1, "comparison": "c", "run": "r", "run_id": "abc", "label": "R, with a comma", "dataset": "d",
    "split_hash": "h", "protocol": "holdout", "seed": 3, "method": "m", "backbone": "b", "stage": "train",
    "status": "done", "reason": "", "torch": "2", "python": "3", "device": "cpu", "host_class": "x", "amp": "off",
}  # fmt: skip


def rows_of(record, cost, val=None, capabilities=(), **evaluate):  # type: ignore[no-untyped-def]
    records = {"test": record} | ({"val": val} if val is not None else {})
    return make_rows({**META, "capabilities": list(capabilities)}, records, cost, Evaluate(**evaluate))


def gated(n: int = 400, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    counts = np.concatenate([np.ones((2, n, 1)), rng.integers(0, 2, (2, n, 3))], axis=2).astype(np.uint8)
    record = make_record([1.0, 0.8], counts, n=n, seed=seed, points=["t0.5", "t0.9"])
    return record, make_cost([100, 30, 20, 10], blocks=[0.0, 100 / 3, 100 / 3, 100 / 3])


def test_static_row_by_hand() -> None:
    record = make_record([1.0], np.array([[1, 2, 0]], np.uint8), n=250)
    (row,) = rows_of(record, make_cost([100, 30, 7]))
    hits = int(record.outcomes.hit[0].sum())
    interval = wilson(hits, 250)
    assert row["top1"] == pytest.approx(100 * hits / 250, abs=1e-4)
    assert row["top1_lo"] == pytest.approx(100 * interval.low, abs=1e-4)
    assert row["top1_hi"] == pytest.approx(100 * interval.high, abs=1e-4)
    assert row["interval"] == "95 % Wilson interval: this trained network on new images"
    assert (row["macs"], row["macs_p95"], row["macs_max"], row["adaptive"]) == (160, 160, 160, "no")
    assert (row["policy"], row["point"], row["default"], row["chosen_on"]) == ("fixed", "p0", "yes", "nothing")
    assert (row["n"], row["split"], row["setting"], row["seed"]) == (250, "test", None, 3)
    assert row["nll"] == pytest.approx(-record.outcomes.logp[0].mean(), abs=1e-5)
    assert set(row) == set(COLUMNS)


def test_gated_rows_by_hand() -> None:
    record, cost = gated()
    rows = rows_of(record, cost, capabilities=["gates"])
    assert [row["point"] for row in rows] == ["t0.5", "t0.9"]
    for k, row in enumerate(rows):
        spent = record.signals.counts[k].astype(int) @ np.array([100, 30, 20, 10])
        assert row["macs"] == pytest.approx(spent.mean())
        assert row["macs_max"] == spent.max()
        assert row["macs_p95"] == sorted(spent)[int(np.ceil(0.95 * 400)) - 1]
        assert row["adaptive"] == "yes"
        blocks = record.signals.counts[k, :, 1:].sum(axis=1) / 3 * 100
        assert row["legacy_blocks"] == pytest.approx(blocks.mean(), abs=1e-4)


def test_exit_rows_cover_all_policies_and_bounds() -> None:
    val, test = exits_record(500, 1)[0], exits_record(400, 2)[0]
    rows = rows_of(test, exits_record()[1], val, ["exits"])
    names = list(dict.fromkeys(row["policy"] for row in rows))
    assert names == ["anytime", "budgeted", "confidence", "oracle", "random"]
    by = {name: [row for row in rows if row["policy"] == name] for name in names}
    assert [row["point"] for row in by["anytime"]] == ["exit5", "exit1", "exit2", "exit3", "exit4"]
    assert [row["default"] for row in by["anytime"]] == ["yes", "no", "no", "no", "no"]
    assert len(by["budgeted"]) == 40
    assert {row["chosen_on"] for row in by["budgeted"]} == {"validation"}
    assert {row["chosen_on"] for row in by["confidence"]} == {"nothing"}
    (best,) = by["oracle"]
    assert best["chosen_on"] == "test labels (bound)"
    assert all(best["top1"] >= row["top1"] for row in rows)
    assert all(row["top1_lo"] is None and row["ece"] is None for row in by["random"])
    assert rows_of(test, exits_record()[1], None, ["exits"])[5]["policy"] == "confidence"


def test_random_row_by_hand() -> None:
    test, cost = exits_record(400, 2)
    rows = [r for r in rows_of(test, cost, None, ["exits"]) if r["policy"] == "random" and r["setting"] == 1]
    macs = cost.cost(test.signals.counts)["macs"]
    assert rows[0]["top1"] == pytest.approx(100 * test.outcomes.hit.mean(), abs=1e-4)
    assert rows[0]["macs"] == pytest.approx(macs.mean())
    assert rows[0]["macs_p95"] == macs.max()


@pytest.mark.parametrize("capability", ["exits", "gates"])
def test_permuted_test_labels_change_only_outcomes(capability: str) -> None:
    val, (test, cost) = (exits_record(300, 1)[0], exits_record(200, 2)) if capability == "exits" else (None, gated())
    permuted = np.random.default_rng(0).permutation(test.n)
    outcomes = dataclasses.replace(
        test.outcomes,
        **{name: getattr(test.outcomes, name)[..., permuted] for name in ("label", "hit", "hit5", "logp")},
    )
    before = rows_of(test, cost, val, [capability])
    after = rows_of(DecisionRecord(test.signals, outcomes), cost, val, [capability])
    blind = ("policy", "point", "setting", "macs", "macs_p95", "macs_max", "macs_fvcore", "chosen_on", "adaptive")
    compared = [(a, b) for a, b in zip(before, after) if a["policy"] != "oracle"]
    assert all(a[name] == b[name] for a, b in compared for name in blind)
    assert len(compared) > 1


def test_confidence_level_is_honoured() -> None:
    record = make_record([1.0], np.ones((1, 2), np.uint8), n=250)
    narrow, wide = (rows_of(record, make_cost([1, 1]), confidence_level=level)[0] for level in (0.5, 0.99))
    assert narrow["top1_hi"] - narrow["top1_lo"] < wide["top1_hi"] - wide["top1_lo"]
    assert wide["interval"].startswith("99 % ")


def test_other_units_or_points_are_an_error() -> None:
    record, cost = gated()
    with pytest.raises(RunError, match="same units"):
        rows_of(record, make_cost([1, 2]))
    with pytest.raises(RunError, match="same operating points"):
        rows_of(record, cost, make_record([1.0], np.ones((1, 4), np.uint8), n=10))


def test_csv_round_trip_and_bytes(tmp_path: Path) -> None:
    record, cost = gated()
    rows = rows_of(record, cost, capabilities=["gates"])
    rows.append(failed_row({**META, "seed": 4}, "failed", 'CUDA out of memory, "really"'))
    write_rows(tmp_path / "a.csv", rows)
    again = read_rows(tmp_path / "a.csv")
    assert again[:2] == rows[:2]
    assert {name: again[2][name] for name in COLUMNS} == rows[2]
    assert again[2]["top1"] is None
    assert again[2]["legacy_blocks"] is None
    assert again[2]["status"] == "failed"
    write_rows(tmp_path / "b.csv", again)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    header = (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
    assert header == [*(name for name in COLUMNS if name not in ON_DEMAND), "legacy_blocks"]


def test_damaged_csv_is_one_line(tmp_path: Path) -> None:
    record, cost = gated()
    write_rows(tmp_path / "a.csv", rows_of(record, cost))
    text = (tmp_path / "a.csv").read_text()
    for damaged in ("", "a,b\n1,2\n", text[: len(text) - 40], text.replace(",160,", ",x,", 1) + "1,2\n"):
        (tmp_path / "b.csv").write_text(damaged)
        with pytest.raises(RunError) as caught:
            read_rows(tmp_path / "b.csv")
        assert "b.csv" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="is missing"):
        read_rows(tmp_path / "c.csv")


def test_every_column_is_documented_and_typed() -> None:
    import inspect

    source = inspect.getsource(Row)
    for name in COLUMNS:
        assert f"    {name}: " in source
    assert set(COLUMNS) > INTEGERS | NUMBERS
    assert not {"wall_s", "started_at", "latency"} & set(COLUMNS)
