"""From a results folder to the comparison's tables."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import FAMILIES, QUICK, write_results

from bench.evaluate.analysis import Analysis
from bench.evaluate.comparing.compare import TABLES, Compared, compare
from bench.evaluate.latency import COLUMNS, mean_times, write_latency
from bench.evaluate.policies.base import Policy
from bench.evaluate.policies.catalogue import POLICIES
from bench.evaluate.record import Outcomes, Signals
from bench.evaluate.results import read_results
from bench.report import draw
from bench.report.summary import print_summary

BUDGETS = (0.5, 1.0, "25M", "60M")


def compared(out: Path, recipes: Any = FAMILIES, **options: Any) -> Compared:
    if "protocol" not in options:
        options = {"reference": "resnet20", "budgets": BUDGETS, **options}
    return compare(read_results(write_results(out, recipes, **{"n": 300, "val": 200, "epochs": 2, **options})))


def test_every_contender_budget_and_pair_has_a_row(tmp_path: Path) -> None:
    found = compared(tmp_path, seeds=(0, 1, 2), auc=(1, 2), verdicts={"against": "all"})
    assert len(found.budgets) == 7 * 4 * 3
    assert len(found.budget_summary) == 7 * 4
    assert len(found.verdicts) == 21 * 5  # four budgets and the area
    assert {row["budget"] for row in found.verdicts} == {"0.5", "1", "25M", "60M", "auc"}
    decided = [row for row in found.verdicts if row.get("verdict")]
    assert {row["comparisons"] for row in decided} == {len(decided)}
    assert all(row["reason"] for row in found.verdicts if not row.get("verdict"))
    assert {row["verdict"] for row in decided} <= {"yes", "no", "undecided", "not reached"}
    for row in found.budgets:
        assert row.get("top1") is not None or row["reason"]
        assert row.get("val_macs", 0) <= row["budget_macs"]
    assert {row["on_front"] for row in found.frontier} == {"yes", "no"}
    assert {row["seed"] for row in found.frontier} == {0, 1, 2, "mean"}
    assert found.notes == []
    assert found.auc_range == (40.6e6, 81.2e6)
    assert set(found.staircases) == {row["contender"] for row in found.auc if row["seed"] == "mean" and row.get("auc")}


def test_the_default_asks_about_the_reference_the_area_first_then_the_dearest(tmp_path: Path) -> None:
    found = compared(tmp_path, seeds=(0, 1, 2), auc=(1, 2))
    assert {row["b"] for row in found.verdicts} == {"resnet20"}
    assert len(found.verdicts) == 6 * 5
    order = {row["asked"]: row["budget"] for row in found.verdicts if row.get("asked")}
    assert [order.get(k) for k in range(1, 6)] == ["auc", "60M", "1", None, None]  # resnet20 affords no more
    group = {run: {"group": "ResNets"} for run in ("resnet8", "resnet14", "resnet20")}
    asked = {"first": 0.5, "order": "cheapest_first"}
    found = compared(tmp_path / "grouped", seeds=(0, 1, 2), more=group, verdicts=asked)
    assert {row["b"] for row in found.verdicts} == {"ResNets"}
    order = {row["asked"]: row["budget"] for row in found.verdicts if row.get("asked")}
    assert order == {1: "0.5", 2: "25M", 3: "1", 4: "60M"}  # no area: nobody affords its low end


def test_neither_areas_nor_budgets_nor_p_depend_on_who_else_takes_part(tmp_path: Path) -> None:
    options: dict[str, Any] = {"seeds": (0, 1, 2), "auc": (1, 2), "budgets": (1.0, "60M")}
    whole = compared(tmp_path / "a", **options)
    for number, left_out in enumerate(("paths20", "early5plus", "gated38")):
        recipes = [recipe for recipe in FAMILIES if recipe[0] != left_out]
        fewer = compared(tmp_path / f"b{number}", recipes, position_of=[r[0] for r in FAMILIES], **options)
        for table in ("budgets", "budget_summary", "auc"):
            kept = [row for row in getattr(whole, table) if row["contender"] != left_out]
            assert getattr(fewer, table) == kept, (table, left_out)
        names = ("a", "b", "budget", "effect", "p", "both_lo", "both_hi", "reason")
        before = [[row.get(n) for n in names] for row in whole.verdicts if row["a"] != left_out]
        assert [[row.get(n) for n in names] for row in fewer.verdicts] == before
        assert any(row.get("p") for row in fewer.verdicts)


def test_seeds_that_choose_different_networks_are_not_tested(tmp_path: Path) -> None:
    group = {run: {"group": "small"} for run in ("resnet8", "resnet14")}
    found = compared(tmp_path, QUICK, seeds=(0, 1, 2, 3), val=12, more=group, budgets=("25M", "60M"))
    rows = {row["budget"]: row for row in found.verdicts}
    picked = [row["run"] for row in found.budgets if row["budget"] == "60M" and row["contender"] == "small"]
    assert set(picked) == {"resnet8", "resnet14"}  # so small a validation part cannot tell them apart
    assert rows["60M"]["verdict"] == "unstable"
    assert "resnet14 (seed" in rows["60M"]["note"]
    assert rows["25M"]["reason"].startswith("ResNet-20: no operating point")


def test_share_of_the_reference(tmp_path: Path) -> None:
    found = compared(tmp_path, seeds=(0,))
    limits = {row["budget"]: row["budget_macs"] for row in found.budgets}
    assert limits == {"0.5": 20.3e6, "1": 40.6e6, "25M": 25e6, "60M": 60e6}
    own = next(row for row in found.budgets if row["contender"] == "resnet20" and row["budget"] == "1")
    assert own["macs"] == 40.6e6
    assert own["over_budget_percent"] == 0


def test_a_reference_whose_cost_varies_fits_its_own_budget_in_every_seed(tmp_path: Path) -> None:
    found = compared(tmp_path, seeds=(0, 1, 2), reference="gated38", budgets=(1.0,))
    mine = [row for row in found.budgets if row["contender"] == "gated38"]
    assert len({row["val_macs"] for row in mine}) == 3
    assert all(row["top1"] is not None for row in mine)
    assert max(row["val_macs"] for row in mine) == mine[0]["budget_macs"]


def test_an_unfinished_reference_is_a_reason(tmp_path: Path) -> None:
    found = compared(tmp_path, QUICK, broken={("resnet20", 0): ("failed", "out of memory")})
    shares = [row for row in found.budgets if row["budget"] == "0.5" and row["contender"] == "resnet8"]
    assert shares[0]["reason"] == "the reference run resnet20 is not done (failed)"
    assert "ResNet-20 is not compared: out of memory." in found.notes


def test_a_reference_that_is_left_out_is_a_reason(tmp_path: Path) -> None:
    found = compared(tmp_path, QUICK[:2])  # as after --only
    assert found.budgets[0]["reason"] == "the reference run resnet20 is none of the runs here"


def test_a_group_is_one_contender(tmp_path: Path) -> None:
    group = {run: {"group": "ResNets"} for run in ("resnet8", "resnet14", "resnet20")}
    found = compared(tmp_path, QUICK, seeds=(0, 1), more=group)
    assert {row["contender"] for row in found.budgets} == {"ResNets"}
    picked = {row["budget"]: row["run"] for row in found.budgets if row["seed"] == 0}
    assert picked["0.5"] == "resnet8"
    assert picked["25M"] == "resnet8"
    assert picked["60M"] == "resnet20"
    assert found.verdicts == []  # nobody to compare with
    assert {row["low_macs"] for row in found.auc} == {0.25 * 40.6e6}
    assert {row["high_macs"] for row in found.auc} == {40.6e6}
    assert "range of the area (`auc:`) begins at 10.15M" in found.auc[0]["reason"]


def test_a_seed_that_lacks_a_member_does_not_weaken_the_group(tmp_path: Path) -> None:
    group = {run: {"group": "ResNets"} for run in ("resnet8", "resnet14", "resnet20")}
    broken = {("resnet8", seed): ("failed", "x") for seed in (0, 1, 2)}
    broken[("resnet20", 1)] = ("diverged", "loss is nan")
    found = compared(tmp_path, QUICK, seeds=(0, 1, 2), more=group, broken=broken)
    assert {row["seed"] for row in found.budgets} == {0, 2}
    assert found.notes == ["ResNets: without resnet8 (x).", "ResNets: without seed 1, which lacks resnet20."]


def test_one_seed_is_said_to_be_one_seed(tmp_path: Path) -> None:
    found = compared(tmp_path, QUICK)
    assert [note for note in found.notes if "one seed" in note] == [
        f"{label}: one seed; its intervals say nothing about other trainings."
        for label in ("ResNet-8", "ResNet-14", "ResNet-20")
    ]
    tested = [row for row in found.verdicts if row.get("verdict")]
    assert all(row["note"].startswith("one seed: says nothing about other trainings") for row in tested)
    assert not {row["verdict"] for row in tested} & {"yes", "no"}  # nothing is decided about methods


def test_nothing_is_chosen_under_the_published_protocol(tmp_path: Path) -> None:
    found = compared(tmp_path, FAMILIES[3:], protocol="published", budgets=("30M",))
    assert {row["reason"] for row in found.budgets} == {"no validation part to choose on (protocol: published)"}
    assert found.verdicts == []
    assert found.frontier == []
    assert "Early exits is not compared: no validation part to choose on (protocol: published)." in found.notes


def test_too_many_comparisons_are_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.evaluate.comparing.compare.MOST_VERDICTS", 10)
    found = compared(tmp_path)
    assert found.verdicts == []
    assert any(note.startswith("No verdicts: 30 comparisons") for note in found.notes)
    assert found.budget_summary


def test_plain_networks_are_compared_under_the_published_protocol(tmp_path: Path) -> None:
    options = {"protocol": "published", "reference": "resnet20", "budgets": (1.0,)}
    found = compared(tmp_path, QUICK, seeds=(0, 1), **options)
    assert {row["budget_macs"] for row in found.budgets} == {40_600_000}
    assert {(row["a"], row["b"], row["budget"]) for row in found.verdicts} == {
        ("resnet8", "resnet20", "1"), ("resnet14", "resnet20", "1"),
        ("resnet8", "resnet20", "auc"), ("resnet14", "resnet20", "auc"),
    }  # fmt: skip
    assert {row["verdict"] for row in found.verdicts if row["budget"] == "1"} == {"not tested"}  # two seeds


def test_without_budgets_there_are_still_areas_and_the_front(tmp_path: Path) -> None:
    found = compared(tmp_path, budgets=(), reference=None, seeds=(0, 1, 2), auc=("30M", "60M"))
    assert found.budgets == []
    assert found.frontier
    assert {row["budget"] for row in found.verdicts} == {"auc"}
    means = [row for row in found.auc if row["seed"] == "mean" and row.get("auc") is not None]
    assert len(means) >= 3
    assert all(row["interval"].endswith("the method over new training runs") for row in means)


def test_milliseconds_come_from_the_table_of_times(tmp_path: Path) -> None:
    out = write_results(tmp_path, FAMILIES, n=300, val=200, epochs=2, budgets=("1ms", "9ms"))
    results = read_results(out)
    assert {row["reason"] for row in compare(results).budgets} == {"nothing was timed at batch 1"}
    early = next(run for run in results.runs if run.run == "early5")
    base: dict[str, Any] = {**dict.fromkeys(COLUMNS), "run": "early5", "seed": 0, "batch": 1, "device": "cpu",
                            "host_class": "c", "threads": 1, "run_id": early.run_id, "policy": "anytime"}  # fmt: skip
    rows = [
        {**base, "point": "exit1", "ms_per_image": 0.8},
        {**base, "point": "exit3", "ms_per_image": 2.5},
        {**base, "point": "exit5", "ms_per_image": 0.1, "batch": 64},
        {**base, "point": "exit5", "ms_per_image": 0.2, "device": "cuda"},
    ]
    write_latency(out, rows, [early.run_id])
    found = compare(read_results(out))
    mine = [row for row in found.budgets if row["contender"] == "early5"]
    assert [(row["point"], row["ms"]) for row in mine] == [("exit1", 0.8), ("exit3", 2.5)]
    assert found.notes[-1] != found.notes[0]
    assert "Budgets in milliseconds are those of cpu on c, threads: 1." in found.notes
    other = next(row for row in found.budgets if row["contender"] == "resnet8")
    assert other["reason"] == "no operating point was timed at batch 1"


def test_times_are_means_over_seeds_and_the_worst_agreement(tmp_path: Path) -> None:
    out = write_results(tmp_path, QUICK, n=100, val=50, seeds=(0, 1))
    runs = [run for run in read_results(out).runs if run.run == "resnet8"]
    base: dict[str, Any] = {**dict.fromkeys(COLUMNS), "run": "resnet8", "batch": 1, "device": "cpu", "host_class": "c",
                            "threads": 1, "policy": "fixed", "point": "full", "macs": 1e6}  # fmt: skip
    rows = [
        {**base, "seed": run.seed, "run_id": run.run_id, "ms_per_image": ms, "ms_median": ms, "ms_p95": 2 * ms,
         "memory_mib": mib, "agreement": agreement}
        for run, ms, mib, agreement in zip(runs, (1.0, 3.0), (4.0, None), (1.0, 0.9))
    ]  # fmt: skip
    write_latency(out, rows, [run.run_id for run in runs])
    (row,) = mean_times(read_results(out))
    assert (row["ms_per_image"], row["ms_median"], row["ms_p95"]) == (2.0, 2.0, 4.0)
    assert (row["memory_mib"], row["energy_mj"], row["agreement"]) == (4.0, None, 0.9)


def test_runs_that_were_renamed_since_keep_their_new_name(tmp_path: Path) -> None:
    """As in a comparison across folders: the record still has the old one."""
    out = write_results(tmp_path, QUICK, n=300, val=200, epochs=2, budgets=("60M",))
    path = out / "comparison.json"
    comparison = json.loads(path.read_text())
    comparison["runs"][0] |= {"run": "resnet8@b", "label": "ResNet-8 (b)"}
    path.write_text(json.dumps(comparison))
    found = compare(read_results(out))
    assert found.budgets[0]["contender"] == "resnet8@b"
    assert found.budgets[0]["run"] == "resnet8@b"
    assert found.frontier[0]["run"] == "resnet8@b"


def test_no_verdict_between_different_test_images(tmp_path: Path) -> None:
    out = write_results(tmp_path, QUICK, n=300, val=200, epochs=2, budgets=("60M",))
    folder = next((out / "runs").glob("resnet8-*"))
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "protocol_version": 2}))
    rows = [row for row in compare(read_results(out)).verdicts if row["budget"] == "60M"]
    assert len(rows) == 3  # without a reference every pair is tested
    reasons = {(row["a"], row["b"]): row["reason"] for row in rows}
    assert reasons[("resnet8", "resnet14")] == "protocol versions 2 and 1"
    assert reasons[("resnet14", "resnet20")] == ""


def test_tables_are_the_same_bytes_twice_and_go_when_empty(tmp_path: Path) -> None:
    found = compared(tmp_path, seeds=(0, 1))
    names = {name for name, _, _ in TABLES}
    written = Analysis(read_results(tmp_path)).write()
    assert names <= {path.name for path in written}
    before = {path: path.read_bytes() for path in written}
    again = Analysis(read_results(tmp_path)).write()
    assert {path: path.read_bytes() for path in again} == before
    for name, attribute, columns in TABLES:
        with open(tmp_path / name, newline="") as file:
            reader = csv.DictReader(file)
            assert tuple(reader.fieldnames or ()) == tuple(columns)
            assert len(list(reader)) == len(getattr(found, attribute))
        assert {key for row in getattr(found, attribute) for key in row} <= set(columns), name
    nothing = Analysis(read_results(tmp_path))
    nothing.compared = Compared()
    assert not names & {path.name for path in nothing.write()}
    assert not any((tmp_path / name).exists() for name, _, _ in TABLES)


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_the_file_decides_the_level(tmp_path: Path, level: float) -> None:
    out = write_results(tmp_path, QUICK, n=300, val=200, epochs=2, budgets=("60M",), seeds=(0, 1, 2))
    path = out / "comparison.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "confidence_level": level}))
    found = compare(read_results(out))
    assert all(row["interval"].startswith(f"{100 * level:g} %") for row in found.budgets)
    assert all(row["both_interval"].startswith(f"{100 * level:g} %") for row in found.verdicts if row.get("verdict"))


def test_each_policy_is_fitted_once_per_run_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tables, figures and pages ask for it."""
    out = write_results(tmp_path, FAMILIES, n=200, val=100, epochs=2, seeds=(0, 1), reference="resnet20",
                        budgets=(0.5, 1.0))  # fmt: skip
    fits: Counter[tuple[int, str, Any]] = Counter()

    def count(kind: type[Policy]) -> None:
        original = kind.fit

        def fit(self: Policy, signals: Signals, outcomes: Outcomes) -> None:
            fits[id(signals), self.name, self.setting] += 1
            original(self, signals, outcomes)

        monkeypatch.setattr(kind, "fit", fit)

    for kind in {next(base for base in one.__mro__ if "fit" in vars(base)) for one in POLICIES.values()} - {Policy}:
        count(kind)
    monkeypatch.setattr("bench.report.style.FORMATS", ("svg",))
    kept = draw(out).analysis  # keeps the signals alive, so that their ids are their own
    print_summary(kept)
    assert {name for _, name, _ in fits} >= {"budgeted", "cascade"}
    assert set(fits.values()) == {1}
