"""bench compare: several results folders as one, and what must never be drawn together."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import FAMILIES, QUICK, write_results

from bench.cli import main
from bench.config.load import load_config
from bench.config.resolve import resolve
from bench.data.fingerprint import Fingerprint, PartPrint
from bench.errors import ConfigError
from bench.evaluate.comparing.compare import compare
from bench.evaluate.effects import effects
from bench.evaluate.latency import COLUMNS, read_latency, write_latency
from bench.evaluate.results import read_results
from bench.evaluate.rows import read_rows
from bench.evaluate.seeds import summarise
from bench.report import draw
from bench.report.merge import merge_results


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    a = write_results(tmp_path / "a", QUICK, name="first", n=100, val=50, seeds=(0, 1), reference="resnet20",
                      budgets=[0.5], more={r[0]: {"group": "ResNet"} for r in QUICK})  # fmt: skip
    b = write_results(tmp_path / "b", FAMILIES[3:5], name="second", n=100, val=50, seeds=(0, 1))
    return a, b


def change(folder: Path, **values: object) -> None:
    path = folder / "comparison.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_runs_of_both_folders_stand_in_one_table(two: tuple[Path, Path], tmp_path: Path) -> None:
    out = merge_results(two, tmp_path / "deep" / "ab")
    results = read_results(out)
    assert list(results.by_name()) == ["resnet8", "resnet14", "resnet20", "paths20", "gated38"]
    assert all(run.done and run.measured is not None for run in results.runs)
    assert (results.reference, results.budgets) == ("resnet20", (0.5,))
    assert not json.loads((out / "comparison.json").read_text())["runs"][0]["folder"].startswith("/")
    own = [row["top1"] for folder in two for run in read_results(folder).runs for row in run.rows]
    assert [row["top1"] for row in results.rows] == own


def test_different_runs_of_one_name_keep_apart_and_the_same_run_stands_once(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    a, _ = two
    same = write_results(tmp_path / "c", QUICK, name="third", n=100, val=50, seeds=(0, 1))
    assert len(read_results(merge_results([a, same], tmp_path / "same")).runs) == 6
    grouped = {"resnet20": {"group": "ResNet"}}
    other = write_results(tmp_path / "d", QUICK[1:], name="other", n=100, val=50, more=grouped)
    merged = read_results(merge_results([a, other], tmp_path / "other-out"))
    names = list(merged.by_name())
    assert names == ["resnet8", "resnet14@first", "resnet20@first", "resnet14@other", "resnet20@other"]
    assert merged.reference == "resnet20@first"
    assert merged.by_name()["resnet20@other"][0].label == "ResNet-20 (other)"
    assert merged.by_name()["resnet20@other"][0].group == "ResNet (other)"
    assert [row["run"] for row in merged.rows] == [run.run for run in merged.runs for _ in run.rows]
    draw(merged.out)
    with (merged.out / "summary.csv").open(newline="") as file:
        assert list(dict.fromkeys(row["run"] for row in csv.DictReader(file))) == names


def test_a_shared_run_is_that_of_the_first_folder_where_it_is_done(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Also the first time, when the folder of the merged results is not there yet."""
    a, _ = two
    same = write_results(tmp_path / "c", QUICK, name="third", n=100, val=50, seeds=(0, 1))
    for out in (tmp_path / "new", tmp_path / "new"):
        folders = [run.folder for run in read_results(merge_results([a, same], out)).runs]
        assert all(folder.resolve().is_relative_to(a.resolve()) for folder in folders)
    first = json.loads((a / "comparison.json").read_text())["runs"][0]["folder"]
    (a / first / "status.json").write_text(json.dumps({"status": "failed", "reason": "so it was"}))
    runs = read_results(merge_results([a, same], tmp_path / "new")).runs
    assert [run.folder.resolve().is_relative_to(a.resolve()) for run in runs] == [False, *[True] * 5]
    assert all(run.done for run in runs)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"protocol_version": 2}, "differ in protocol version .*: 1, .*: 2.*run the older one again"),
        ({"data": "cifar100"}, "differ in data"),
        ({"protocol": "published"}, "differ in protocol"),
        ({"confidence_level": 0.9}, "differ in confidence level"),
    ],
)
def test_what_must_not_be_drawn_together_is_refused(
    two: tuple[Path, Path], tmp_path: Path, values: dict[str, object], words: str
) -> None:
    change(two[1], **values)
    with pytest.raises(ConfigError, match=words):
        merge_results(two, tmp_path / "ab")
    assert not (tmp_path / "ab").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["A"], "two results folders or more"),
        (["A", "A"], "two results folders or more"),
        (["A", "nowhere"], "no comparison.json"),
        (["A", "B", "--out", "B"], "--out is one of the folders"),
        (["A", "B", "--reference", "resnet2"], "no such run; did you mean 'resnet20'?"),
        (["A", "B", "--budgets", "fast"], "--budgets: 'fast' is no budget"),
        (["B", "A2", "--budgets", "0.5"], "needs --reference RUN"),
    ],
)
def test_bad_input_is_one_line(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    places = {"A": str(two[0]), "B": str(two[1]), "A2": str(tmp_path / "a2")}
    write_results(tmp_path / "a2", QUICK[:1], name="plain", n=100, val=50)
    assert main(["compare", *(places.get(word, word) for word in arguments)]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1


def test_the_command_draws_everything(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.style.FORMATS", ("svg",))
    out = tmp_path / "ab"
    assert main(["compare", *map(str, two), "--out", str(out), "--title", "Both"]) == 0
    assert "Both" in capsys.readouterr().out
    assert len({row["run"] for row in read_rows(out / "results.csv")}) == 5
    before = (out / "results.csv").read_bytes()
    assert main(["report", str(out)]) == 0
    assert (out / "results.csv").read_bytes() == before
    assert "Both" in (out / "report.html").read_text()


RESOLVED = """\
name: {name}
data: {{name: cifar10, val_size: 50}}
recipe: {{epochs: 5, batch_size: 128, lr: {lr}}}
seeds: {seeds}
runs:
  - {{name: resnet8, method: resnet, options: {{depth: 8}}}}
  - {{name: resnet14, method: resnet, options: {{depth: 14}}}}
"""


def resolved(out: Path, name: str, seeds: tuple[int, ...], lr: float = 0.1, **more: Any) -> Path:
    """Results whose specs and run ids are those of a file."""
    write_results(out, QUICK[:2], name=name, n=100, val=50, seeds=seeds, **more)
    path = out / "file.yaml"
    path.write_text(RESOLVED.format(name=name, lr=lr, seeds=list(seeds)))
    specs = {(spec.run, spec.seed): spec for spec in resolve(load_config(path))}
    runs = json.loads((out / "comparison.json").read_text())["runs"]
    for run in runs:
        spec = specs[run["run"], run["seed"]]
        run["run_id"] = spec.run_id
        (out / run["folder"] / "spec.json").write_text(spec.model_dump_json())
    change(out, runs=runs)
    return out


def part(images: int = 100, content: str = "c", listing: str = "l") -> PartPrint:
    return PartPrint(images=images, bytes=9, listing=listing, names="n", unlabelled=listing, content=content)


def measured_on(out: Path, train: PartPrint | None, test: PartPrint | None, split: str = "0123456789abcdef") -> Path:
    """What every run of a folder says of its data; None: nothing."""
    for path in out.glob("runs/*/status.json"):
        status = {**json.loads(path.read_text()), "split_hash": split}
        if train is not None and test is not None:
            status["data"] = Fingerprint(train=train, test=test).model_dump()
        path.write_text(json.dumps(status))
    return out


@pytest.mark.parametrize(
    ("test", "split", "words"),
    [
        (part(101), "0123456789abcdef", "differ in test images (b against a: 101 images instead of 100)"),
        (part(content="d"), "0123456789abcdef", "(b against a: the same names with other contents)"),
        (part(listing="m"), "0123456789abcdef", "differ in test images (b against a: the same names with other"),
        (part(), "feedfeedfeedfeed", "differ in split (a: 0123456789ab, b: feedfeedfeed); rows of different splits"),
    ],
)
def test_other_test_images_and_splits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], test: PartPrint, split: str,
    words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    measured_on(resolved(Path("a"), "first", (0,)), part(), part())
    measured_on(resolved(Path("b"), "other", (1,)), part(), test, split)
    assert main(["compare", "a", "b", "--out", "ab"]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1
    assert not Path("ab").exists()


def test_the_same_run_on_other_training_images_is_another_run(tmp_path: Path) -> None:
    """Also where its seed, and so its run id, is the same."""
    a = measured_on(resolved(tmp_path / "a", "first", (0, 1)), part(), part())
    b = measured_on(resolved(tmp_path / "b", "other", (0, 1)), part(content="cleaned"), part())
    notes: list[str] = []
    merged = read_results(merge_results([a, b], tmp_path / "ab", say=notes.append))
    assert list(merged.by_name()) == ["resnet8@first", "resnet14@first", "resnet8@other", "resnet14@other"]
    assert len(merged.runs) == 8
    assert notes == [f"{b} was trained on other images than {a} (the same names with other contents)"]


def test_folders_without_a_fingerprint_are_taken_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.style.FORMATS", ("svg",))
    a = measured_on(resolved(tmp_path / "a", "first", (0,)), part(), part())
    b = measured_on(resolved(tmp_path / "b", "other", (1,)), None, None)
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "ab")]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith(f"{b}: results without a fingerprint of the data")
    assert list(read_results(tmp_path / "ab").by_name()) == ["resnet8", "resnet14"]


def test_further_seeds_of_a_run_join_it(tmp_path: Path) -> None:
    """A colleague's file may call and group it otherwise; with another learning rate it is another run."""
    a = measured_on(resolved(tmp_path / "a", "mine", (0, 1), more={"resnet8": {"group": "ResNet"}}), part(), part())
    b = measured_on(resolved(tmp_path / "b", "colleague", (1, 2, 3)), part(), part())
    change(b, runs=[{**run, "label": f"their {run['label']}"} for run in json.loads(
        (b / "comparison.json").read_text())["runs"]])  # fmt: skip
    notes: list[str] = []
    merged = read_results(merge_results([a, b], tmp_path / "ab", say=notes.append))
    assert {name: [run.seed for run in runs] for name, runs in merged.by_name().items()} == {
        "resnet8": [0, 1, 2, 3], "resnet14": [0, 1, 2, 3],
    }  # fmt: skip
    assert {(run.label, run.group) for run in merged.runs} == {("ResNet-8", "ResNet"), ("ResNet-14", None)}
    assert notes == []
    assert {(line["run"], line["n_seeds"]) for line in summarise(merged)} == {("resnet8", 4), ("resnet14", 4)}
    other = measured_on(resolved(tmp_path / "c", "colleague", (2, 3), lr=0.05), part(), part())
    apart = read_results(merge_results([a, other], tmp_path / "ac"))
    assert list(apart.by_name()) == ["resnet8@mine", "resnet14@mine", "resnet8@colleague", "resnet14@colleague"]


def test_verdicts_pair_only_runs_of_the_same_test_images(tmp_path: Path) -> None:
    """In a folder whose runs say that they differ, however it came about."""
    out = measured_on(resolved(tmp_path / "a", "first", (0, 1), budgets=["50M"]), part(), part())
    assert [row["reason"] for row in compare(read_results(out)).verdicts] == [""]
    for path in out.glob("runs/resnet14-*/status.json"):
        status = json.loads(path.read_text())
        status["data"]["test"]["content"] = "d"
        path.write_text(json.dumps(status))
    assert [row["reason"] for row in compare(read_results(out)).verdicts] == ["different test images"]
    (path,) = out.glob("runs/resnet14-seed1-*/status.json")
    status["data"]["test"]["content"] = "c"
    path.write_text(json.dumps(status))
    found = compare(read_results(out))
    assert found.verdicts == []
    assert "ResNet-14 is not compared: its own runs have different test images." in found.notes


def rename(folder: Path, letter: str) -> None:
    """Other run ids, as other options give."""
    runs = json.loads((folder / "comparison.json").read_text())["runs"]
    change(folder, runs=[{**run, "run_id": letter + run["run_id"][1:]} for run in runs])


def test_an_ablation_stays_whole_where_its_runs_clash(tmp_path: Path) -> None:
    of = {"resnet8": "batch", "resnet14": "group"}
    more = {run: {"base": "resnet8", "factors": {"norm": level}} for run, level in of.items()}
    sections = {"sections": [{"design": "grid", "axes": {"norm": ["batch", "group"]}, "base": {"norm": "batch"}}]}
    folders = []
    for name, place in (("first", "a"), ("other", "b")):
        folders.append(write_results(tmp_path / place, QUICK[:2], name=name, n=100, val=50, more=more))
        change(folders[-1], ablation=sections)
    together = effects(read_results(merge_results(folders, tmp_path / "same")))
    assert [row["label"] for row in together] == ["ResNet-8"]
    rename(folders[1], "f")
    apart = effects(read_results(merge_results(folders, tmp_path / "apart")))
    assert [row["label"] for row in apart] == ["ResNet-8 (first)", "ResNet-8 (other)", "mean of 2 runs"]
    assert [row["top1_difference"] for row in apart[:2]] == [together[0]["top1_difference"]] * 2


def test_half_of_a_group_that_clashes_is_no_group(tmp_path: Path) -> None:
    more = {run: {"group": "ResNet"} for run in ("resnet8", "resnet14", "resnet20")}
    a = write_results(tmp_path / "a", QUICK, name="first", n=100, val=50, more=more)
    b = write_results(tmp_path / "b", QUICK, name="other", n=100, val=50, more=more)
    runs = json.loads((b / "comparison.json").read_text())["runs"]
    change(b, runs=[*runs[:2], {**runs[2], "run_id": "f" + runs[2]["run_id"][1:]}])
    merged = read_results(merge_results([a, b], tmp_path / "ab"))
    assert [(run.run, run.group) for run in merged.runs] == [
        (f"{run}@{name}", f"ResNet ({name})") for name in ("first", "other") for run in more
    ]


def test_a_run_is_taken_from_where_it_is_done(tmp_path: Path) -> None:
    a = write_results(tmp_path / "a", QUICK, name="first", n=100, val=50, broken={("resnet8", 0): ("pending", "")})
    b = write_results(tmp_path / "b", QUICK, name="other", n=100, val=50)
    for number, folders in enumerate(((a, b), (b, a))):
        assert all(run.done for run in read_results(merge_results(folders, tmp_path / f"out{number}")).runs)


def test_shares_are_of_the_reference_of_the_file_that_names_them(two: tuple[Path, Path], tmp_path: Path) -> None:
    change(two[1], reference="paths20")
    assert read_results(merge_results(two[::-1], tmp_path / "ba")).reference == "resnet20"


def test_times_come_along(two: tuple[Path, Path], tmp_path: Path) -> None:
    run = read_results(two[1]).runs[0]
    row = {**dict.fromkeys(COLUMNS), "run": run.run, "seed": run.seed, "run_id": run.run_id, "label": "old", "batch": 1,
           "device": "cpu", "threads": 1, "host_class": "Example", "policy": "fixed", "point": "FFF"}  # fmt: skip
    write_latency(two[1], [row], [run.run_id])
    change(two[1], runs=[{**r, "run": f"new-{r['run']}"} for r in json.loads(
        (two[1] / "comparison.json").read_text())["runs"]])  # fmt: skip
    out = merge_results(two, tmp_path / "ab")
    assert [(r["run"], r["label"], r["point"]) for r in read_latency(out)] == [("new-paths20", run.label, "FFF")]
    for name in ("latency.csv", "latency.json"):
        (two[1] / name).unlink()
    assert read_latency(merge_results(two, out)) == []


def test_results_of_a_comparison_are_not_written_over(two: tuple[Path, Path], tmp_path: Path) -> None:
    third = write_results(tmp_path / "c", QUICK[:1], name="third", n=100, val=50)
    before = (third / "comparison.json").read_bytes()
    with pytest.raises(ConfigError, match="would be lost"):
        merge_results(two, third)
    assert (third / "comparison.json").read_bytes() == before
