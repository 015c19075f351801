"""Tables and figures beyond accuracy: complete, readable, the same bytes for the same records."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from synthetic_results import FAMILIES, QUICK, gates, write_results

from bench.evaluate.analysis import Analysis
from bench.evaluate.diagnostics import TABLES
from bench.evaluate.diagnostics.results import FOLDER, diagnose_results
from bench.evaluate.record import DecisionRecord
from bench.evaluate.results import Results, read_results
from bench.report.diagnostics import CAPTIONS, draw_diagnostics
from bench.report.diagnostics.agreement import agreement_figure
from bench.report.diagnostics.frame import MOST_RUNS, keep_runs, share_colours, thin, words_of
from bench.report.diagnostics.payers import payers_figure, spread
from bench.report.diagnostics.reliability import reliability_figure
from bench.report.diagnostics.usage import usage_figure
from bench.report.style import FORMATS, styled

FIGURES = (usage_figure, reliability_figure, payers_figure, agreement_figure)


def closed_gates(n: int, seed: int):  # type: ignore[no-untyped-def]
    """Eight gated blocks, of which the default point runs none."""
    record, cost = gates(80, 1.3, 8)(n, seed)
    counts = record.signals.counts.copy()
    counts[0, :, 1:] = 0
    return DecisionRecord(replace(record.signals, counts=counts), record.outcomes), cost


CLOSED = ("closed8", "Gated ResNet-20", "gated", ["gates"], closed_gates, ["train"])
LONG = ("long", "A gated residual network with a very long name indeed", "long", ["gates"], gates(60, 1.0, 54), ["t"])
MANY = [*FAMILIES, CLOSED, LONG, ("twin", "Gated twin", "gated", ["gates"], gates(30, 0.8), ["t"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"), MANY, seeds=(0, 1), n=400, val=200)


def written(results: Results, out: Path) -> dict[str, Path]:
    """The tables of the diagnostics in a folder of their own, by name."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    analysis = Analysis(replace(results, out=out, runs=results.runs))
    analysis.write()
    return {path.stem: path for path in (out / FOLDER).glob("*.csv")}


def words(figure) -> str:  # type: ignore[no-untyped-def]
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


def test_every_table_has_its_columns_and_reads_back(folder: Path, tmp_path: Path) -> None:
    found = written(read_results(folder), tmp_path)
    diagnosis = diagnose_results(read_results(folder))
    assert set(found) == set(TABLES)
    for name, path in found.items():
        table = pd.read_csv(path)
        assert tuple(table.columns) == TABLES[name]
        assert len(table) == len(diagnosis.tables[name]) > 0
    usage = pd.read_csv(found["usage"])
    assert usage["share"].between(0, 1).all()
    exits = usage[(usage["kind"] == "exit") & (usage["class"] == "all")]
    assert np.allclose(exits.groupby(["run", "policy"])["share"].sum(), 1)
    assert set(usage["class_name"].dropna()) >= {"airplane", "truck"}
    bins = pd.read_csv(found["calibration"])
    assert (bins.groupby(["run", "seed", "policy", "point"], dropna=False)["count"].sum() == 400).all()
    assert [w.text.split(":")[0] for w in diagnosis.warnings] == ["Gated ResNet-20, seed 0", "Gated ResNet-20, seed 1"]


def test_the_same_records_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for place in ("a", "b"):
        results = read_results(folder)
        written(results, tmp_path / place)
        draw_diagnostics(results, diagnose_results(results), tmp_path / place / "plots")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").glob("*/*.*"))
    assert len(files) == len(TABLES) + 3 * len(CAPTIONS)
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_figures_are_written_with_captions_in_every_format(folder: Path, tmp_path: Path) -> None:
    results = read_results(folder)
    paths = draw_diagnostics(results, diagnose_results(results), tmp_path)
    assert [path.name for path in paths] == [f"{stem}.{kind}" for stem in CAPTIONS for kind in FORMATS]
    assert all(path.stat().st_size > 5000 for path in paths)
    for path in paths:
        if path.suffix == ".svg":
            ElementTree.parse(path)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet"])
@pytest.mark.parametrize("make", FIGURES)
def test_all_words_lie_within_the_figure(folder: Path, make, dataset: str) -> None:  # type: ignore[no-untyped-def]
    results = replace(read_results(folder), dataset=dataset)
    if dataset == "imagenet":  # a thousand classes, numbers as names; most have no images
        runs = [run for run in results.runs if run.measured]
        for run in runs[:1]:
            outcomes = run.measured.test.outcomes  # type: ignore[union-attr]
            run.measured.records["test"] = DecisionRecord(  # type: ignore[union-attr, index]
                run.measured.test.signals, replace(outcomes, label=outcomes.label * 111))  # type: ignore[union-attr]
    diagnosis = diagnose_results(results)
    assert len(diagnosis.names) == {"cifar10": 10, "cifar100": 100, "imagenet": 1000}[dataset]
    with styled():
        figure = make(results, diagnosis)
        renderer = figure.canvas.get_renderer()
        figure.draw(renderer)
        width, height = figure.get_size_inches() * figure.dpi
        for text in figure.findobj(Text):
            if text.get_text().strip() and text.get_visible():
                box = text.get_window_extent(renderer)
                assert box.x0 >= -1, text.get_text()
                assert box.x1 <= width + 1, text.get_text()
                assert box.y0 >= -1, text.get_text()
                assert box.y1 <= height + 1, text.get_text()
        assert height / figure.dpi < 11  # a page


def test_figures_say_data_seeds_settings_and_what_is_left_out(folder: Path) -> None:
    results = read_results(folder)
    diagnosis = diagnose_results(results)
    with styled():
        said = {make: words(make(results, diagnosis)) for make in FIGURES}
    for text in said.values():
        assert "cifar10, 400 test images" in text
        assert "2 seeds (0, 1)" in text
    assert "Early exits: budgeted batch, r = " in said[usage_figure]
    assert "Gated ResNet-38: point t0.5" in said[payers_figure]
    assert "gates collapsed (seeds 0, 1)" in said[usage_figure]
    assert "the gates are all closed at t0.5" in said[usage_figure]
    assert "FLOPs are multiply-accumulates" in said[payers_figure]
    # of ten runs, seven have several points; the first of the others takes the last place
    assert "Not drawn, for want of room: ResNet-14, ResNet-20." in said[reliability_figure]
    ece = [row["ece"] for row in diagnosis.tables["calibration_summary"] if row["run"] == "resnet8"]
    assert f"full {np.mean(ece):.1f}" in said[reliability_figure]


def test_published_protocol_has_no_mixture_and_says_so(tmp_path: Path) -> None:
    out = write_results(tmp_path, FAMILIES, n=200, protocol="published")
    results = read_results(out)
    found, diagnosis = written(results, out), diagnose_results(results)
    assert "No mixture of operating points for Adaptive-depth ResNet-26, Early exits, Early exits, improved: " \
           "no validation part to choose a setting on." in diagnosis.notes  # fmt: skip
    usage = pd.read_csv(found["usage"])
    assert set(usage["run"]) == {"gated38"}
    with styled():
        assert "No mixture of operating points" in words(reliability_figure(results, diagnosis))


def test_what_no_longer_holds_is_removed_and_the_rest_stays(folder: Path, tmp_path: Path) -> None:
    results = read_results(folder)
    written(results, tmp_path)
    draw_diagnostics(results, diagnose_results(results), tmp_path / "plots")
    (tmp_path / "plots" / "usage-heatmap-mine.png").write_text("mine")
    plain = read_results(write_results(tmp_path / "plain", QUICK, n=200))
    found = written(plain, tmp_path)
    drawn = draw_diagnostics(plain, diagnose_results(plain), tmp_path / "plots")
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {"calibration.csv", "calibration_summary.csv"}
    assert set(found) == {"calibration", "calibration_summary"}
    assert {path.stem for path in drawn} == {"reliability"}
    left = {path.name for path in (tmp_path / "plots").iterdir()}
    assert left == {"usage-heatmap-mine.png", *(f"reliability.{kind}" for kind in FORMATS)}


def test_runs_that_failed_or_kept_no_records_are_passed_over(tmp_path: Path) -> None:
    out = write_results(tmp_path, QUICK, n=200, broken={("resnet8", 0): ("failed", "out of memory")})
    folder = out / json.loads((out / "comparison.json").read_text())["runs"][1]["folder"]
    for path in folder.glob("*.npz"):
        path.unlink()
    found = written(read_results(out), out)
    assert set(pd.read_csv(found["calibration"])["run"]) == {"resnet20"}
    assert diagnose_results(read_results(out)).notes == ["No decision records were kept of ResNet-14."]


def test_a_comparison_without_any_numbers_draws_nothing(tmp_path: Path) -> None:
    out = write_results(tmp_path, QUICK[:1], broken={("resnet8", 0): ("failed", "out of memory")})
    results = read_results(out)
    assert written(results, out) == {}
    assert draw_diagnostics(results, diagnose_results(results), out / "plots") == []


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(0.05, 0.3)), min_size=1, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_labels_do_not_overlap_and_keep_their_order(boxes: list[tuple[float, float]]) -> None:
    wanted, high = [place for place, _ in boxes], [size for _, size in boxes]
    centres = spread(wanted, high, 2.0)
    order = sorted(range(len(boxes)), key=lambda k: (wanted[k], k))
    for below, above in pairwise(order):
        assert centres[above] - high[above] / 2 >= centres[below] + high[below] / 2 - 1e-9
    if sum(high) <= 2.0:
        assert centres[order[-1]] + high[order[-1]] / 2 <= 2.0 + 1e-9
        assert centres[order[0]] - high[order[0]] / 2 >= -1e-9


def test_labels_that_do_not_collide_stay_where_they_are() -> None:
    assert spread([1.5, 0.5], [0.2, 0.2], 2.0) == [1.5, 0.5]


def test_shares_get_darker_all_the_way() -> None:
    rgb = share_colours()(np.linspace(0, 1, 50))[:, :3]
    luminance = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    assert luminance[0] < 0.99  # not taken for paper


def test_many_runs_and_points_are_thinned() -> None:
    names = [f"r{k}" for k in range(12)]
    drawn, others = keep_runs(names, lambda name: name in ("r10", "r11"))
    assert drawn == [*names[: MOST_RUNS - 2], "r10", "r11"]
    assert [*drawn, *others] == [*names[:6], "r10", "r11", *names[6:10]]
    assert thin(3, 4) == [0, 1, 2]
    assert thin(10, 4) == [0, 3, 6, 9]
    assert thin(100, 16)[-1] == 99
    assert len(thin(100, 16)) == 16


def test_settings_in_words() -> None:
    assert words_of("budgeted", "", "0.5 0.55") == "budgeted batch, r = 0.5 / 0.55"
    assert words_of("fixed", "t0.5", "") == "point t0.5"
