"""`verdicts:` and `auc:` of a comparison file: one line for each mistake, and nothing of them in a run's identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config.comparing import Budget, Verdicts, parse_budget
from bench.config.load import load_config
from bench.config.resolve import resolve
from bench.errors import ConfigError

FILE = """name: c
data: {{name: fashion_mnist_mini, val_size: 2000}}
reference: b
budgets: [0.5, "30M"]
{more}
runs:
  - {{name: a, method: resnet, options: {{depth: 8}}, group: family}}
  - {{name: b, method: resnet, options: {{depth: 14}}}}
"""


def written(folder: Path, more: str, **replaced: str) -> Path:
    path = folder / "c.yaml"
    text = FILE.format(more=more)
    for old, new in replaced.items():
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("verdicts: {against: c}", "no run or group is called 'c'"),
        ("verdicts: {against: famly}", "did you mean 'family'"),
        ("verdicts: {first: 0.7}", "verdicts.first: 0.7 is not one of `budgets`; write one of them, or auc"),
        ("verdicts: {first: area}", "area"),
        ("verdicts: {order: dearest}", "dearest_first"),
        ("verdicts: {agianst: all}", "agianst"),
        ("auc: [1.0, 0.25]", "the range of the area must grow; got 1 and 0.25"),
        ('auc: ["2ms", "5ms"]', "not in milliseconds"),
        ("auc: [0.5]", "auc"),
    ],
)
def test_one_line_with_file_and_line_for_each_mistake(tmp_path: Path, more: str, words: str) -> None:
    path = written(tmp_path, more)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert f"{path}:5" in str(caught.value)


def test_what_needs_a_reference_says_so(tmp_path: Path) -> None:
    alone = {"reference: b\n": "", '[0.5, "30M"]': '["30M"]'}
    for more, words in (("auc: [0.5, 1]", "auc: a share needs a `reference:`"),
                        ("verdicts: {against: reference}", "reference needs a `reference:` run")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            load_config(written(tmp_path, more, **alone))
    load_config(written(tmp_path, 'auc: ["10M", "30M"]', **alone))


def test_neither_changes_a_run(tmp_path: Path) -> None:
    plain = [spec.run_id for spec in resolve(load_config(written(tmp_path, "")))]
    more = 'auc: [0.5, "40M"]\nverdicts: {against: family, first: "30M", order: cheapest_first}'
    loaded = load_config(written(tmp_path, more))
    assert [spec.run_id for spec in resolve(loaded)] == plain
    assert loaded.comparison.verdicts == Verdicts(against="family", first="30M", order="cheapest_first")


def test_the_order_of_what_is_asked() -> None:
    budgets = [parse_budget(entry) for entry in (0.5, "30M", "2ms", 1.0)]
    costs = [20e6, 30e6, 2.0, 40e6]
    assert Verdicts().arrange(budgets, costs) == ["auc", "1", "30M", "0.5", "2ms"]
    assert Verdicts(first="30M").arrange(budgets, costs) == ["30M", "1", "0.5", "2ms", "auc"]
    assert Verdicts(order="cheapest_first").arrange(budgets, costs) == ["auc", "0.5", "30M", "1", "2ms"]
    assert Verdicts().arrange([Budget(0.5, "relative")] * 2, [1, 1]) == ["auc", "0.5"]
