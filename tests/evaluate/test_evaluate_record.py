"""Decision records: what is kept, how it is stored, what is refused."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_records import SyntheticMethod, exits_record, make_record

from bench.errors import RunError
from bench.evaluate.collect import record_split
from bench.evaluate.logits import ALL, TOP, Logits
from bench.evaluate.record import DecisionRecord, Outcomes, Signals, merge

N, CLASSES = 37, 7


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, 3, 4, 4, generator=generator), torch.randint(0, CLASSES, (N,), generator=generator)


def loader(images, labels, order, batch=8):  # type: ignore[no-untyped-def]
    for start in range(0, len(order), batch):
        index = torch.as_tensor(order[start : start + batch])
        yield images[index], labels[index], index


def network() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(48, CLASSES)


def take(order=None, kind="same", amp="off", images=None, labels=None, model=None):  # type: ignore[no-untyped-def]
    given = data()
    images, labels = given[0] if images is None else images, given[1] if labels is None else labels
    order = list(range(N)) if order is None else order
    return record_split(
        SyntheticMethod(counts=kind), model or network(), loader(images, labels, order), device="cpu", amp=amp
    )  # type: ignore[arg-type]


def equal(a: DecisionRecord, b: DecisionRecord, exact: bool = True) -> bool:
    pairs = [(getattr(a.signals, name), getattr(b.signals, name)) for name in ("indices", "prediction", "counts")]
    floats = [(getattr(a.signals, name), getattr(b.signals, name)) for name in ("confidence", "margin", "entropy")]
    floats += [(a.outcomes.logp, b.outcomes.logp)]
    floats += [(a.signals.extra[name], b.signals.extra[name]) for name in a.signals.extra]
    pairs += [(getattr(a.outcomes, name), getattr(b.outcomes, name)) for name in ("label", "hit", "hit5")]
    same = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)
    close = all(np.array_equal(x, y) if exact else np.allclose(x, y, atol=1e-6) for x, y in floats)
    named = (a.points, a.units, set(a.signals.extra)) == (b.points, b.units, set(b.signals.extra))
    return same and close and named


def test_values_are_those_of_the_softmax() -> None:
    images, labels = data()
    record = take()
    with torch.no_grad():
        base = network()(images.flatten(1)).double()
    for k, point in enumerate(record.points):
        assert point == f"p{k}"
        p = (base * (k + 1)).softmax(-1)
        top = p.sort(-1, descending=True).values
        np.testing.assert_allclose(record.signals.confidence[k], top[:, 0], atol=1e-6)
        np.testing.assert_allclose(record.signals.margin[k], top[:, 0] - top[:, 1], atol=1e-6)
        np.testing.assert_allclose(record.signals.entropy[k], -(p * p.log()).sum(-1), atol=1e-5)
        np.testing.assert_allclose(record.outcomes.logp[k], p.log()[torch.arange(N), labels], atol=1e-5)
        assert np.array_equal(record.signals.prediction[k], p.argmax(-1))
        assert np.array_equal(record.outcomes.hit[k], (p.argmax(-1) == labels))
        assert np.array_equal(record.outcomes.hit5[k], (p.topk(5).indices == labels[:, None]).any(-1))
    assert record.signals.counts.dtype == np.uint8
    assert record.signals.counts.shape == (3, 4)
    assert record.signals.prediction.dtype == np.int32
    assert record.signals.confidence.dtype == record.outcomes.logp.dtype == np.float32
    assert set(record.signals.extra) == {"gate_margin"}


@pytest.mark.parametrize("kind", ["same", "varies"])
def test_order_and_batches_do_not_matter(kind: str) -> None:
    shuffled = np.random.default_rng(1).permutation(N).tolist()
    assert equal(take(kind=kind), take(shuffled, kind=kind), exact=False)


def test_model_mode_is_put_back() -> None:
    model = torch.nn.Sequential(network(), torch.nn.Dropout(0.5))
    model.train()
    model[1].eval()
    take(model=model)
    assert model.training
    assert model[0].training
    assert not model[1].training


def test_equal_logits_count_as_the_first_class() -> None:
    model = network()
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    labels = torch.arange(N) % CLASSES
    record = take(model=model, labels=labels)
    assert np.array_equal(record.outcomes.hit[0], labels == 0)
    assert np.array_equal(record.outcomes.hit5[0], labels < 5)
    assert (record.signals.margin == 0).all()


def test_extreme_logits_leave_finite_signals() -> None:
    model = network()
    with torch.no_grad():
        model.weight.mul_(1e6)
    record = take(model=model)
    assert np.isfinite(record.signals.entropy).all()
    assert np.isfinite(record.outcomes.logp).all()
    assert (record.signals.confidence <= 1).all()


def test_autocast_is_applied_and_softmax_stays_float32() -> None:
    exact, half = take(), take(amp="bf16")
    assert half.signals.confidence.dtype == np.float32
    assert not np.array_equal(exact.signals.confidence, half.signals.confidence)
    np.testing.assert_allclose(exact.signals.confidence, half.signals.confidence, atol=0.05)


def test_logits_that_are_not_finite_are_an_error() -> None:
    images, labels = data()
    images[20] = float("nan")
    with pytest.raises(RunError, match=r"not finite for 1 of 8 .* 20 at point 'p0'"):
        take(images=images, labels=labels)


def test_label_without_a_logit_is_an_error() -> None:
    images, labels = data()
    with pytest.raises(RunError, match="7 classes"):
        take(images=images, labels=labels + 3)


def test_image_that_comes_twice_is_an_error() -> None:
    with pytest.raises(RunError, match="twice, the first is number 3"):
        take([*range(N), 3])


def test_no_image_is_an_error() -> None:
    with pytest.raises(RunError, match="no image"):
        take([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: setattr(d, "logits", d.logits[:2]), "logits of shape"),
        (lambda d: setattr(d, "counts", d.counts[:, :2]), "counts of shape"),
        (lambda d: setattr(d, "counts", d.counts.float()), "must be integers"),
        (lambda d: setattr(d, "counts", d.counts - 5), "negative"),
        (lambda d: d.signals.update(confidence=d.signals["gate_margin"]), "cannot be called 'confidence'"),
        (lambda d: d.signals.update(short=d.signals["gate_margin"][:1]), "signal 'short' has shape"),
    ],
)
def test_what_does_not_fit_the_contract_is_an_error(change, message) -> None:  # type: ignore[no-untyped-def]
    method = SyntheticMethod()
    inner = method.record

    def record(model, images):  # type: ignore[no-untyped-def]
        decisions = inner(model, images)
        change(decisions)
        return decisions

    method.record = record  # type: ignore[method-assign]
    with pytest.raises(RunError, match=message):
        record_split(method, network(), loader(*data(), list(range(N))), device="cpu")  # type: ignore[arg-type]


def test_counts_that_change_between_batches_are_an_error() -> None:
    method = SyntheticMethod()
    inner, calls = method.record, iter(range(99))

    def record(model, images):  # type: ignore[no-untyped-def]
        decisions = inner(model, images)
        decisions.counts = decisions.counts + next(calls)
        return decisions

    method.record = record  # type: ignore[method-assign]
    with pytest.raises(RunError, match="change between batches"):
        record_split(method, network(), loader(*data(), list(range(N))), device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["same", "varies"])
def test_parts_of_several_processes_merge_into_the_whole(kind: str) -> None:
    whole = take(kind=kind)
    parts = [take(list(range(start, N, 3)), kind=kind) for start in range(3)]
    assert equal(merge(parts), whole, exact=False)
    assert equal(merge([whole]), whole)
    with pytest.raises(RunError, match="twice"):
        merge([parts[0], whole])


@pytest.mark.parametrize("kind", ["same", "varies"])
def test_files_round_trip_and_depend_on_content_alone(tmp_path: Path, kind: str) -> None:
    record = take(kind=kind)
    record.save(tmp_path / "a", "test")
    take(kind=kind).save(tmp_path / "b", "test")
    for name in ("test-signals.npz", "test-outcomes.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["test-outcomes.npz", "test-signals.npz"]
    assert equal(DecisionRecord.load(tmp_path / "a", "test"), record)


def test_signals_file_holds_nothing_of_the_label(tmp_path: Path) -> None:
    images, labels = data()
    take(images=images, labels=labels).save(tmp_path / "a", "test")
    take(images=images, labels=(labels + 1) % CLASSES).save(tmp_path / "b", "test")
    assert (tmp_path / "a/test-signals.npz").read_bytes() == (tmp_path / "b/test-signals.npz").read_bytes()
    assert (tmp_path / "a/test-outcomes.npz").read_bytes() != (tmp_path / "b/test-outcomes.npz").read_bytes()


def test_missing_and_damaged_files_are_one_line(tmp_path: Path) -> None:
    take().save(tmp_path, "test")
    path = tmp_path / "test-signals.npz"
    whole = path.read_bytes()
    damages = [whole[:100], whole[: len(whole) // 2], b"", b"not an archive"]
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    damages.append(bytes(flipped))
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(RunError) as caught:
            Signals.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="missing"):
        DecisionRecord.load(tmp_path, "val")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"")
    with pytest.raises(RunError):
        Outcomes.load(path)


def test_signals_and_outcomes_of_other_images_do_not_fit() -> None:
    a, b = make_record([1.0], np.ones((1, 2), np.uint8), n=10), make_record([1.0], np.ones((1, 2), np.uint8), n=11)
    with pytest.raises(RunError, match="same images"):
        DecisionRecord(a.signals, b.outcomes)
    two = make_record([1.0, 2.0], np.ones((2, 2), np.uint8), n=10)
    with pytest.raises(RunError, match="same operating points"):
        DecisionRecord(a.signals, two.outcomes)


def test_arrays_cannot_be_written_to() -> None:
    record, _ = exits_record(10)
    with pytest.raises(ValueError, match="read-only"):
        record.signals.confidence[0, 0] = 0


def test_counts_take_the_smallest_type_that_holds_them() -> None:
    from bench.evaluate.record import smallest_counts

    for most, kind in ((0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.uint32)):
        found = smallest_counts(np.array([[0, most]]))
        assert found.dtype == kind
        assert found.max() == most


def test_records_are_read_without_torch() -> None:
    code = "import sys, bench.evaluate.record, bench.evaluate.rows, bench.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def record_of(classes: int, order: list[int], batch: int = 8) -> DecisionRecord:
    """A record with logits of a fixed network of so many classes."""
    images, labels = data()
    torch.manual_seed(0)
    made = loader(images, labels % classes, order, batch)
    return record_split(SyntheticMethod(), torch.nn.Linear(48, classes), made, device="cpu", keep_logits=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [7, 300])
def test_logits_are_kept_in_their_own_file(tmp_path: Path, classes: int) -> None:
    record = record_of(classes, list(range(N)))
    record.save(tmp_path, "test")
    read = DecisionRecord.load(tmp_path, "test")
    assert read.logits is None  # on demand only
    logits = Logits.load(tmp_path / "test-logits.npz")
    assert logits.values.dtype == np.float16
    assert logits.num_classes == classes
    values = logits.values.astype(np.float32)
    if classes > ALL:
        assert logits.classes is not None
        assert logits.logsumexp is not None
        assert values.shape[2] == TOP
        assert np.array_equal(logits.classes[..., 0], record.signals.prediction)
        confidence = np.exp(values[..., 0] - logits.logsumexp)
    else:
        assert logits.classes is None
        assert values.shape[2] == classes
        odds = np.exp(values - values.max(-1, keepdims=True))
        confidence = odds.max(-1) / odds.sum(-1)
    assert np.allclose(confidence, record.signals.confidence, atol=2e-3)


def test_logits_do_not_depend_on_batches_or_order(tmp_path: Path) -> None:
    for name, order, batch in (("a", list(range(N)), 8), ("b", list(range(N))[::-1], 8)):
        record_of(7, order, batch).save(tmp_path / name, "val")
    a, b = (Logits.load(tmp_path / name / "val-logits.npz") for name in ("a", "b"))
    assert np.array_equal(a.indices, b.indices)
    assert np.allclose(a.values, b.values, atol=1e-2)
    halves = [record_of(7, order) for order in (list(range(20)), list(range(20, N)))]
    merged = merge(halves).logits
    assert merged is not None
    assert np.array_equal(merged.indices, a.indices)
    assert np.allclose(merged.values, a.values, atol=1e-2)


def test_a_record_without_logits_removes_those_of_an_earlier_one(tmp_path: Path) -> None:
    record_of(7, list(range(N))).save(tmp_path, "test")
    take().save(tmp_path, "test")
    assert not (tmp_path / "test-logits.npz").exists()


def test_logits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="need `classes`"):
        Logits(np.arange(3), np.zeros((1, 3, 5), np.float16), 7)
    np.savez(tmp_path / "x.npz", indices=np.arange(3))
    with pytest.raises(RunError, match="does not hold logits"):
        Logits.load(tmp_path / "x.npz")
