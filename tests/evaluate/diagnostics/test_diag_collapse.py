"""Gates that decide nothing are flagged; units that run by design are not."""

from __future__ import annotations

import numpy as np
import pytest
from diag_cases import case_of, exits_case, gates_case, paths_case
from synthetic_records import make_cost, make_record

from bench.evaluate.diagnostics.collapse import CLOSED, CONSTANT, LOG, OPEN, gate_warnings

LOGGED = [{"epoch": 1, "gates_collapsed": 0.0}, {"epoch": 2, "gates_collapsed": 1.0, "gates_constant": 1.0,
                                                 "gate00_open": 1.0, "gate01_open": 1.0}]  # fmt: skip


def ran(n: int = 1000, blocks: int = 4, points: int = 1) -> np.ndarray:
    return np.random.default_rng(0).random((points, n, blocks)) < 0.5


def test_working_gates_are_not_flagged() -> None:
    assert gate_warnings([gates_case(ran())]) == []


def test_some_constant_gates_are_usual() -> None:
    some = ran()
    some[:, :, 0] = True
    some[:, :, 1] = False
    assert gate_warnings([gates_case(some)]) == []


@pytest.mark.parametrize("exceptions", [0, 20])
def test_all_closed(exceptions: int) -> None:
    none = np.zeros((1, 1000, 4), bool)
    none[0, :exceptions] = True  # 2 % of the images
    found = gate_warnings([gates_case(none, seed=3)])
    assert [(w.kind, w.seed, w.run) for w in found] == [(CLOSED, 3, "gated")]
    assert list(found[0].rates) == ["block1", "block2", "block3", "block4"]
    assert found[0].rates["block2"] == exceptions / 1000
    assert "Gated, seed 3: the gates are all closed at p0: all 4 units" in found[0].text
    assert "stem" not in found[0].text


def test_more_exceptions_than_two_in_a_hundred_are_too_many() -> None:
    none = np.zeros((1, 1000, 4), bool)
    none[0, :21] = True
    assert gate_warnings([gates_case(none)]) == []


def test_all_open_is_known_from_another_point_or_seed() -> None:
    both = ran(points=2)
    both[0] = True
    found = gate_warnings([gates_case(both)])
    assert [w.kind for w in found] == [OPEN]
    assert "all 4 units that gates can leave out run" in found[0].text
    two = gate_warnings([gates_case(np.ones((1, 1000, 4), bool), seed=0), gates_case(ran(), seed=1)])
    assert [(w.kind, w.seed) for w in two] == [(OPEN, 0)]


def test_all_open_everywhere_is_known_from_several_points_or_the_log() -> None:
    always = np.ones((2, 100, 4), bool)
    found = gate_warnings([gates_case(always)])
    assert [w.kind for w in found] == [OPEN]
    assert "no image, at no operating point (p0, p1), leaves out a unit" in found[0].text
    logged = gate_warnings([gates_case(always[:1], curves=LOGGED)])
    assert [w.kind for w in logged] == [OPEN]
    assert logged[0].rates == {"gate00": 1.0, "gate01": 1.0}
    assert "gates_collapsed 1.00, gates_constant 1.00" in logged[0].text


def test_a_gated_design_built_without_gates_is_not_flagged() -> None:
    assert gate_warnings([gates_case(np.ones((1, 100, 4), bool), curves=[{"epoch": 1, "loss": 1.0}])]) == []


def test_gates_that_never_look_at_the_image() -> None:
    fixed = np.zeros((1, 100, 4), bool)
    fixed[0, :, 0] = True
    other = gates_case(ran(), run="other")
    found = gate_warnings([gates_case(fixed), other])
    assert [(w.kind, w.run) for w in found] == [(CONSTANT, "gated")]
    assert "(1 run, 3 do not; block1 100.0 %" in found[0].text


def test_a_log_that_says_collapsed_is_quoted_even_where_test_images_differ() -> None:
    found = gate_warnings([gates_case(ran(), curves=LOGGED)])
    assert [w.kind for w in found] == [LOG]
    assert "differ between test images" in found[0].text
    assert gate_warnings([gates_case(ran(), curves=LOGGED[:1])]) == []


def test_other_families_are_never_flagged() -> None:
    record = make_record([1.0], np.ones((1, 3), np.uint8), n=50)
    plain = case_of(record, make_cost([1, 1, 1], record.units))
    assert gate_warnings([exits_case(), paths_case(), plain]) == []


def test_gates_that_the_log_knows_beyond_the_closed_ones_are_open() -> None:
    some = np.ones((1, 100, 2), bool)
    some[:, :, 0] = False
    assert [w.kind for w in gate_warnings([gates_case(some)])] == [CLOSED]  # nothing shows a second gate
    found = gate_warnings([gates_case(some, curves=LOGGED[1:])])
    assert [w.kind for w in found] == [CONSTANT]
    assert "each of the 2 units behind a gate does the same (1 run, 1 do not; block1 0.0 %)" in found[0].text
