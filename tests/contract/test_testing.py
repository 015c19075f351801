"""The contract's checks find what is wrong with a method, and name it in one line."""

from __future__ import annotations

import pytest
from lying import LIES, Gated, TwoExits

from bench import registry
from bench.cli import main
from bench.method import Method
from bench.testing import CHECKS, check_method


@pytest.mark.parametrize("method", [TwoExits, Gated])
def test_a_sound_method_passes(method: type[Method]) -> None:
    assert check_method(method) == []


#: The kinds of lies that a comparison cannot survive.
WORST = ("heads outside of every unit", "counts of another order", "an exit that computes on",
         "a record that depends on the batch", "a gate that is not paid", "a parameter without a gradient",
         "mixed targets ignored", "state that leaks between batches", "random numbers in evaluation",
         "an option that changes nothing")  # fmt: skip


def test_all_ten_kinds_are_tried() -> None:
    assert set(WORST) <= set(LIES)


def test_bench_test_prints_one_line_per_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", "resnet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * (len(CHECKS) + 1) + ["resnet:"]
    monkeypatch.setattr(registry, "method_class", lambda name: LIES["mixed targets ignored"][0])
    assert main(["test", "resnet"]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert wrong == ["WRONG targets        method 'resnet': loss: stage 'train': it ignores the targets of mixup and "
                     "cutmix (batch.targets)"]  # fmt: skip


@pytest.mark.parametrize("kind", LIES)
def test_a_lie_is_named(kind: str) -> None:
    method, words = LIES[kind]
    problems = check_method(method, "plug")
    assert problems, kind
    assert words in problems[0]
    assert problems[0].startswith("method 'plug': ")
    assert all(len(problem.splitlines()) == 1 for problem in problems)
