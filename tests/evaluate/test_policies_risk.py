"""Promises about the risk of leaving early: exact against plain loops, and kept over random splits."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from synthetic_records import exits_record

from bench.config.resolve import RunSpec
from bench.config.schema import Evaluate
from bench.evaluate.policies import Risk, exit_order, policy_class
from bench.evaluate.policies.risk import THRESHOLDS, binomial_cdf, last_kept
from bench.evaluate.record import DecisionRecord

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "promises.py"
VAL, TEST = exits_record(700, 1, 4)[0], exits_record(600, 2, 4)[0]
NAMES = ("ltt_gap", "ltt_consistency", "crc_gap", "crc_consistency")


@pytest.fixture(scope="module")
def promises() -> ModuleType:
    spec = importlib.util.spec_from_file_location("promises_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def loss(name: str, record: DecisionRecord, point: int, i: int) -> bool:
    if name.endswith("gap"):
        return bool(record.outcomes.hit[0, i] and not record.outcomes.hit[point, i])
    return bool(record.signals.prediction[0, i] != record.signals.prediction[point, i])


def leaves_at(record: DecisionRecord, threshold: float, i: int) -> int:
    order = exit_order(record.signals).tolist()
    return next((k for k in order if record.signals.confidence[k, i] >= threshold), order[-1])


def loop_threshold(name: str, record: DecisionRecord, target: float, delta: float) -> float:
    """Walk down from the safest threshold; the last one that was certified."""
    n, found = record.n, math.inf
    for threshold in THRESHOLDS:
        bad = sum(loss(name, record, leaves_at(record, threshold, i), i) for i in range(n))
        if name.startswith("ltt"):
            tail = sum(math.comb(n, k) * target**k * (1 - target) ** (n - k) for k in range(bad + 1))
            good = tail <= delta
        else:
            good = n / (n + 1) * (bad / n) + 1 / (n + 1) <= target
        if not good:
            break
        found = float(threshold)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("target", "delta"), [(0.06, 0.1), (0.2, 0.3)])
def test_thresholds_against_a_plain_loop(name: str, target: float, delta: float) -> None:
    val = exits_record(90, 4, 4)[0]
    (member,) = policy_class(name).members_for(val.signals, np.arange(4.0), Risk((target,), delta))
    member.fit(val.signals, val.outcomes)
    assert float(member.thresholds[0]) == loop_threshold(name, val, target, delta)
    choice = member.apply(TEST.signals)
    expected = [leaves_at(TEST, member.thresholds[0], i) for i in range(TEST.n)]
    assert choice.point.tolist() == expected
    assert member.promise is not None
    risk = sum(loss(name, TEST, expected[i], i) for i in range(TEST.n)) / TEST.n
    assert member.promise.realised(choice, TEST.signals, TEST.outcomes) == risk
    assert (member.promise.target, member.promise.delta) == (target, delta if name.startswith("ltt") else None)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_certified_means_always_the_last_exit(name: str) -> None:
    val = exits_record(20, 1, 4)[0]  # too few images to certify 1 %
    (member,) = policy_class(name).members_for(val.signals, np.arange(4.0), Risk((0.01,), 0.1))
    member.fit(val.signals, val.outcomes)
    assert np.isposinf(member.thresholds).all()
    assert (member.apply(TEST.signals).point == 0).all()


def test_the_last_certified_threshold_before_the_first_that_is_not() -> None:
    assert last_kept(np.array([True, True, False, True])) == 1
    assert last_kept(np.array([False, True])) is None
    assert last_kept(np.array([True, True])) == 1


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (50, 0.02), (400, 0.4)])
def test_binomial_tail(n: int, p: float) -> None:
    exact = np.cumsum([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
    np.testing.assert_allclose(binomial_cdf(n, p), np.minimum(exact, 1), atol=1e-10)


def test_binomial_tail_of_many_images_is_finite() -> None:
    tail = binomial_cdf(50_000, 0.5)
    assert np.isfinite(tail).all()
    assert tail[25_000] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["gap", "consistency"])
def test_promises_are_kept_over_random_splits(promises: ModuleType, kind: str) -> None:
    """The long form, over every kept record: benchmarks/promises.py."""
    pool = [exits_record(3000, 1, 4)[0], exits_record(3000, 9, 4)[0]]
    kept = promises.simulate(*promises.exit_losses(*pool)[kind], (0.02, 0.05), (0.05, 0.2), 200, 500, seed=3)
    for (rule, target, delta), one in kept.items():
        if rule == "ltt":
            assert one.broken <= promises.allowed(delta, 200)
        elif rule == "crc":
            assert one.mean <= target + 2 * one.error
    tuned = max(one.broken for (rule, _, _), one in kept.items() if rule == "tuned")
    assert tuned > 0.25  # else nothing here could tell a promise from a hope


@pytest.mark.slow
def test_promises_are_kept_on_every_kept_record(promises: ModuleType, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sys, "argv", ["promises.py"])
    promises.main()
    assert capsys.readouterr().out.endswith("\n0 promises broken\n")


def test_risk_and_delta_are_part_of_an_identity_only_if_they_are_set() -> None:
    for evaluate, keys in ((Evaluate(), set()), (Evaluate(risk=(0.03,)), {"risk"}), (Evaluate(delta=0.2), {"delta"})):
        assert set(identity_of(evaluate)) & {"risk", "delta"} == keys


def identity_of(evaluate: Evaluate) -> dict:
    class Stub:
        evaluation_amp = "off"
        stages = (type("S", (), {"recipe": type("R", (), {"amp": "off"})}),)

    Stub.evaluate = evaluate  # type: ignore[attr-defined]
    return RunSpec._evaluate_identity(Stub())  # type: ignore[arg-type]
