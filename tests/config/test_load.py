"""Files, merging, the command line: what a comparison file may say and what is refused, in which words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.load import load_config
from bench.config.resolve import parse_options, resolve, resolve_run
from bench.config.source import parse_yaml
from bench.errors import ConfigError
from bench.launch.describe import resolved_yaml
from bench.registry import method_config

BASE = """\
name: small
data: {name: synthetic}
recipe: {epochs: 4, lr: 0.1, lr_scheduler: multistep, lr_milestones: [2]}
runs:
  - name: a
    method: resnet
    options: {depth: 8}
    recipe: {lr_scheduler: cosine}
  - {name: b.2, method: resnet, options: {depth: 14}}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def test_yaml_is_read_as_people_mean_it() -> None:
    tree = parse_yaml("a: 1e-3\nb: off\nc: [1, 2.5, .5, 0x10]\nd: {x: ~, y: }\ne: true\nf: '1'\ng: 010\n", "f")
    assert tree.plain() == {
        "a": 0.001, "b": "off", "c": [1, 2.5, 0.5, 16], "d": {"x": None, "y": None}, "e": True, "f": "1", "g": 10,
    }  # fmt: skip


def test_a_merge_key_and_aliases_work() -> None:
    tree = parse_yaml("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\n", "f")
    assert tree.plain()["own"] == {"x": 1, "y": 3}


def test_recipe_comes_from_defaults_file_run_and_command_line(base: Path) -> None:
    loaded = load_config(base, settings=["runs.b.2.recipe.lr=0.3", "recipe.batch_size=64"])
    a, b = resolve(loaded)
    recipe_a, recipe_b = a.stages[0].recipe, b.stages[0].recipe
    assert (recipe_a.lr_scheduler, recipe_a.lr_milestones) == ("cosine", ())  # another schedule's milestones go
    assert (recipe_b.lr_scheduler, recipe_b.lr_milestones, recipe_b.lr) == ("multistep", (2,), 0.3)
    assert recipe_a.batch_size == recipe_b.batch_size == 64
    origins = resolve_run(loaded, 1).origins["train"]
    assert str(origins["lr"]) == "command line"
    assert str(origins["epochs"]).endswith("base.yaml:3")
    assert str(origins["momentum"]) == "default"


def test_extends_and_include(base: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "z.yaml").write_text("runs:\n  - {name: c, method: resnet, options: {depth: 20}}\n")
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: base.yaml\ninclude: ['parts/*.yaml', 'none/*.yaml']\nname: child\n"
        "runs:\n  - {name: d, method: resnet, options: {depth: 32}}\n  - {name: a, options: {depth: 26}}\n"
    )
    loaded = load_config(child)
    assert [run.name for run in loaded.comparison.runs] == ["a", "b.2", "d", "c"]
    assert loaded.comparison.runs[0].options == {"depth": 26}
    assert loaded.comparison.runs[0].recipe == {"lr_scheduler": "cosine"}
    assert loaded.comparison.recipe.epochs == 4


def test_the_resolved_file_of_a_selection_is_the_whole_comparison(base: Path, tmp_path: Path) -> None:
    """Another run may be its reference, or what it is a variant of."""
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(load_config(base, only=["b.2"])))
    assert load_config(again).comparison.runs == load_config(base).comparison.runs


def test_only_keeps_runs_in_file_order(base: Path) -> None:
    assert [r.name for r in load_config(base, only=["b.2"]).comparison.runs] == ["b.2"]
    with pytest.raises(ConfigError, match="no such run"):
        load_config(base, only=["zzz"])


def test_identity_ignores_what_cannot_change_a_result(base: Path) -> None:
    def run_id(*settings: str) -> str:
        return resolve(load_config(base, settings=settings))[0].run_id

    first = run_id()
    assert run_id("recipe.workers=0", "evaluate.batch_size=7", "data.root=elsewhere") == first
    assert run_id("runs.a.options.norm=batch") == first  # a default said aloud
    assert run_id("evaluate.amp=recipe") == run_id("evaluate.amp=off") == first
    bf16 = run_id("recipe.amp=bf16")
    assert run_id("recipe.amp=bf16", "evaluate.amp=bf16") == bf16
    assert len({first, bf16, run_id("recipe.amp=bf16", "evaluate.amp=off"), run_id("evaluate.amp=bf16")}) == 4
    changes = ["recipe.lr=0.2", "seeds=[1]", "runs.a.options.depth=14", "data.val_size=7", "recipe.drop_last=true"]
    assert len({first, *(run_id(change) for change in changes)}) == len(changes) + 1


def test_options_survive_being_stored(base: Path) -> None:
    spec = resolve(load_config(base))[0]
    again = type(spec).model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.run_id == spec.run_id
    assert parse_options(method_config("resnet"), again.options).model_dump() == again.all_options


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("recipe.lrr=1", "unknown key 'lrr' in recipe; did you mean 'lr'?"),
        ("recipe.lr=abc", "recipe.lr: expected a number, not 'abc'"),
        ("recipe.lr=.inf", "finite"),
        ("recipe.lr=-1", "must be greater than 0"),
        ("recipe.epochs=1.5", "expected a whole number"),
        ("recipe.epochs=true", "expected a whole number"),
        ("recipe.epochs=null", "give `epochs` or `iterations`"),
        ("recipe.amp=bf17", "did you mean 'bf16'"),
        ("recipe.lr_milestones=[3, 1]", "must grow"),
        ("recipe.lr_warmup_epochs=9", "must be shorter"),
        ("recipe=null", "expected a section of keys"),
        ("recipe.lr_min=0.5", "greater than lr"),
        ("data.val_size=0", "at least 1"),
        ("data.val_size=1.5", "val_size"),
        ("data.std=[0, 1, 1]", "greater than 0"),
        ("data.nam=x", "unknown key 'nam' in data; did you mean 'name'?"),
        ("protocol=holdut", "did you mean 'holdout'"),
        ("seeds=[0, 0]", "a seed stands twice"),
        ("seeds=[]", "at least 1"),
        ("seeds=3", "expected a list"),
        ("name=", "expected text"),
        ("name=../up", "no plain name"),
        ("device=gpu", "device"),
        ("evaluate.confidence_level=95", "less than 1"),
        ("nonsense=1", "unknown key 'nonsense'"),
        ("runs.a.method=resnett", "unknown method 'resnett'; did you mean 'resnet'?"),
        ("runs.a.options.dept=8", "unknown key 'dept' in runs.a.options; did you mean 'depth'?"),
        ("runs.a.options.depth=9", "depth must be 6n+2"),
        ("runs.a.options.depth=8.0", "expected a whole number"),
        ("runs.a.options.arch=resnet50", "one of them"),
        ("runs.a.options.norm=batchh", "did you mean 'batch'"),
        ("runs.a.recipe.lr=-1", "(run 'a')"),
        ("runs.a.recipe.nope=1", "unknown key 'nope'"),
        ("runs.a.stages.nope.lr=1", "has no stage 'nope' (known: train)"),
        ("runs.a.stages.train.lr=x", "expected a number"),
        ("runs.a.weights=nowhere.pt", "no such file: nowhere.pt"),
        ("runs.a.evaluate_only=true", "needs weights"),
        ("runs.a.arch=x", "give weights"),
        ("runs.a.data.name=x", "mean and std"),
        ("runs.a.data.mean=[1, 2]", "mean"),
        ("runs.a.name=b.2", "two runs are called"),
        ("runs.a.seeds=[-1]", "seeds"),
        ("runs.zz.recipe.lr=1", "no run 'zz'"),
        ("runs.a=1", "names a whole section"),
        ("recipe.momentum=1", "less than 1"),
        ("recipe.nesterov=yes", "expected true or false"),
        ("recipe.opt=adamx", "did you mean 'adam'"),
        ("recipe.betas=[0.9]", "betas"),
        ("recipe.betas=[0.9, 1.5]", "[0, 1)"),
        ("recipe.label_smoothing=1", "less than 1"),
        ("recipe.label_smoothing=10", "less than 1"),
        ("recipe.auto_augment=rand", "expected"),
        ("recipe.ra_reps=0", "at least 1"),
        ("recipe.model_ema_decay=1", "less than 1"),
        ("recipe.train_crop_size=4", "at least 8"),
        ("recipe.clip_grad_norm=0", "greater than 0"),
        ("recipe.weight_decay_overrides=[1]", "expected a section of keys"),
        ("recipe.batch_size=0", "at least 1"),
        ("recipe.lr_milestones=2", "expected a list"),
        ("recipe.lr_milestones=[1.5]", "expected a whole number"),
        ("runs.a.label=[x]", "expected text"),
        ("runs.a.skip=true", "expected text"),
        ("runs.a.options=3", "expected a section of keys"),
        ("data.mean=[0, a, 0]", "expected a number"),
        ("data.mean=[127.5, 127.5, 127.5]", "every mean must lie in [0, 1], as the pixels do; divided by 255: [0.5, "),
        ("data.mean=[-0.1, 0, 0]", "every mean must lie in [0, 1], as the pixels do"),
        ("data.std=[51, 58.4, 57.4]", "every std must lie in [0.001, 1], for pixels in [0, 1]; divided by 255: [0.2, "),
        ("data.std=[0.0001, 1, 1]", "every std must lie in [0.001, 1]"),
        ("runs.a.data.mean=[127.5, 127.5, 127.5]", "every mean must lie in [0, 1]"),
        ("recipe.weight_decay=50", "at most 10"),
        ("recipe.weight_decay_overrides={x: -0.1}", "at least 0"),
        ("recipe.eps=2", "at most 1"),
        ("recipe.workers=100000", "at most 1024"),
        ("recipe.train_crop_size=224000", "at most 8192"),
        ("recipe.epochs=" + "9" * 12, "at most 1000000"),
        ("data.split_seed=" + "9" * 30, "less than 9223372036854775808"),
        ("data.split_seed=-1", "at least 0"),
        ("data.train_subset=0", "at least 1"),
        ("timeout_minutes=0", "greater than 0"),
        ("threads=0", "at least 1"),
        ("data.mean=[" + "9" * 400 + ", 1, 1]", "data.mean[0]: expected a finite number"),
        ("recipe.lr=" + "9" * 400, "recipe.lr"),
        ("runs.a.weights=" + "x" * 300, "no such file"),
        ("recipe", "takes path.to.key=value"),
        ("recipe..lr=1", "takes path.to.key=value"),
        ("recipe.lr=[", "not valid YAML"),
        ("name.sub.key=1", "small"),
    ],
)
def test_what_is_wrong_is_one_clear_line(base: Path, setting: str, words: str) -> None:
    if setting.startswith("name.sub"):
        words = ""  # replaces the text by a section, which the name then refuses
    with pytest.raises(ConfigError) as error:
        resolve(load_config(base, settings=[setting]))
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is missing"),
        ("just words", "must hold keys"),
        ("- a\n- b", "must hold keys"),
        ("name: x\nname: y", ":2: the key 'name' stands twice"),
        ("name: [", "not valid YAML"),
        ("name: !!python/object/apply:os.system [x]", "tag"),
        ("? [a]\n: 1", "a key must be a word"),
        ("a: &x [*x]", "nested in itself"),
        ("a: &x {<<: *x}", ":1: nested in itself"),
        ("name: x\na: &x {b: &y {<<: [*x]}}", ":2: nested in itself"),
        ("a: " + "[" * 60 + "]" * 60, ":1: too large or too deeply nested"),
        ("[" * 100_000, "nest"),
        ("{a: " * 3000 + "}" * 3000, "nest"),
        ("".join(f"k{i}: {i}\n" for i in range(60_000)), ":50000: too large"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\nb: &b [" + "*a, " * 100 + "]\nc: [" + "*b, " * 100 + "]", "too large"),
        ("a: &a {x: 1}\nb: &b {<<: [" + "*a, " * 400 + "]}\nc: {<<: [" + "*b, " * 400 + "]}", "too large"),
        ("a: '" + "x" * 2_000_000 + "'", "too large for a comparison"),
        ("a: '" + "x" * 20_000 + "'", "a value of 20,000 characters is too long"),
        ('"\\x1b[31m": 1', r"a key holds a control character or a line end: '\x1b[31m'"),
        ('name: "a\\x1b[31m"', r":1: name: holds a control character or a line end: 'a\x1b[31m'"),
        ('name: a\ndata: {name: "sy\\nn"}', r":2: data.name: holds a control character or a line end: 'sy\nn'"),
        ('name: a\nruns:\n- name: "\\u202ea"', r":3: runs.\u202ea.name: holds a control character"),
        ("extends: none.yaml", "no such file: none.yaml"),
        ("extends: [1]", "takes a file"),
        ("extends: self.yaml", "itself"),
        ("include: none.yaml", "no such file: none.yaml"),
        ("name: a\ndata: {name: synthetic}\nruns: {}", "expected a list"),
        ("name: a\ndata: {name: synthetic}\nruns: [1]", "expected a section"),
        ("name: a\ndata: {name: synthetic}\nruns: []", "at least 1"),
        ("name: a\ndata: {name: synthetic}\nruns: [{method: resnet}]", "the key 'name' is missing"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "self.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        resolve(load_config(path))
    assert words in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("reference: c\n", 12, "reference: no run is called 'c'"),
        ("reference: a\nbudgets: [0.5, 0.5]\n", 13, "a budget stands twice"),
        ("budgets: [0.5]\n", 12, "a share needs a `reference:` run"),
        ("  - name: A\n    method: resnet\n", 12, "two runs are called 'A'"),
        ("  - name: c\n    method: resnet\n    evaluate_only: true\n", 14, "needs weights"),
        ("  - name: c\n    method: resnet\n    data:\n      root: x\n", 15, "mean and std"),
        ("  - name: c\n    method: resnet\n    options: {depth: 8}\n    recipe: {lr: 0.2,\n     lr_min: 0.4}\n", 16,
         "greater than lr"),
        ("threads: 1\nrecipe:\n  lr: 0.1\n  lr_min: 0.4\n", 15, "greater than lr"),
        ("threads: 1\nrecipe:\n  epochs: 2\n  nesterov: true\n  momentum: 0\n", 15, "nesterov needs"),
    ],
)
def test_what_sections_contradict_has_the_line_of_its_key(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("\n" * 6 + "name: x\ndata: {name: synthetic}\nruns:\n"
                    "  - {name: a, method: resnet, options: {depth: 8}}\n"
                    "  - {name: b, method: resnet, options: {depth: 8}}\n" + text)  # fmt: skip
    with pytest.raises(ConfigError) as error:
        resolve(load_config(path))
    assert f"{path}:{line}: " in str(error.value)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A named pipe would be waited for, a device never ends."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    link = tmp_path / "link.yaml"
    link.symlink_to("/dev/zero")
    (tmp_path / "child.yaml").write_text("extends: pipe.yaml\n")
    for path in (pipe, link, Path("/dev/null")):
        with pytest.raises(ConfigError, match="is a pipe, socket or device"):
            load_config(path)
    with pytest.raises(ConfigError, match="no such file: pipe"):
        load_config(tmp_path / "child.yaml")
    path = tmp_path / "circle.yaml"
    path.symlink_to(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)


def test_escape_codes_in_labels_are_written_out(base: Path) -> None:
    loaded = load_config(base, settings=[r'runs.a.label="\x1b[31mred"', r'title="\u202eab"'])
    assert loaded.comparison.runs[0].label == r"\x1b[31mred"
    assert loaded.comparison.title == r"\u202eab"
    assert load_config(base, settings=["title=Réseau 网络 🙂"]).comparison.title == "Réseau 网络 🙂"
    with pytest.raises(ConfigError) as error:
        load_config(base, settings=["nam\x1be=1"])
    assert "\x1b" not in str(error.value)


def test_several_problems_are_several_lines(base: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(base, settings=["recipe.lrr=1", "data.nam=2", "seeds=x"])
    assert len(str(error.value).splitlines()) == 3


def test_missing_folder_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        load_config(tmp_path / "b.yaml")


def test_checking_a_file_imports_no_torch(base: Path) -> None:
    code = (
        "import sys; from bench.config.load import load_config; from bench.config.resolve import resolve; "
        f"resolve(load_config({str(base)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
