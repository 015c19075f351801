"""The contract's checks find what is wrong with a method, and name it in one line."""

from __future__ import annotations

import pytest
from lying import LIES, TwoExits

from bench.testing import check_method


def test_a_sound_method_passes() -> None:
    assert check_method(TwoExits) == []


@pytest.mark.parametrize("kind", LIES)
def test_a_lie_is_named(kind: str) -> None:
    method, words = LIES[kind]
    problems = check_method(method, "plug")
    assert problems, kind
    assert words in problems[0]
    assert problems[0].startswith("method 'plug': ")
    assert all(len(problem.splitlines()) == 1 for problem in problems)
