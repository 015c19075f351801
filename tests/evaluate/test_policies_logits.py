"""Policies that need logits or choose harder: exact against plain loops, fitted on validation only, left out if they
cannot be had."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import exits_record

from bench.config.schema import Evaluate
from bench.evaluate.logits import Logits
from bench.evaluate.measured import Measured, read_measured
from bench.evaluate.policies import Policy, exit_order, make_policies, policy_class, policy_names
from bench.evaluate.policies.ztw import fit_ensemble
from bench.evaluate.record import DecisionRecord
from bench.evaluate.rows import make_rows, read_rows, write_rows
from bench.store.manifest import RunFiles

ROOT = Path(__file__).resolve().parents[2]
KEPT = sorted(ROOT.glob("results/reference/*/runs/*/val-signals.npz"))
CLASSES = 10


def with_logits(n: int, seed: int, exits: int = 4, sharp: float = 3.0) -> DecisionRecord:
    """A record whose signals and outcomes are those of its (float16) logits."""
    record = exits_record(n, seed, exits)[0]
    rng = np.random.default_rng(seed + 100)
    label = record.outcomes.label
    noise = rng.normal(size=(1, n, CLASSES)) + 0.6 * rng.normal(size=(exits, n, CLASSES))
    order = exit_order(record.signals)
    noise[order, :, :] += (0.8 + 0.35 * np.arange(exits))[:, None, None] * np.eye(CLASSES)[label][None]
    values = (sharp * noise).astype(np.float16)
    z = values.astype(np.float64)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    top = np.sort(np.exp(logp), axis=-1)
    own = np.take_along_axis(logp, label[None, :, None].astype(int), axis=-1)
    earlier = np.arange(CLASSES) < label[:, None]
    rank = ((logp > own) | ((logp == own) & earlier)).sum(-1)
    signals = dataclasses.replace(
        record.signals, prediction=logp.argmax(-1).astype(np.int32), confidence=top[..., -1].astype(np.float32),
        margin=(top[..., -1] - top[..., -2]).astype(np.float32),
        entropy=-(np.exp(logp) * logp).sum(-1).astype(np.float32),
    )  # fmt: skip
    outcomes = dataclasses.replace(
        record.outcomes, hit=rank < 1, hit5=rank < 5, logp=own[..., 0].astype(np.float32)
    )
    return DecisionRecord(signals, outcomes, Logits(record.signals.indices, values, CLASSES))


VAL, TEST = with_logits(600, 1), with_logits(500, 2)
COST = exits_record(10, 0, 4)[1]
META = {"capabilities": ["exits"], "run": "r", "seed": 0}


def fitted(name: str, val: DecisionRecord = VAL) -> list[Policy]:
    members = list(policy_class(name).members(val.signals, np.arange(4.0)))
    for member in members:
        member.fit(val.signals, val.outcomes)
    return members


def rows_of(*names: str, val: DecisionRecord = VAL, test: DecisionRecord = TEST) -> list[dict]:
    return make_rows(META, {"val": val, "test": test}, COST, Evaluate(policies=names))


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def in_order(record: DecisionRecord) -> np.ndarray:
    assert record.logits is not None
    return record.logits.values[exit_order(record.signals)].astype(np.float64)


# ---- temperature -----------------------------------------------------------------------------------------
def nll_at(z: np.ndarray, label: np.ndarray, t: float) -> float:
    return sum(-math.log(softmax(z[i] / t)[label[i]]) for i in range(len(label))) / len(label)


def test_temperature_minimises_the_validation_loss_and_keeps_every_answer() -> None:
    member = fitted("temperature")[0]
    label = VAL.outcomes.label
    for z, t in zip(in_order(VAL), member.thresholds):
        best = nll_at(z, label, t)
        assert best <= min(nll_at(z, label, t * 1.02), nll_at(z, label, t / 1.02), nll_at(z, label, 1.0))
    anytime = {r["point"]: r for r in rows_of("anytime") if r["policy"] == "anytime"}
    scaled = {r["point"]: r for r in rows_of("temperature") if r["policy"] == "temperature" and r["point"]}
    assert set(anytime) == set(scaled)
    for point, row in scaled.items():
        assert [row[c] for c in ("top1", "top5", "macs")] == [anytime[point][c] for c in ("top1", "top5", "macs")]
        assert row["nll"] < anytime[point]["nll"]  # these logits are three times too large
        assert row["ece"] < anytime[point]["ece"]


@pytest.mark.parametrize(("name", "plain"), [("temperature", "confidence"), ("temperature_margin", "margin"),
                                             ("temperature_entropy", "entropy")])  # fmt: skip
def test_threshold_after_temperature_against_a_plain_loop(name: str, plain: str) -> None:
    order = exit_order(TEST.signals)
    for member in fitted(name)[-6:]:
        temperatures = member.thresholds
        choice = member.apply(TEST.signals)
        for i in range(0, TEST.n, 7):
            for k, z in enumerate(in_order(TEST)[:, i]):
                p = softmax(z / np.float32(temperatures[k]))
                top = np.sort(p)
                value = {"confidence": top[-1], "margin": top[-1] - top[-2], "entropy": -(p * np.log(p)).sum()}[plain]
                near = abs(value - member.setting) < 1e-5
                if (value <= member.setting) if plain == "entropy" else (value >= member.setting):
                    break
            assert near or order[k] == choice.point[i]


def test_temperature_hardly_changes_rules_with_a_threshold_per_exit() -> None:
    plain = [r["top1"] for r in rows_of("budgeted") if r["policy"] == "budgeted"]
    scaled = [r["top1"] for r in rows_of("temperature_budgeted") if r["policy"] == "temperature_budgeted"]
    assert len(plain) == len(scaled) == 40
    assert np.abs(np.subtract(plain, scaled)).mean() < 1


# ---- ensembles over exits --------------------------------------------------------------------------------
def test_product_against_a_plain_loop() -> None:
    order = exit_order(TEST.signals)
    z = in_order(TEST)
    members = {m.point_name(TEST.signals): m for m in fitted("product") if m.point_name(TEST.signals)}
    collapsed = 0
    for k, point in enumerate(order):
        choice = members[TEST.points[point]].apply(TEST.signals)
        assert (choice.point == point).all()
        for i in range(0, TEST.n, 5):
            product = np.ones(CLASSES)
            for j in range(k + 1):
                product *= np.maximum(z[j, i], 0) ** ((j + 1) / len(order))
            if product.sum() == 0:
                collapsed += 1
                product = softmax(z[k, i])
            np.testing.assert_allclose(np.exp(choice.logp[i]), product / product.sum(), atol=1e-5)
    late = members[TEST.points[order[-1]]].apply(TEST.signals).label_logp(TEST.outcomes)
    assert np.isfinite(late).all()
    assert collapsed > 0 or z.min() < 0


def test_most_confident_so_far_against_a_plain_loop() -> None:
    signals = TEST.signals
    order = exit_order(signals).tolist()
    for member in fitted("most_confident"):
        name = member.point_name(signals)
        choice = member.apply(signals)
        for i in range(0, signals.n, 9):
            best = None
            for k in order:
                if best is None or signals.confidence[k, i] > signals.confidence[best, i]:
                    best = k
                stop = signals.points[k] == name if name else signals.confidence[k, i] >= np.float32(member.setting)
                if stop:
                    break
            assert choice.point[i] == best
            assert np.flatnonzero(choice.paid[i]).tolist() == [k]


def test_rows_of_the_most_confident_exit_score_that_exit() -> None:
    row = next(r for r in rows_of("most_confident") if r["policy"] == "most_confident" and r["point"] == "exit4")
    best = TEST.signals.confidence[exit_order(TEST.signals)].argmax(0)
    hit = TEST.outcomes.hit[exit_order(TEST.signals)][best, np.arange(TEST.n)]
    assert row["top1"] == pytest.approx(100 * hit.mean(), abs=1e-3)
    assert row["macs"] == COST.cost(TEST.signals.counts)["macs"].max()


def test_ztw_weights_are_a_minimum_and_its_answers_a_plain_loop() -> None:
    z = in_order(VAL)
    logp = np.log([[softmax(row) for row in exit_z] for exit_z in z])
    label = VAL.outcomes.label.astype(int)
    w, b = fit_ensemble(logp[:3], label)

    def loss(w: np.ndarray, b: np.ndarray) -> float:
        s = np.tensordot(np.exp(w) / 3, logp[:3], axes=1) + b
        return -float((s[np.arange(len(label)), label] - np.log(np.exp(s).sum(-1))).mean())

    rng = np.random.default_rng(0)
    for _ in range(20):
        dw, db = 0.02 * rng.normal(size=3), 0.02 * rng.normal(size=CLASSES)
        assert loss(w, b) <= loss(w + dw, b + db) + 1e-9
    member = next(m for m in fitted("ztw") if m.point_name(TEST.signals) == "exit3")
    shapes, start = [1, 2, 3], 0
    for k in shapes:
        own_w, own_b = member.thresholds[start : start + k], member.thresholds[start + k : start + k + CLASSES]
        start += k + CLASSES
    np.testing.assert_allclose(own_w, w, atol=1e-3)
    choice = member.apply(TEST.signals)
    for i in range(0, TEST.n, 11):
        s = sum(math.exp(own_w[j]) / 3 * np.log(softmax(in_order(TEST)[j, i])) for j in range(3)) + own_b
        np.testing.assert_allclose(np.exp(choice.logp[i]), softmax(s), atol=1e-4)
    last = next(m for m in fitted("ztw") if m.point_name(TEST.signals) == "exit4").apply(TEST.signals)
    np.testing.assert_allclose(last.label_logp(TEST.outcomes), TEST.outcomes.logp[0], atol=1e-4)


# ---- accuracy-calibrated exits ---------------------------------------------------------------------------
def test_accuracy_calibrated_against_a_plain_loop() -> None:
    order = exit_order(VAL.signals).tolist()
    for member in fitted("accuracy_calibrated")[::3]:
        choice = member.apply(TEST.signals)
        for i in range(0, TEST.n, 13):
            for point in order:
                confidence = np.sort(VAL.signals.confidence[point])
                starts = [-math.inf] + [confidence[b * VAL.n // 15] for b in range(1, 15)]
                own = max(b for b in range(15) if starts[b] <= TEST.signals.confidence[point, i])
                high = starts[own + 1] if own < 14 else math.inf
                alike = [j for j in range(VAL.n) if starts[own] <= VAL.signals.confidence[point, j] < high]
                right = sum(VAL.outcomes.hit[point, j] for j in alike)
                if right >= member.setting * len(alike):
                    break
            assert choice.point[i] == point


# ---- what can be had, and what sees what -----------------------------------------------------------------
def test_records_without_logits_leave_those_policies_out_in_one_line() -> None:
    bare = DecisionRecord(exits_record(50, 1, 4)[0].signals, exits_record(50, 1, 4)[0].outcomes)
    asked = ("ztw", "product", "most_confident", "ltt_gap")
    names = {r["policy"] for r in rows_of(*asked, val=bare, test=bare)}
    assert {"most_confident", "ltt_gap"} <= names
    assert not {"ztw", "product"} & names
    measured = Measured(META, {"val": bare, "test": bare}, COST, Evaluate(policies=asked))
    assert measured.without_logits == ("ztw", "product")
    assert Measured(META, {"val": VAL, "test": TEST}, COST, Evaluate(policies=asked)).without_logits == ()


def test_the_twenty_largest_logits_are_not_enough() -> None:
    assert VAL.logits is not None
    few = Logits(VAL.logits.indices, VAL.logits.values[..., :2], CLASSES,
                 np.zeros((4, 600, 2), np.uint16), np.zeros((4, 600), np.float32))  # fmt: skip
    record = DecisionRecord(dataclasses.replace(VAL.signals, read_logits=None), VAL.outcomes, few)
    assert Measured(META, {"test": record}, COST, Evaluate(policies=("ztw",))).without_logits == ("ztw",)
    assert "ztw" not in {r["policy"] for r in rows_of("ztw", val=record, test=record)}


def test_logits_are_read_with_the_record_on_demand(tmp_path: Path) -> None:
    for split, record in (("val", VAL), ("test", TEST)):
        record.save(tmp_path, split)
    (tmp_path / "meta.json").write_text(json.dumps({"capabilities": ["exits"], "run": "r", "seed": 0,
                                                    "evaluate": {"policies": ["ztw"]}}))  # fmt: skip
    (tmp_path / "cost.json").write_text(json.dumps(COST.to_dict()))
    measured = read_measured(tmp_path, RunFiles(tmp_path, None))
    assert measured is not None
    assert measured.rows() == rows_of("ztw")


def test_permuted_test_labels_change_no_fitted_number_of_any_policy() -> None:
    permuted = np.random.default_rng(0).permutation(TEST.n)
    leaked = dataclasses.replace(TEST.outcomes, **{
        name: getattr(TEST.outcomes, name)[..., permuted] for name in ("label", "hit", "hit5", "logp")
    })  # fmt: skip
    found = []
    for outcomes in (TEST.outcomes, leaked):
        records = {"val": VAL, "test": DecisionRecord(TEST.signals, outcomes)}
        rows = make_rows(META, records, COST, Evaluate(policies=tuple(policy_names())))
        fixed = ("policy", "point", "setting", "thresholds", "macs", "macs_p95", "risk_target", "risk_delta")
        found.append(json.dumps([[r[c] for c in fixed] for r in rows if r["policy"] != "oracle"]))
        made = b""
        for policy in make_policies(["exits"], policy_names(), VAL.signals, np.arange(4.0), validation=True):
            policy.fit(VAL.signals, VAL.outcomes)
            choice = policy.apply(records["test"].signals)
            made += policy.thresholds.tobytes() + choice.point.tobytes() + choice.paid.tobytes()
            made += b"" if choice.logp is None else choice.logp.tobytes()
        found.append(made.hex())
    assert found[:2] == found[2:]
    assert {json.loads(found[0])[k][0] for k in range(len(json.loads(found[0])))} >= set(policy_names()) - {
        "fixed", "cascade"
    }  # fmt: skip


def test_the_columns_of_promises_exist_only_if_there_is_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "plain.csv", rows_of("budgeted"))
    write_rows(tmp_path / "risk.csv", rows_of("ltt_gap", "crc_gap"))
    assert "risk_" not in (tmp_path / "plain.csv").read_text()
    assert all(row["risk_target"] is None for row in read_rows(tmp_path / "plain.csv"))
    rows = [row for row in read_rows(tmp_path / "risk.csv") if row["policy"] in ("ltt_gap", "crc_gap")]
    assert [(r["policy"], r["risk_target"], r["risk_delta"]) for r in rows] == [
        *(("ltt_gap", target, 0.1) for target in (0.01, 0.02, 0.05)),
        *(("crc_gap", target, None) for target in (0.01, 0.02, 0.05)),
    ]
    last = TEST.outcomes.hit[0].mean()
    for row in rows:
        assert 100 * (last - row["risk_realised"]) <= row["top1"] + 1e-3  # gains are not set off


QUICK = ("imta4-seed0", "adn20-seed0")


@pytest.mark.parametrize("path", [
    pytest.param(p, id=f"{p.parts[-4]}-{p.parent.name}",
                 marks=[] if p.parent.name.startswith(QUICK) else pytest.mark.slow)
    for p in KEPT
])  # fmt: skip
def test_every_policy_on_kept_records(path: Path) -> None:
    """Those that need logits say so in one line; the others give rows."""
    measured = read_measured(path.parent)
    if measured is None:
        pytest.skip("the oldest records have no facts of the run")
    asked = dataclasses.replace(measured, evaluate=Evaluate(policies=tuple(policy_names())))
    found = {row["policy"] for row in asked.rows()}
    suited = {n for n in policy_names() if policy_class(n).requires <= measured.capabilities}
    assert set(asked.without_logits) == {n for n in suited if policy_class(n).needs_logits}
    assert found >= suited - set(asked.without_logits) - {"fixed"}
