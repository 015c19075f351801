"""Splits: stratified, deterministic, stored, hashed; and nothing of the test set in them."""

import numpy as np
import pytest

from bench.config.schema import Data
from bench.data.splits import load_split, make_split, save_split, stratified
from bench.errors import ConfigError, DataError, RunError

LABELS = np.arange(1000) % 10
TEST = np.arange(300) % 10


def cut(protocol="holdout", labels=LABELS, test=TEST, **data):
    return make_split(Data(**{"name": "cifar10", "val_size": 100, **data}), labels, test, protocol)


def test_stratified_takes_every_class_by_its_share():
    labels = np.repeat([0, 1, 2, 3], [500, 300, 150, 50])
    np.random.default_rng(0).shuffle(labels)
    chosen = stratified(labels, 100, 3)
    assert np.bincount(labels[chosen]).tolist() == [50, 30, 15, 5]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    for count in (0, 1, 7, 333, 999, 1000):
        chosen = stratified(labels, count, 3)
        assert len(set(chosen.tolist())) == count
        assert np.abs(np.bincount(labels[chosen], minlength=4) - np.bincount(labels) * count / 1000).max() < 1


def test_a_rest_goes_to_classes_by_lot():
    # Three images more than the classes share evenly: not always the first three classes.
    takers = {tuple(np.flatnonzero(np.bincount(LABELS[stratified(LABELS, 103, s)]) == 11)) for s in range(20)}
    assert len(takers) > 5


def test_same_question_same_split_and_another_seed_another():
    one, two, other = cut(), cut(), cut(split_seed=1)
    assert one.hash == two.hash
    assert np.array_equal(one.val, two.val)
    assert not np.array_equal(one.val, other.val)
    assert one.hash != other.hash
    assert one.counts == {"train": 900, "val": 100, "test": 300}
    assert np.array_equal(np.sort(np.concatenate([one.train, one.val])), np.arange(1000))
    assert np.bincount(LABELS[one.val]).tolist() == [10] * 10


def test_a_fraction_is_the_same_as_its_count():
    assert cut(val_size=0.1).hash == cut(val_size=100).hash


def test_the_hash_is_stable():
    # Committed constants: should one change, every stored result would belong to another split.
    split = cut()
    assert split.val[:8].tolist() == [4, 5, 12, 25, 38, 46, 59, 61]
    assert split.hash == "f5de3d1e12070981ffe5b2a3c9eda0a460169edebe0a526ef52cd1f0c802b4c5"
    split = cut(train_subset=200, val_subset=50, test_subset=30)
    assert split.hash == "e31ae670ad553f4ac83c8b3360d75f71bcf667e469a0f423c75a7b98431b4c73"


def test_the_test_set_has_no_say():
    shuffled = np.random.default_rng(0).permutation(TEST)
    one, two = cut(), cut(test=shuffled)
    assert one.hash == two.hash
    for part in ("train", "val"):
        assert np.array_equal(getattr(one, part), getattr(two, part))
    assert cut(test_subset=100, train_subset=100).train.tolist() == cut(train_subset=100).train.tolist()


def test_subsets_are_nested_in_their_part_and_stratified():
    whole, small = cut(), cut(train_subset=90, val_subset=20, test_subset=60)
    assert small.counts == {"train": 90, "val": 20, "test": 60}
    for part in ("train", "val", "test"):
        assert set(getattr(small, part)) <= set(getattr(whole, part))
    assert np.bincount(LABELS[small.train]).tolist() == [9] * 10
    assert small.hash != whole.hash


def test_published_has_no_validation_part():
    split = cut("published")
    assert split.counts == {"train": 1000, "val": 0, "test": 300}
    assert split.hash != cut().hash


@pytest.mark.parametrize("data", [{}, {"train_subset": 90, "val_subset": 20, "test_subset": 60}])
def test_a_stored_split_comes_back(tmp_path, data):
    split = cut(split_seed=5, **data)
    path = save_split(split, tmp_path)
    assert path.name == f"split-cifar10-{split.hash[:12]}.npz"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = cut(split_file=str(path))
    assert again.hash == split.hash
    assert np.array_equal(again.val, split.val)
    assert cut(split_file=str(path), **data).hash == split.hash


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ({"val_size": 1000}, ConfigError, "data.val_size: a validation part of 1000 leaves nothing to train on"),
        ({"val_size": 0.0001}, ConfigError, "data.val_size: 0.0001 of 1000 training images is less than one image"),
        ({"train_subset": 901}, ConfigError, "data.train_subset: 901 images are asked for, but the training part"),
        ({"val_subset": 101}, ConfigError, "data.val_subset: 101 images are asked for, but the validation part"),
        ({"test_subset": 301}, ConfigError, "data.test_subset: 301 images are asked for, but the test part"),
        ({"split_file": "nowhere/split.npz"}, ConfigError, "data.split_file: there is no file nowhere/split.npz"),
    ],
)
def test_impossible_splits(data, error, text):
    with pytest.raises(error) as caught:
        cut(**data)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [{"val_subset": 5}, {"split_file": "x.npz"}])
def test_published_refuses_what_needs_a_validation_part(data):
    with pytest.raises(ConfigError, match="protocol: published"):
        cut("published", **data)


def test_a_split_of_something_else_is_refused(tmp_path):
    path = save_split(cut(), tmp_path)
    for change, text in (
        ({"name": "cifar100"}, "is a split of cifar10, not of cifar100"),
        ({"labels": LABELS[:900]}, "is for 1000 training and 300 test images"),
        ({"labels": LABELS[::-1].copy()}, "the training labels differ"),
    ):
        with pytest.raises(ConfigError, match=text):
            cut(split_file=str(path), **change)
    published = save_split(cut("published"), tmp_path)
    with pytest.raises(ConfigError, match="no validation part"):
        cut(split_file=str(published))


def test_a_damaged_split_is_refused(tmp_path):
    path = save_split(cut(), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no readable split file"):
        cut(split_file=str(path))
    path.write_bytes(b"")
    with pytest.raises(DataError, match="no readable split file"):
        cut(split_file=str(path))
    path.write_bytes(whole)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["val"][0], arrays["train"][0] = arrays["train"][0], arrays["val"][0]
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="do not fit its hash"):
        load_split(path, cut("published"))


def test_saving_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(RunError, match="No space"):
        save_split(cut(), tmp_path)
    assert list(tmp_path.iterdir()) == []
