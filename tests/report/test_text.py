"""Text that others wrote: nothing in it acts on a terminal, in a table or in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_results import QUICK, write_results

import bench
from bench.config.data import DataSpec
from bench.evaluate.columns import COLUMNS, read_rows, write_rows
from bench.files import read_json_lines, write_text_atomic
from bench.registry import method_class
from bench.report import draw
from bench.text import from_cell, guarded, terminal, to_cell, visible, words

EVIL = '=HYPERLINK("http://x") \x1b[31mred\x1b[0m [sp] [/] é 残 \u202e\udcff'


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\tx", "\r=1", "'=1", "''+a", "-"])
def test_what_a_spreadsheet_would_compute_is_a_text_there_and_comes_back(text: str) -> None:
    assert to_cell(text) == f"'{text}"
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize("text", ["-0.5", "+3", "-1e-05", ".5", "", "a=1", "'quoted'", "ResNet-8", "0.93 -0.8"])
def test_numbers_and_other_texts_are_cells_as_they_are(text: str) -> None:
    assert to_cell(text) == from_cell(text) == text


def test_our_own_tables_come_back_as_they_were(tmp_path: Path) -> None:
    row = dict.fromkeys(COLUMNS, "") | {"label": "=1+1", "reason": "-x", "top1": -0.5, "point": "-1", "seed": 0}
    write_rows(tmp_path / "rows.csv", [row])
    with (tmp_path / "rows.csv").open(newline="") as file:
        (cells,) = csv.DictReader(file)
    assert (cells["label"], cells["reason"], cells["top1"], cells["point"]) == ("'=1+1", "'-x", "-0.5", "-1")
    (back,) = read_rows(tmp_path / "rows.csv")
    assert (back["label"], back["reason"], back["top1"], back["point"]) == ("=1+1", "-x", -0.5, "-1")


def test_control_characters_are_escapes() -> None:
    assert visible("a\x1b[31mb\n\x07\x9b\u202ec\udcff é") == "a\\x1b[31mb\\n\\x07\\x9b\\u202ec\\xff é"
    assert visible("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_is_printed_cannot_act_nor_fail(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    for name, stream in zip(("stdout", "stderr"), streams):
        monkeypatch.setattr(sys, name, stream)
    with guarded():
        print(EVIL)
        print(EVIL, file=sys.stderr)
        console = terminal(width=200)
        from rich.table import Table

        table = Table("name")
        table.add_row(words(EVIL, console))
        console.print(table)
    assert [sys.stdout, sys.stderr] == streams
    for stream in streams:
        stream.flush()
        shown = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert "\\x1b[31mred\\x1b[0m [sp] [/]" in shown
        assert re.search("[\x00-\x09\x0b-\x1f\u202e]", shown) is None


def test_codes_of_our_own_still_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with guarded():
        terminal().print("a \x1b[31m label", style="bold", markup=False, highlight=False)
    assert stream.getvalue() == "\x1b[1ma \\x1b[31m label\x1b[0m\n"


def test_every_console_is_made_in_one_place() -> None:
    package = Path(bench.__file__).parent
    made = [path for path in package.rglob("*.py") if re.search(r"\bConsole\(", path.read_text("utf-8"))]
    assert made == []  # bench.text.terminal makes its own kind


def test_a_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a.jsonl", json.dumps({"reason": "b\udcff.png"}, ensure_ascii=False) + "\n")
    assert read_json_lines(tmp_path / "a.jsonl") == [{"reason": "b\udcff.png"}]


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder whose labels, title and reasons are not to be trusted; drawn."""
    broken = {("resnet14", 0): ("failed", EVIL)}
    out = write_results(tmp_path_factory.mktemp("evil"), QUICK, n=60, val=30, title=EVIL, broken=broken)
    comparison = json.loads((out / "comparison.json").read_text("utf-8"))
    for run in comparison["runs"]:
        run["label"] = f"{EVIL} {run['run']}"
    write_text_atomic(out / "comparison.json", json.dumps(comparison))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.style.FORMATS", ("svg",))
        draw(out)
    return out


def test_a_report_over_labels_that_act(evil: Path) -> None:
    for path in [*evil.glob("*.csv"), *evil.rglob("plots/*.svg"), evil / "report.html"]:
        assert "\x1b" not in path.read_text("utf-8"), path
    with (evil / "results.csv").open(newline="", encoding="utf-8") as file:
        assert all(row["label"].startswith("'=HYPERLINK") for row in csv.DictReader(file))
    assert all(row["label"].startswith("=HYPERLINK") for row in read_rows(evil / "results.csv"))


def test_the_command_line_in_an_ascii_locale(evil: Path, tmp_path: Path) -> None:
    """As under cron: no UTF-8 anywhere, labels in other alphabets."""
    file = tmp_path / "é.yaml"
    file.write_text("name: x\ntitle: 残差 é\ndata: {name: fashion_mnist_mini}\nruns:\n  - {name: a, label: 残, "
                    "method: resnet, options: {depth: 8, nosuch残: 1}}\n", "utf-8")  # fmt: skip
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = ("import sys\nfrom pathlib import Path\nfrom bench.text import guarded\n"
            "from bench.evaluate.analysis import Analysis\nfrom bench.evaluate.results import read_results\n"
            "from bench.report.summary import print_summary\n"
            "with guarded(): print_summary(Analysis(read_results(Path(sys.argv[1]))))\n")  # fmt: skip
    shown = subprocess.run([sys.executable, "-c", code, str(evil)], env=environment, capture_output=True, check=True)
    assert shown.stdout.isascii()
    assert b"\x1b" not in shown.stdout
    assert b"\\x1b[31mred" in shown.stdout
    refused = subprocess.run([sys.executable, "-m", "bench", "check", str(file), "--config-only"], env=environment,
                             capture_output=True)  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr.isascii()
    assert b"Traceback" not in refused.stderr
    assert refused.stderr.startswith(b"error: ")


@pytest.mark.parametrize("method", ["adn", "skipnet", "resnet"])
@pytest.mark.parametrize(("width", "name"), [(16, "resnet14"), (8, "resnet14-w8")])
def test_a_network_of_unusual_width_says_so(method: str, width: int, name: str) -> None:
    cls = method_class(method)
    assert cls(cls.Config(depth=14, width=width), DataSpec("cifar10", 10, 32)).backbone() == name
