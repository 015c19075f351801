"""bench.report.draw: right tables, readable figures, the same bytes for the same files."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from synthetic_results import FAMILIES, QUICK, write_results

from bench.errors import RunError
from bench.evaluate.results import read_results
from bench.evaluate.rows import read_rows
from bench.evaluate.seeds import COLUMNS, interval_over, summarise
from bench.evaluate.stats import t_quantile
from bench.report import draw
from bench.report.accuracy import accuracy_figure
from bench.report.curves import join_stages
from bench.report.style import COLOURS, MARKERS, format_macs, looks, pick, styled

BROKEN = {
    ("gated38", 1): ("diverged", "the loss is no longer finite at step 400 (epoch 4)"),
    ("resnet14", 0): ("failed", 'out of memory, "really"'),
    ("resnet14", 1): ("failed", 'out of memory, "really"'),
    ("resnet14", 2): ("skipped", "too slow"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven runs of three seeds, four of them without numbers, drawn."""
    out = write_results(tmp_path_factory.mktemp("results"), seeds=(0, 1, 2), n=400, val=200, broken=BROKEN)
    draw(out)
    return out


def test_all_rows_stand_in_results_csv_in_file_order(finished: Path) -> None:
    rows = read_rows(finished / "results.csv")
    assert list(dict.fromkeys(row["run"] for row in rows)) == [recipe[0] for recipe in FAMILIES]
    broken = [row for row in rows if row["status"] != "done"]
    assert [(row["run"], row["seed"]) for row in broken] == [("resnet14", s) for s in range(3)] + [("gated38", 1)]
    assert broken[0]["reason"] == 'out of memory, "really"'
    assert broken[0]["top1"] is None
    assert broken[0]["dataset"] == "cifar10"
    own = [row for run in read_results(finished).runs if run.done for row in read_rows(run.folder / "rows.csv")]
    assert [r["top1"] for r in rows if r["status"] == "done"] == [r["top1"] for r in own]
    assert "legacy_computation_percent" in pd.read_csv(finished / "results.csv").columns


def test_summary_over_seeds_by_hand(finished: Path) -> None:
    table = pd.read_csv(finished / "summary.csv")
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert (~table.duplicated(["run", "policy", "point", "setting"])).all()
    rows = [r for r in read_rows(finished / "results.csv") if r["run"] == "early5" and r["point"] == "exit3"]
    line = table[(table.run == "early5") & (table.point == "exit3")].iloc[0]
    top1 = [r["top1"] for r in rows]
    grain = 100**2 / (12 * rows[0]["n"] ** 2)  # accuracies are known to whole images
    half = t_quantile(0.975, 2) * math.sqrt((np.var(top1, ddof=1) + grain) / 3)
    assert line.n_seeds == 3
    assert line.seeds == "0 1 2"
    assert line.top1_mean == pytest.approx(np.mean(top1), abs=1e-5)
    assert line.top1_median == pytest.approx(sorted(top1)[1])
    assert (line.top1_min, line.top1_max) == (min(top1), max(top1))
    assert line.top1_hi - line.top1_mean == pytest.approx(half, abs=1e-5)
    assert line.interval == "95 % t interval over 3 seeds: the method over new training runs"
    budgeted = table[(table.run == "early5") & (table.policy == "budgeted")]
    assert len(budgeted) == 40
    assert (budgeted.macs_min <= budgeted.macs_mean).all()


def test_summary_says_what_is_incomplete(finished: Path) -> None:
    table = pd.read_csv(finished / "summary.csv").set_index("run")
    assert set(table.loc["gated38", "status"]) == {"2 of 3 done"}
    assert "seed 1 diverged" in table.loc["gated38", "reason"].iloc[0]
    assert table.loc["resnet14", "n_seeds"] == 0
    assert table.loc["resnet14", "status"] == "failed"
    assert "seed 2 skipped: too slow" in table.loc["resnet14", "reason"]
    assert math.isnan(table.loc["resnet14", "top1_mean"])


def test_one_seed_keeps_its_interval_over_images(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, QUICK, n=300, val=100))
    (first, *_) = summarise(results)
    (row,) = results.runs[0].rows
    assert (first["top1_lo"], first["top1_hi"], first["interval"]) == (row["top1_lo"], row["top1_hi"], row["interval"])
    assert first["interval"].endswith("this trained network on new images")


def test_drawing_twice_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("plots", "*.csv"))
    for folder in finished.rglob("rows.csv"):
        shutil.copy(folder, copy / folder.relative_to(finished))
    code = "import sys; from pathlib import Path; from bench.report import draw; draw(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(copy)], check=True)
    for path in [finished / "results.csv", finished / "summary.csv", *(finished / "plots").iterdir()]:
        assert path.read_bytes() == (copy / path.relative_to(finished)).read_bytes(), path.name


def test_every_figure_comes_in_three_formats(finished: Path) -> None:
    names = sorted(path.name for path in (finished / "plots").iterdir())
    stems = ["accuracy-vs-macs", "accuracy-vs-macs-column", "exit-agreement", "pareto-front", "reliability",
             "training-curves", "usage-heatmap", "who-pays"]  # fmt: skip
    assert names == sorted(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg", "pdf"))
    for path in (finished / "plots").glob("*.svg"):
        ElementTree.parse(path)
        assert b"<dc:date>" not in path.read_bytes()
    for path in (finished / "plots").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")
        assert b"/CreationDate" not in path.read_bytes()


def test_the_backend_of_the_user_is_left_alone(finished: Path) -> None:
    code = (
        "import sys, matplotlib\nmatplotlib.rcParams['font.size'] = 3\n"
        "def settings(): return {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = settings()\n"
        "from pathlib import Path\nfrom bench.report import draw\ndraw(Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
        "assert settings() == before\n"
    )
    subprocess.run([sys.executable, "-c", code, str(finished)], check=True)


def texts(figure):  # type: ignore[no-untyped-def]
    axes = figure.axes[0]
    return {text.get_text(): text for text in axes.texts}


@pytest.mark.parametrize("width", [7.0, 3.4])
def test_labels_name_every_run_and_do_not_overlap(finished: Path, width: float) -> None:
    results = read_results(finished)
    lines = [line for line in summarise(results) if line.get("top1_mean") is not None]
    with styled():
        figure = accuracy_figure(results, lines, width, 3.9 if width > 5 else 2.7)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = {name: text.get_window_extent(renderer) for name, text in texts(figure).items()}
        frame = figure.axes[0].get_window_extent(renderer)
    assert set(boxes) == {recipe[1] for recipe in FAMILIES} - {"ResNet-14"}
    names = list(boxes)
    for i, a in enumerate(names):
        assert frame.x0 - 1 <= boxes[a].x0
        assert boxes[a].x1 <= frame.x1 + 1
        for b in names[i + 1 :]:
            assert not boxes[a].overlaps(boxes[b]), (a, b)


def test_figure_says_how_to_read_it(finished: Path) -> None:
    results = read_results(finished)
    lines = [line for line in summarise(results) if line.get("top1_mean") is not None]
    with styled():
        figure = accuracy_figure(results, lines, 7.0, 3.9)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        everything = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
        extents = [text.get_window_extent(renderer) for text in figure.texts]
        extents.append(figure.legends[0].get_window_extent(renderer))
        page = figure.bbox
    for words in ("MACs", "norms, activations and pooling are not", "cifar10, 400 test images", "holdout", "3 seeds",
                  "the method over new training runs", "Gated ResNet-38, ResNet-14"):  # fmt: skip
        assert words in everything
    assert all(box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1 for box in extents)
    axes = figure.axes[0]
    assert axes.get_xlabel().startswith("FLOPs (MACs)")
    assert axes.get_xscale() == "log"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "static: every image costs the same" in legend
    assert "input-adaptive: gates" in legend
    assert "input-adaptive: exits, budgeted batch" in legend
    assert "input-adaptive: cascade of static paths" in legend


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    """Dollars and backslashes are no mathematics, angle brackets no markup."""
    named = [(QUICK[0][0], '$\\nosuch{$ at $5 & "six" <b>', *QUICK[0][2:]), QUICK[1]]
    out = write_results(tmp_path, named, title="A <title> of $\\bad{$", n=50, val=25, budgets=["20M"])
    page = draw(out).page.read_text("utf-8")
    assert "$\\nosuch{$ at $5 &amp; &#34;six&#34; &lt;b&gt;" in page
    assert "<b>" not in page.split("<tbody>")[1].split("</tbody>")[0]


def test_axis_is_linear_where_the_range_is_small(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, QUICK, n=100, val=50))
    with styled():
        figure = accuracy_figure(results, summarise(results), 7.0, 3.9)
    assert figure.axes[0].get_xscale() == "linear"


def test_wide_intervals_are_cut_to_what_accuracy_can_be_and_flatten_nothing(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, QUICK, seeds=(0, 1, 2), n=60, val=50))
    for run in results.runs:
        if run.run == "resnet8":  # seeds far apart: the t interval is wider than all there is
            run.rows[0]["top1"] = 30.0 + 32.5 * run.seed
    lines = summarise(results)
    assert (lines[0]["top1_lo"], lines[0]["top1_hi"]) == (0.0, 100.0)
    assert interval_over(lines[0]) == "3 seeds"
    for line in lines[1:]:
        line["top1_mean"], line["top1_lo"], line["top1_hi"] = 62.0, 61.0, 63.0
    with styled():
        figure = accuracy_figure(results, lines, 7.0, 3.9)
    low, high = figure.axes[0].get_ylim()
    assert high - low < 10
    assert low < 61
    assert high > 63
    assert "longer than the figure" in " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def test_looks_differ_between_methods_and_variants(finished: Path) -> None:
    own = looks(read_results(finished))
    assert own["resnet8"] == own["resnet20"]
    assert own["early5"].marker == own["early5plus"].marker
    assert own["early5"].colour != own["early5plus"].colour
    assert len({own[name].marker for name in ("resnet8", "paths20", "gated38", "early5")}) == 4
    assert len({pick(k) for k in range(49)}) == 49
    assert len(COLOURS) == len(MARKERS)


@pytest.fixture
def only_svg(monkeypatch: pytest.MonkeyPatch) -> None:
    """One format is enough where figures are not looked at."""
    monkeypatch.setattr("bench.report.style.FORMATS", ("svg",))


def test_without_any_number_tables_are_still_written(tmp_path: Path) -> None:
    broken = {(recipe[0], 0): ("failed", "no such luck") for recipe in QUICK}
    out = write_results(tmp_path, QUICK, broken=broken)
    for path in out.rglob("metrics.jsonl"):
        path.unlink()
    files = draw(out)
    assert files.plots == []
    assert [row["status"] for row in read_rows(out / "results.csv")] == ["failed"] * 3


@pytest.mark.usefixtures("only_svg")
def test_figures_of_an_earlier_state_do_not_stay(tmp_path: Path) -> None:
    out = write_results(tmp_path, QUICK, n=100, val=50)
    draw(out)
    (out / "plots" / "mine.png").write_bytes(b"a user's own file")
    for path in out.rglob("metrics.jsonl"):
        path.unlink()
    draw(out)
    assert not list((out / "plots").glob("training-curves*"))
    assert (out / "plots" / "mine.png").exists()


@pytest.mark.usefixtures("only_svg")
@pytest.mark.parametrize(
    ("file", "content", "status"),
    [
        ("rows.csv", "nonsense", "done"),  # made again from the records
        ("rows.csv", None, "done"),
        ("test-signals.npz", "nonsense", "failed"),
        ("cost.json", "{}", "failed"),
        ("status.json", "{", "failed"),
        ("metrics.jsonl", '{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "lo', "done"),
    ],
)
def test_a_damaged_run_does_not_lose_the_others(tmp_path: Path, file: str, content: str | None, status: str) -> None:
    out = write_results(tmp_path, QUICK, n=100, val=50)
    damaged = next((out / "runs").glob("resnet14-*")) / file
    if content is None:
        damaged.unlink()
    else:
        damaged.write_text(content)
    draw(out)
    rows = {row["run"]: row for row in read_rows(out / "results.csv")}
    assert rows["resnet14"]["status"] == status
    assert rows["resnet8"]["status"] == rows["resnet20"]["status"] == "done"


@pytest.mark.usefixtures("only_svg")
@pytest.mark.parametrize(("content", "status"), [("nonsense", "failed"), (None, "failed"), ("as it was", "done")])
def test_without_records_the_rows_of_the_run_are_taken(tmp_path: Path, content: str | None, status: str) -> None:
    out = write_results(tmp_path, QUICK, n=100, val=50)
    folder = next((out / "runs").glob("resnet14-*"))
    for path in folder.glob("*.npz"):
        path.unlink()
    if content is None:
        (folder / "rows.csv").unlink()
    elif content == "nonsense":
        (folder / "rows.csv").write_text(content)
    draw(out)
    rows = {row["run"]: row for row in read_rows(out / "results.csv")}
    assert rows["resnet14"]["status"] == status


def test_a_folder_without_a_comparison_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no results"):
        draw(tmp_path)
    (tmp_path / "comparison.json").write_text(json.dumps({"name": "x", "runs": [{"run": "a"}]}))
    with pytest.raises(RunError, match="damaged"):
        draw(tmp_path)


def test_stages_are_joined_end_to_end() -> None:
    curves = [{"stage": "a", "epoch": e} for e in (1, 2, 3)] + [{"stage": "b", "epoch": e} for e in (1, 2)]
    joined = join_stages(curves)
    assert [point["x"] for point in joined] == [1, 2, 3, 4, 5]
    assert [point["first"] for point in joined] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (12345, "12.3k"), (999_600, "1M"), (4.089e9, "4.09G"), (5e7, "50M")]
)
def test_format_macs(value: float, text: str) -> None:
    assert format_macs(value) == text
    assert format_macs(40_550_000, decimals=2) == "40.55M"
