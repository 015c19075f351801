"""A policy of another package appears everywhere by itself; a broken one costs one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from plugin import make_package, on_path
from synthetic_records import exits_record

from bench.cli import main
from bench.config.schema import Evaluate
from bench.errors import ConfigError, RunError
from bench.evaluate.policies import known_policy, policy_class, policy_names
from bench.evaluate.rows import make_rows
from bench.report.accuracy import _line_style, curve_of
from bench.report.chart import _dash
from bench.report.diagnostics.frame import words_of

HALF = '''
import numpy as np
from bench.evaluate.policies import Choice, Policy, exit_order

class Half(Policy):
    name = "half"
    help = "every other image leaves at the first exit"
    requires = frozenset({"exits"})
    rank, dashes = 5, (4, 1)
    words, setting_words = "exits, by turns", "every {}nd image leaves"

    def __init__(self, every):
        self.setting = every

    @classmethod
    def members(cls, signals, macs):
        return [Half(2.0), cls(4.0)]

    def apply(self, signals):
        order = exit_order(signals)
        early = np.arange(signals.n) % int(self.setting) == 0
        return Choice.of_point(np.where(early, order[0], order[-1]), len(order))
'''
#: What is wrong with a policy, and what is said of it.
BROKEN = {
    "raises": ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError: No module named"),
    "leaves": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "no_class": ("Bad = 3", "is not a class derived from bench.evaluate.policies.Policy"),
    "abstract": ("from bench.evaluate.policies import Policy\nclass Bad(Policy):\n    name, help = 'bad', ''",
                 "does not define apply, members"),
    "other_name": (HALF + "Bad = Half", "its name is 'half', not that of its entry point"),
    "kind": (HALF + "class Bad(Half):\n    name, kind = 'bad', 'pie'", "kind must be one of points, steps, curve"),
    "dashes": (HALF + "class Bad(Half):\n    name, dashes = 'bad', 3", "dashes must be a tuple of lengths"),
    "words": (HALF + "class Bad(Half):\n    name, setting_words = 'bad', '{no}'", "setting_words must have {}"),
}  # fmt: skip
#: What `apply` answers, and what is said of that.
WRONG = {
    "1 / 0": "apply raised ZeroDivisionError",
    "3": "apply returned int, not bench.evaluate.policies.Choice",
    "Choice.of_point(np.zeros(3, int), len(signals.points))": "an integer, for each of 40 images",
    "Choice.of_point(np.full(signals.n, 9), len(signals.points))": "a point that is not one of 0 to 4",
    "Choice(np.zeros(signals.n, int), np.zeros((signals.n, len(signals.points)), bool))": "it does not pay for",
}


@pytest.fixture
def half(tmp_path: Path) -> Iterator[None]:
    with on_path(make_package(tmp_path / "half", "half", {"bench.policies": {"half": "half_policy:Half"}},
                              half_policy=HALF)):  # fmt: skip
        yield


def _rows(*policies: str) -> list[dict[str, object]]:
    test, cost = exits_record(40, 0)
    val, _ = exits_record(30, 1)
    return make_rows({"capabilities": ["exits"]}, {"test": test, "val": val}, cost, Evaluate(policies=policies))


@pytest.mark.usefixtures("half")
def test_it_appears_in_the_list_the_rows_and_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "policies"]) == 0
    listed = capsys.readouterr().out
    assert "half: every other image leaves at the first exit (needs exits; chosen on: nothing)\n" in listed
    rows = _rows("budgeted", "half")
    assert [row["setting"] for row in rows if row["policy"] == "half"] == [2.0, 4.0]
    drawn = curve_of([{**row, "macs_mean": row["macs"]} for row in rows])
    assert {line["policy"] for line in drawn} == {"half"}, "the lowest rank is drawn"
    assert _line_style("half") == (0, (4, 1))
    assert _dash("half") == "7.2 1.8"
    assert words_of("half", "", "2") == "every 2nd image leaves"
    assert policy_class("half").words == "exits, by turns"


@pytest.mark.usefixtures("half")
def test_it_runs_only_if_it_is_asked_for() -> None:
    assert "half" not in {row["policy"] for row in _rows()}


def test_what_is_not_installed_is_left_out_of_figures() -> None:
    assert known_policy("half") is None
    assert words_of("half", "", "2") == "half 2"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_one_line_and_stops_nobody(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = BROKEN[kind]
    package = make_package(tmp_path / "bad", "bad", {"bench.policies": {"bad": "bad_policy:Bad"}}, bad_policy=text)
    with on_path(package):
        assert main(["list", "policies"]) == 0
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if line.startswith("bad: ")]
        assert line.startswith("bad: evaluate.policies: policy 'bad' (bad_policy:Bad): ")
        assert words in line
        assert len(lines) == len(policy_names())
        assert _rows("budgeted")
        with pytest.raises(ConfigError) as caught:
            policy_class("bad")
        assert len(str(caught.value).splitlines()) == 1


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    entries = {"bench.policies": {"fixed": "first:Half", "half": "first:Half"}}
    first = make_package(tmp_path / "a", "first", entries, first=HALF)
    second = make_package(tmp_path / "b", "second", {"bench.policies": {"half": "second:Half"}}, second=HALF)
    with on_path(first, second):
        assert policy_class("fixed").__module__.startswith("bench."), "ours cannot be replaced"
        with pytest.raises(ConfigError, match=r"policy 'half' .*another package registers it too"):
            policy_class("half")
        assert policy_class("budgeted")


@pytest.mark.parametrize("answer", WRONG)
def test_a_wrong_answer_is_one_line(answer: str, tmp_path: Path) -> None:
    text = HALF.partition("        order = exit_order")[0] + f"        return {answer}\n"
    package = make_package(tmp_path / "p", "p", {"bench.policies": {"half": "half_policy:Half"}}, half_policy=text)
    with on_path(package), pytest.raises(RunError) as caught:
        _rows("half")
    assert str(caught.value).startswith("policy 'half': ")
    assert WRONG[answer] in str(caught.value)


def test_words_are_not_inherited() -> None:
    class Warmer(policy_class("budgeted")):  # type: ignore[misc]
        name = "warmer"

    assert Warmer.words == "warmer"
    assert Warmer.setting_words == "warmer {}"
    assert np.isfinite(Warmer.rank)
