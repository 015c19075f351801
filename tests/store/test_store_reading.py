"""What a stranger could put into a results folder: read as data, bounded, or refused in one line."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Made, call, tables

from bench.cost.table import CostTable
from bench.errors import CostError, RunError
from bench.evaluate import npz
from bench.evaluate.npz import read_arrays, write_arrays
from bench.store.reading import Damaged, parse_json
from bench.store.sealed import read_sealed, write_sealed


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', "[1]", "3", "", '{"a": "\udcff"}', '{"a": 1',
])  # fmt: skip
def test_json_that_is_not_ours_is_one_line(text: str) -> None:
    with pytest.raises(Damaged) as refused:
        parse_json(text.encode("utf-8", "surrogateescape"), Path("status.json"))
    assert str(refused.value).startswith("status.json is damaged")
    assert "\n" not in str(refused.value)


def _archive(path: Path, header: dict[str, Any], body: bytes) -> Path:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("x.npy", content.getvalue() + body)
    return path


def test_an_array_that_is_larger_than_its_file_is_refused_before_it_is_made(tmp_path: Path) -> None:
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    with pytest.raises(RunError, match=r"header of x\.npy does not fit"):
        read_arrays(_archive(tmp_path / "a.npz", header, b"\0" * 64))


def test_arrays_that_unpack_to_too_much_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_arrays(tmp_path / "a.npz", {"x": np.zeros(100_000)})
    assert read_arrays(tmp_path / "a.npz")["x"].shape == (100_000,)
    monkeypatch.setattr(npz, "LIMIT", 700_000)
    with pytest.raises(RunError, match="need more than 700,000 bytes"):
        read_arrays(tmp_path / "a.npz")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunError, match="does not fit its size"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("value", [-1, 1.5, True, "7", None])
def test_costs_that_cannot_be_are_refused(made: Made, value: object) -> None:
    (folder,) = made.out.glob("runs/a-*")
    stored = parse_json((folder / "cost.json").read_bytes(), folder / "cost.json")
    CostTable.from_dict(stored)
    stored["columns"]["macs"][0] = value
    with pytest.raises(CostError, match="damaged"):
        CostTable.from_dict(stored)


def _runs(made: Made) -> list[tuple[str, str]]:
    with (made.out / "results.csv").open() as file:
        return sorted({(row["run"], row["seed"]) for row in csv.DictReader(file)})


def test_only_and_seeds_say_what_to_do_and_not_what_the_tables_hold(made: Made, tmp_path: Path) -> None:
    here = made.copy(tmp_path / "here")
    described = (here.out / "comparison.json").read_bytes()
    before = tables(here.out)
    assert call(here, "run", "--only", "a", "--seeds", "0").code == 0
    assert tables(here.out) == before
    assert (here.out / "comparison.json").read_bytes() == described
    assert call(here, "run", "--only", "b", "--seeds", "1").code == 0
    assert _runs(here) == [("a", "0"), ("b", "0"), ("b", "1")]
    assert call(here, "report").code == 0
    assert _runs(here) == [("a", "0"), ("b", "0"), ("b", "1")]


def test_a_run_that_the_file_no_longer_has_leaves_the_tables(made: Made, tmp_path: Path) -> None:
    here = made.copy(tmp_path / "here")
    here.config.write_text(here.config.read_text().replace("name: b", "name: c").replace("lr: 0.1", "lr: 0.2"))
    assert call(here, "run").code == 0
    assert _runs(here) == [("a", "0"), ("c", "0")]


def test_rows_of_a_policy_that_is_no_longer_known_are_left_out(made: Made, tmp_path: Path) -> None:
    here = made.copy(tmp_path / "here")
    for path in here.out.glob("runs/a-*/spec.json"):
        spec = read_sealed(path)
        spec["evaluate"]["policies"] = ["of_yesterday"]
        write_sealed(path, spec)
    done = call(here, "report")
    assert done.code == 0
    assert "Policy 'of_yesterday' is not known to this version" in done.said
    assert _runs(here) == _runs(made)


def test_leftovers_of_killed_processes_are_swept(made: Made, tmp_path: Path) -> None:
    here = made.copy(tmp_path / "here")
    for name in ("splits/.tmp-1-ab-split.npz", "runs/.tmp-2-cd-x"):
        (here.out / name).write_text("half")
    assert call(here, "run").code == 0
    assert not list(here.out.rglob(".tmp-*"))


def test_a_curve_that_is_not_text_does_not_fail_the_run(made: Made, tmp_path: Path) -> None:
    here = made.copy(tmp_path / "here")
    before = tables(here.out)
    for path in [*here.out.glob("runs/a-*/metrics.jsonl"), *here.out.glob("stages/*/metrics.jsonl")]:
        path.write_bytes(b"\xff\xfe\n")
    done = call(here, "run")
    assert done.code == 0
    assert "metrics.jsonl" in done.said
    assert {name: content for name, content in tables(here.out).items() if name != "latency.csv"} == {
        name: content for name, content in before.items() if name != "latency.csv"}  # fmt: skip
