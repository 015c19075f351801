"""A tracker of another package is told of a run by its name; a broken one costs one line and never a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin import make_package, on_path
from quick import R8, statuses, write_quick

from bench.cli import main
from bench.config.load import load_config
from bench.errors import ConfigError
from bench.evaluate.columns import read_rows
from bench.launch.preflight import plan_runs
from bench.track import tracker_class, tracker_names

PAGE = (Path(__file__).resolve().parents[2] / "docs/adding-a-tracker.md").read_text()
JOURNAL = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)[0]
ENTRY = {"bench.trackers": {"journal": "journal:Journal"}}

#: What is wrong with a tracker, and what is said of that before anything runs.
BROKEN = {
    "raises": ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
    "leaves": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "kind": ("Journal = 3", "is not a class derived from bench.track.Tracker"),
    "abstract": (JOURNAL.replace("def log", "def lag"), "does not define log"),
    "name": (JOURNAL.replace('name = "journal"', 'name = "diary"'), "its name is 'diary', not that of its entry point"),
    "help": (JOURNAL.replace("a file of", "a file\\nof"), "help must be one line"),
    "package": (JOURNAL.replace("    help", "    package = 3\n    help"), "package must be the name of a package"),
}  # fmt: skip
#: The hook that raises, and how often the others are called for a run of two epochs.
RAISES = {"open": 0, "log": 1, "finish": 3, "close": 4}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[None]:
    with on_path(make_package(tmp_path / "site", "my_trackers", ENTRY, journal=JOURNAL)):
        yield


def _lines(out: Path) -> list[dict[str, Any]]:
    (path,) = (out / "trackers/journal").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _run(config: Path, out: Path, *more: str) -> int:
    return main(["run", str(config), "--out", str(out), "--in-process", "--quiet", "--no-report", *more])


@pytest.mark.usefixtures("journal")
def test_it_is_told_everything_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "trackers"]) == 0
    assert "journal: a file of JSON lines for each run\n" in capsys.readouterr().out
    config, out = write_quick(tmp_path, [R8], trackers=["journal"]), tmp_path / "out"
    assert _run(config, out) == 0
    (folder,) = out.glob("runs/*/")
    begin, *epochs, row, end = _lines(out)
    assert begin["run"] == "r8"
    assert begin["config"]["stages"]["train"]["lr"] == 0.05
    assert begin["config"]["options"]["depth"] == 8
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == curve
    (stored,) = read_rows(folder / "rows.csv")
    assert row == {key: stored[key] for key in ("policy", "point", "top1", "macs")}
    assert end == {"status": "done"}


@pytest.mark.usefixtures("journal")
def test_naming_one_changes_no_id_and_trains_nothing_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    plain, tracked = ([spec.run_id for spec in plan_runs(load_config(write_quick(tmp_path, [R8], **more)))]
                      for more in ({}, {"trackers": ["journal"]}))  # fmt: skip
    assert plain == tracked
    assert _run(write_quick(tmp_path, [R8]), out) == 0
    assert _run(write_quick(tmp_path, [R8], trackers=["journal"]), out) == 0
    assert not (out / "trackers").exists(), "the run was done already"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_one_line_and_stops_nobody_else(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = BROKEN[kind]
    with on_path(make_package(tmp_path / "site", "my_trackers", ENTRY, journal=text)):
        assert main(["list", "trackers"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(tracker_names())
        (line,) = [line for line in lines if line.startswith("journal: ")]
        assert line.startswith("journal: trackers: tracker 'journal' (journal:Journal): ")
        assert words in line
        assert plan_runs(load_config(write_quick(tmp_path, [R8])))
        with pytest.raises(ConfigError, match=re.escape(words)) as caught:
            plan_runs(load_config(write_quick(tmp_path, [R8], trackers=["journal"])))
        assert re.match(r"\S+quick\.yaml:\d+: trackers: tracker 'journal'", str(caught.value))
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("hook", RAISES)
def test_one_that_raises_is_switched_off_and_the_run_goes_on(
    hook: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = re.search(rf"    def {hook}\(.*\n", JOURNAL)[0]  # type: ignore[index]
    text = JOURNAL.replace(first, f"{first}        raise SystemExit('gone')\n")
    config, out = write_quick(tmp_path, [R8], trackers=["journal"]), tmp_path / "out"
    with on_path(make_package(tmp_path / "site", "my_trackers", ENTRY, journal=text)):
        assert _run(config, out) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "tracker" in line]
    words = f"{hook} raised SystemExit: gone"
    assert warned == [f"warning: r8 seed 0: tracker 'journal' is switched off: {words}"]
    assert statuses(out)["r8"]["status"] == "done"
    if hook != "open":
        assert len(_lines(out)) == RAISES[hook]


def test_a_missing_package_is_said_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = JOURNAL.replace("    help", '    package, install = "nothing_of_this_name", "my-trackers[more]"\n    help')
    config = write_quick(tmp_path, [R8], trackers=["journal"])
    words = ("tracker 'journal' needs nothing_of_this_name, which is not installed: pip install 'my-trackers[more]'")
    with on_path(make_package(tmp_path / "site", "my_trackers", ENTRY, journal=text)):
        assert main(["check", str(config)]) == 2
        assert _run(config, tmp_path / "out") == 2
        assert [line.endswith(words) for line in capsys.readouterr().err.splitlines()] == [True, True]
    assert not (tmp_path / "out").exists()


def test_ours_cannot_be_replaced(tmp_path: Path) -> None:
    entry = {"bench.trackers": {"mlflow": "journal:Journal", "two": "journal:Journal"}}
    other = make_package(tmp_path / "b", "other", {"bench.trackers": {"two": "other:Two"}}, other=JOURNAL)
    with on_path(make_package(tmp_path / "a", "my_trackers", entry, journal=JOURNAL), other):
        assert tracker_class("mlflow").__module__ == "bench.track.mlflow"
        with pytest.raises(ConfigError, match=r"tracker 'two' .*another package registers it too"):
            tracker_class("two")
        with pytest.raises(ConfigError, match=r"unknown tracker 'mlflo'; did you mean 'mlflow'\?"):
            tracker_class("mlflo")
