"""Exits and units by class."""

from __future__ import annotations

import numpy as np
import pytest
from diag_cases import exits_case, gates_case, paths_case

from bench.evaluate.diagnostics.class_names import class_names, known_classes
from bench.evaluate.diagnostics.usage import ALL, EXIT, UNIT, same_design, skippable_units, usage_rows

NAMES = [str(k) for k in range(10)]


def test_shares_of_exits_add_up_to_one_and_follow_the_choice() -> None:
    case = exits_case()
    rows = usage_rows([case], NAMES)
    assert {row["kind"] for row in rows} == {EXIT}
    for view in case.mixtures:
        mine = [row for row in rows if row["policy"] == view.policy]
        assert list(dict.fromkeys(row["name"] for row in mine)) == [f"exit{k}" for k in range(1, 6)]
        for number in (ALL, *range(10)):
            share = [row["share"] for row in mine if row["class"] == number]
            assert sum(share) == pytest.approx(1, abs=1e-5)
        label = case.test.outcomes.label
        stopped = case.test.points.index("exit2") == view.choice.point
        expected = stopped[label == 3].mean()
        found = next(row["share"] for row in mine if row["class"] == 3 and row["name"] == "exit2")
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_cascade_shows_the_path_that_answered() -> None:
    case = paths_case()
    rows = [row for row in usage_rows([case], NAMES) if row["class"] == ALL]
    assert [row["name"] for row in rows] == ["short", "full"]
    assert rows[1]["share"] == pytest.approx((case.mixtures[0].choice.point == 0).mean(), abs=1e-6)


def test_open_rates_of_gated_units_by_hand() -> None:
    ran = np.zeros((2, 6, 3), bool)
    ran[0, :3, 0] = True  # block1 runs for the first three images
    ran[0, :, 2] = True  # block3 for all at the default point, for none at the other
    case = gates_case(ran, points=["t0.5", "t0.7"])
    label = case.test.outcomes.label
    rows = usage_rows([case], NAMES)
    default = {(row["name"], row["class"]): row["share"] for row in rows if row["point"] == "t0.5"}
    assert {name for name, _ in default} == {"block1", "block2", "block3"}  # neither stem nor control nor head
    assert default["block1", ALL] == 0.5
    assert default["block2", ALL] == 0
    assert default["block3", ALL] == 1
    for number in set(label.tolist()):
        assert default["block1", number] == pytest.approx((np.arange(6) < 3)[label == number].mean(), abs=1e-6)
    absent = next(k for k in range(10) if k not in label)
    assert np.isnan(default["block1", absent])
    assert {row["share"] for row in rows if row["point"] == "t0.7" and row["class"] == ALL} == {0.0}
    assert {row["kind"] for row in rows} == {UNIT}


def test_means_over_seeds() -> None:
    open_, closed = np.ones((1, 4, 2), bool), np.zeros((1, 4, 2), bool)
    rows = usage_rows([gates_case(open_, seed=0), gates_case(closed, seed=1)], NAMES)
    shares = [row["share"] for row in rows if row["class"] == ALL]
    assert shares == [0.5, 0.5]
    assert {row["n_seeds"] for row in rows} == {2}


def test_what_one_network_leaves_out_any_network_of_its_design_could() -> None:
    open_, closed = np.ones((1, 4, 2), bool), np.zeros((1, 4, 2), bool)
    first, second = gates_case(open_, run="a"), gates_case(closed, run="b")
    other = gates_case(np.zeros((1, 4, 3), bool), run="c")
    assert same_design([first, second, other], first) == [first, second]
    assert not skippable_units([first]).any()
    assert skippable_units([first, second]).tolist() == [False, True, True, False, False]


def test_networks_whose_images_all_run_the_same_have_no_usage() -> None:
    assert usage_rows([paths_case(holdout=False)], NAMES) == []


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100), ("fashion_mnist_mini", 10)])
def test_names_of_well_known_classes(dataset: str, classes: int) -> None:
    names = class_names(dataset, classes)
    assert known_classes(dataset) == classes == len(set(names))
    assert not any("_" in name for name in names)
    assert class_names(dataset, classes + 1) == [str(k) for k in range(classes + 1)]
    assert class_names("my own", 3) == ["0", "1", "2"]
    assert known_classes("my own") == 0


def test_names_are_in_the_order_of_the_labels() -> None:
    assert class_names("cifar10", 10)[3] == "cat"
    names = class_names("cifar100", 100)
    assert names == sorted(names)  # as the data set's own list is
