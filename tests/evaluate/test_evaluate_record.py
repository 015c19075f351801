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
