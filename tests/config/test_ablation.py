"""``ablation:`` as runs: which combinations there are, what they change, where values come from, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config.load import Loaded, load_config
from bench.config.resolve import resolve
from bench.errors import ConfigError
from bench.launch.describe import resolved_yaml

BASE = """\
name: abl
data: {name: synthetic}
recipe: {epochs: 4, lr: 0.1}
reference: small
budgets: [1.0]
runs:
  - {name: small, label: Small, group: ResNet, method: resnet, options: {depth: 8}}
  - {name: large, method: resnet, options: {depth: 14}, published: [{top1: 91.0, source: somewhere}]}
"""


def _load(folder: Path, ablation: str, **more: object) -> Loaded:
    path = folder / "abl.yaml"
    path.write_text(BASE + ablation)
    return load_config(path, **more)  # type: ignore[arg-type]


def _factors(loaded: Loaded) -> dict[str, dict[str, str]]:
    return {run.name: dict(run.factors) for run in loaded.comparison.runs}


GRID = """\
ablation:
  runs: [small]
  axes:
    norm:
      batch: {}
      group:
        options.norm.kind: group
        options.norm.gn_num_groups: 8
    lr: {key: recipe.lr, values: [0.1, 0.3]}
"""


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GRID)
    assert _factors(loaded) == {
        "small": {"norm": "batch", "lr": "0.1"}, "small-lr=0.3": {"norm": "batch", "lr": "0.3"},
        "small-norm=group": {"norm": "group", "lr": "0.1"}, "small-norm=group-lr=0.3": {"norm": "group", "lr": "0.3"},
        "large": {},
    }  # fmt: skip
    specs = {spec.run: spec for spec in resolve(loaded)}
    both = specs["small-norm=group-lr=0.3"]
    assert both.all_options["norm"] == {"kind": "group", "eps": 1e-5, "gn_num_groups": 8}
    assert both.stages[0].recipe.lr == 0.3
    assert both.label == "Small, norm group, lr 0.3"
    runs = {run.name: run for run in loaded.comparison.runs}
    assert runs["small"].group == "ResNet"
    assert runs["small-lr=0.3"].group == "ResNet, lr 0.3"  # a level is a contender of its own
    assert [runs[name].base for name in ("small", "small-lr=0.3", "large")] == ["small", "small", None]
    # what is the same is the same run, whatever it is called
    assert len({spec.run_id for spec in specs.values()}) == 5


def test_one_at_a_time_changes_one_level_of_the_base(tmp_path: Path) -> None:
    text = GRID.replace("  runs: [small]", "  design: one_at_a_time").replace("[0.1, 0.3]", "[0.1, 0.3, 0.5]")
    names = list(_factors(_load(tmp_path, text)))
    assert names == ["small", "small-lr=0.3", "small-lr=0.5", "small-norm=group",
                     "large", "large-lr=0.3", "large-lr=0.5", "large-norm=group"]  # fmt: skip
    published = {run.name: run.published for run in _load(tmp_path, text).comparison.runs}
    assert published["large"]
    assert not published["large-lr=0.3"]


def test_origins_point_to_the_level(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GRID)
    at = [run.name for run in loaded.comparison.runs].index("small-norm=group")
    first = BASE.count("\n")
    assert str(loaded.origin("runs", at, "options", "norm", "kind")).endswith(f"abl.yaml:{first + 7}")
    assert str(loaded.origin("runs", at, "options", "depth")).endswith("abl.yaml:7")
    at = [run.name for run in loaded.comparison.runs].index("small-lr=0.3")
    assert str(loaded.origin("runs", at, "recipe", "lr")).endswith(f"abl.yaml:{first + 9}")


def test_a_resolved_file_gives_the_same_runs(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GRID)
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(loaded))
    assert load_config(again).comparison.runs == loaded.comparison.runs


def test_the_command_line_reaches_the_base_before_it_is_varied(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GRID, settings=["runs.small.options.depth=20"], only=["small-norm=group"])
    assert [(run.name, run.options["depth"]) for run in loaded.comparison.runs] == [("small-norm=group", 20)]


def test_several_sections_share_the_base(tmp_path: Path) -> None:
    loaded = _load(tmp_path, """\
ablation:
  - {axes: {width: {key: options.width, values: [16, 8]}}}
  - {runs: [large], axes: {shortcut: {key: options.shortcut, values: [A, B]}}}
""")  # fmt: skip
    assert _factors(loaded) == {
        "small": {"width": "16"}, "small-width=8": {"width": "8"},
        "large": {"width": "16", "shortcut": "A"}, "large-shortcut=B": {"width": "16", "shortcut": "B"},
        "large-width=8": {"width": "8", "shortcut": "A"},
    }  # fmt: skip


def test_what_cannot_be_is_skipped_with_its_reason(tmp_path: Path) -> None:
    loaded = _load(tmp_path, """\
ablation:
  axes:
    norm:
      batch: {}
      group: {options.norm.kind: group, options.norm.momentum: 0.2}
      layer: {options.norm: layer}
    stage: {plain: {}, late: {stages.late.lr: 0.1}, train: {stages.train.lr: 0.2}}
""")  # fmt: skip
    reasons = {run.name: run.skip for run in loaded.comparison.runs}
    assert "momentum is a parameter of norm batch" in str(reasons["small-norm=group"])
    assert "has no stage 'late'" in str(reasons["large-norm=layer-stage=late"])
    assert "\n" not in "".join(filter(None, reasons.values()))
    assert "abl.yaml" not in str(reasons)
    assert [name for name, reason in reasons.items() if reason is None and name.startswith("small")] == [
        "small", "small-stage=train", "small-norm=layer", "small-norm=layer-stage=train"]  # fmt: skip
    specs = {spec.run: spec for spec in resolve(loaded)}  # and nothing crashes on them
    assert specs["small-norm=group"].skip
    assert specs["small-norm=group"].options == {"depth": 8}


def test_axes_that_change_the_same_value_do_not_combine(tmp_path: Path) -> None:
    loaded = _load(tmp_path, """\
ablation:
  runs: [small]
  axes:
    norm: {batch: {}, group: {options.norm.kind: group}}
    other: {same: {}, layer: {options.norm: layer}}
""")  # fmt: skip
    reasons = {run.name: run.skip for run in loaded.comparison.runs}
    assert "both change options.norm" in str(reasons.pop("small-norm=group-other=layer"))
    assert set(reasons.values()) == {None}


@pytest.mark.parametrize(("ablation", "line", "words"), [
    ("  axes: {x: {a: {}, b: {options.dept: 8}}}", 2, ["unknown key 'options.dept'", "did you mean 'depth'"]),
    ("  axes: {x: {a: {}, b: {recipe.lrr: 8}}}", 2, ["recipe.lrr", "did you mean 'lr'"]),
    ("  axes: {x: {a: {}, b: {options.norm.gn_groups: 8}}}", 2, ["gn_groups", "gn_num_groups"]),
    ("  axes: {x: {a: {}, b: {seeds: [1]}}}", 2, ["nothing an axis can change"]),
    ("  axes: {x: {a: {}, b: {options: {depth: 8}}}}", 2, ["whole section"]),
    ("  axes:\n    x: {a: {}, b: {options.depth: 9}}", 3, ["none of its levels but 'a'", "110, ...), not 9"]),
    ("  axes: {x: {a: {}}}", 2, ["two levels"]),
    ("  axes: {x: {a: {}, b: {}}}", 2, ["say the same"]),
    ("  axes: {x: {key: options.depth, values: [8]}}", 2, ["two levels"]),
    ("  axes: {x: {key: options.depth, values: [8, 8]}}", 2, ["stands twice"]),
    ("  axes: {x: {key: options.norm, values: [batch, {kind: group}]}}", 2, ["no name"]),
    ("  axes: {a b: {a: {}, b: {options.depth: 8}}}", 2, ["no plain name"]),
    ("  axes: {}", 2, ["at least 1"]),
    ("  axis: {}", 1, ["'axes' is missing"]),
    ("  design: star\n  axes: {x: {a: {}, b: {options.depth: 20}}}", 2, ["'grid' or 'one_at_a_time'"]),
    ("  runs: [smal]\n  axes: {x: {a: {}, b: {options.depth: 20}}}", 2, ["did you mean 'small'"]),
    ("  axes: {x: {a: {options.depth: 9}, b: {options.depth: 10}}}", 2, ["none of its levels", "6n+2"]),
])  # fmt: skip
def test_mistakes_are_errors_with_their_line(tmp_path: Path, ablation: str, line: int, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, f"ablation:\n{ablation}\n")
    text = str(error.value)
    assert f"abl.yaml:{BASE.count(chr(10)) + line}: " in text, text
    for word in words:
        assert word in text, text


def test_two_sections_cannot_have_the_same_axis_for_a_run(tmp_path: Path) -> None:
    axis = "{axes: {depth: {key: options.depth, values: [8, 20]}}}"
    with pytest.raises(ConfigError, match="two axes called 'depth' vary the run 'small'"):
        _load(tmp_path, f"ablation: [{axis}, {axis}]\n")


def test_a_grid_that_explodes_is_refused(tmp_path: Path) -> None:
    axes = ", ".join(f"a{k}: {{key: recipe.epochs, values: [1, 2, 3, 4]}}" for k in range(14))
    with pytest.raises(ConfigError, match="more than 1000 runs"):
        _load(tmp_path, f"ablation: {{axes: {{{axes}}}}}\n")
