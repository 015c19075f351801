"""The worker loader: the same batches for any number of workers, and errors that name the file."""

import gc
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import CPU, batches, make_folder, open_folder, recipe, same
from PIL import Image
from torchvision.transforms import v2

from bench.config.schema import Data
from bench.data import open_data
from bench.data.hashing import AUGMENT, key
from bench.data.reading import Jobs, read_batches
from bench.data.sources import FolderSource
from bench.errors import DataError

SIZES = {"train_crop_size": 24, "val_resize_size": 28, "val_crop_size": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def bundle(folder):
    return open_folder(folder)


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    gc.collect()
    assert multiprocessing.active_children() == []
    assert not any(thread.name == "bench-loader" for thread in threading.enumerate())


AUGMENTATIONS = [
    {},
    {"auto_augment": "ta_wide", "random_erase": 0.5},
    {"auto_augment": "ra", "ra_reps": 2},
    {"auto_augment": "augmix"},
    {"auto_augment": "imagenet", "mixup_alpha": 0.2, "cutmix_alpha": 1.0},
]


@pytest.mark.parametrize("options", AUGMENTATIONS)
def test_workers_do_not_change_the_batches(bundle, options):
    alone = batches(bundle, recipe(**SIZES, **options), epoch=1)
    assert same(alone, batches(bundle, recipe(**SIZES, **options, workers=2), epoch=1))
    assert alone[0].images.shape == (4, 3, 24, 24)
    assert not same(alone, batches(bundle, recipe(**SIZES, **options), epoch=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_entered_anywhere(bundle, workers):
    r = recipe(**SIZES, auto_augment="ta_wide", mixup_alpha=0.2, workers=workers)
    whole = batches(bundle, r)
    assert len(whole) == 5  # 24 images, 6 of them for validation, batches of 4
    for start in (1, 4, 5):
        assert same(batches(bundle, r, start=start), whole[start:])


def test_processes_share_the_global_batch(bundle):
    r = recipe(**SIZES, auto_augment="ta_wide")
    whole = batches(bundle, r)
    ranks = [batches(bundle, r, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        for rank in range(2):
            assert torch.equal(ranks[rank][step].images, batch.images[rank::2])
            assert torch.equal(ranks[rank][step].labels, batch.labels[rank::2])


def test_a_sample_is_torchvisions_transform_under_its_own_seed(bundle):
    """Order and numbers of torchvision's reference: crop, flip, augment, to float, normalise, erase."""
    batch = batches(bundle, recipe(**SIZES, auto_augment="ta_wide", random_erase=0.5, batch_size=18))[0]
    transform = v2.Compose([
        v2.RandomResizedCrop(24, antialias=True), v2.RandomHorizontalFlip(0.5),
        v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR), v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        v2.RandomErasing(0.5)])  # fmt: skip
    plan = bundle.train_loader(recipe(**SIZES, batch_size=18), seed=7, device=CPU).plan
    source = bundle._sources["train"]
    erased = 0
    for number, sample in enumerate(bundle.split.train[plan.epoch(0)[0]].tolist()):
        torch.manual_seed(key(7, 0, AUGMENT, sample, 0) % 2**63)
        expected = transform(Image.open(source.where(sample)).convert("RGB"))
        assert torch.equal(batch.images[number], expected)
        assert batch.labels[number] == source.labels[sample]
        erased += int((expected == 0).all(0).sum() > 10)
    assert 3 <= erased <= 15


def test_evaluation_is_clean_and_holds_each_sample_once(bundle):
    transform = v2.Compose([v2.Resize(28), v2.CenterCrop(24), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
                            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])  # fmt: skip
    augmenting = recipe(**SIZES, auto_augment="ta_wide", random_erase=0.5, mixup_alpha=1.0)
    for part in ("train", "val", "test"):
        source = bundle._sources[part]
        for workers in (0, 2):
            r = augmenting.model_copy(update={"workers": workers})
            for world in (1, 2):
                loaders = [bundle.eval_loader(part, r, batch_size=4, device=CPU, rank=rank, world=world)
                           for rank in range(world)]  # fmt: skip
                seen = [batch for loader in loaders for batch in loader]
                assert len(seen) == sum(map(len, loaders))
                indices = torch.cat([indices for _, _, indices in seen]).tolist()
                assert sorted(indices) == getattr(bundle.split, part).tolist()
                images = torch.cat([images for images, _, _ in seen])
                for image, index in list(zip(images, indices))[:3]:
                    assert torch.equal(image, transform(Image.open(source.where(index)).convert("RGB")))


def test_both_loaders_evaluate_small_images_alike():
    small = open_data(Data(name="fashion_mnist_mini", train_subset=200, test_subset=100))
    one = list(small.eval_loader("test", recipe(), batch_size=32, device=CPU))
    two = list(small.eval_loader("test", recipe(loader="workers", workers=2), batch_size=32, device=CPU))
    assert same(one, two)
    plain = {"train_crop": "none", "hflip_prob": 0.0}
    assert same(batches(small, recipe(**plain)), batches(small, recipe(**plain, loader="workers")))


def test_small_images_with_picture_augmentation():
    small = open_data(Data(name="synthetic", train_subset=64))
    for policy in ("ra", "cifar10", "svhn"):
        r = recipe(auto_augment=policy, batch_size=32)
        alone = batches(small, r)
        assert alone[0].images.shape == (32, 3, 32, 32)
        assert same(alone, batches(small, r.model_copy(update={"workers": 2})))


def test_small_images_can_be_enlarged():
    small = open_data(Data(name="synthetic", train_subset=16, val_subset=8))
    r = recipe(train_crop_size=64)
    assert batches(small, r)[0].images.shape == (4, 3, 64, 64)
    assert next(iter(small.eval_loader("val", r, batch_size=4, device=CPU)))[0].shape == (4, 3, 64, 64)
    assert small.spec(r).image_size == 64


@pytest.mark.parametrize("kind", ["pad", "resized", "center", "none"])
def test_every_crop_gives_the_training_size(bundle, kind):
    assert batches(bundle, recipe(**SIZES, train_crop=kind))[0].images.shape == (4, 3, 24, 24)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_states_are_untouched(bundle, workers):
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    r = recipe(**SIZES, auto_augment="augmix", random_erase=0.5, mixup_alpha=0.2, cutmix_alpha=1.0, workers=workers)
    for _ in bundle.train_loader(r, seed=1, device=CPU).epoch(0):
        # Also in the middle of an epoch, where a training step draws from it.
        assert torch.equal(before[0], torch.get_rng_state())
    list(bundle.eval_loader("val", r, batch_size=2, device=CPU))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()


def test_draws_of_the_training_step_do_not_change_the_batches(bundle):
    r = recipe(**SIZES, auto_augment="ta_wide", mixup_alpha=0.2)
    plain = batches(bundle, r)
    seen = []
    for batch in bundle.train_loader(r, seed=7, device=CPU).epoch(0):
        seen.append(batch)
        torch.rand(17)
        random.random()
    assert same(seen, plain)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"no image", "not an image"), (None, "runcated"), (b"", "not an image"), ("", "No such file")],
)
def test_an_unreadable_image_is_named(tmp_path, workers, content, cause):
    bundle = open_folder(make_folder(tmp_path))
    victim = Path(bundle._sources["train"].where(int(bundle.split.train[5])))
    if content == "":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:300] if content is None else content)
    with pytest.raises(DataError) as error:
        batches(bundle, recipe(**SIZES, workers=workers))
    assert str(error.value).startswith(f"cannot read image {victim}: ")
    assert cause in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="cannot read image"):
        list(bundle.eval_loader("train", recipe(**SIZES, workers=workers), batch_size=4, device=CPU))


class Deadly(FolderSource):
    """Image 9 takes its reader with it, as a broken decoder would."""

    def image(self, index):
        if index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(index)


def test_a_dying_worker_is_named(folder, bundle):
    plain = bundle._sources["train"]
    source = Deadly([plain.where(i) for i in range(len(plain))], plain.labels, plain.class_names)
    jobs = Jobs(np.arange(16), None, [slice(n, n + 2) for n in range(0, 16, 2)], 24)
    transform = v2.Compose([v2.Resize((24, 24)), v2.PILToTensor()])
    seen = []
    read = read_batches(source, transform, jobs, workers=2, device=CPU)
    with pytest.raises(DataError) as error:
        seen.extend(sample for _, _, samples in read for sample in samples.tolist())
    assert str(error.value) == f"a loader process died while reading {source.where(9)} (signal SIGKILL: out of memory?)"
    assert seen == list(range(len(seen)))  # whole batches in order, as far as they came
    assert len(seen) <= 8


def test_a_worker_killed_from_outside_is_an_error_of_the_loader(bundle):
    """Not an exception out of a signal handler in the middle of a training step."""
    steps = bundle.train_loader(recipe(**SIZES, workers=1, batch_size=1), seed=7, device=CPU).epoch(0)
    next(steps)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        torch.ones(10).sum()  # the training step: nothing may be raised here
    with pytest.raises(DataError, match="a loader process died"):
        list(steps)


def test_signal_handlers_are_left_as_they_were(bundle):
    before = signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGINT)
    batches(bundle, recipe(**SIZES, workers=1))
    assert (signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGINT)) == before


def test_workers_outlive_an_interrupt(bundle):
    """Ctrl-C goes to every process of the terminal; the loop decides when to stop, and may finish its step."""
    steps = bundle.train_loader(recipe(**SIZES, workers=1, batch_size=1), seed=7, device=CPU).epoch(0)
    next(steps)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGINT)
    assert len(list(steps)) == 17


def test_an_epoch_given_up_ends_its_processes(bundle):
    steps = bundle.train_loader(recipe(**SIZES, workers=2), seed=7, device=CPU).epoch(0)
    next(steps)
    assert len(multiprocessing.active_children()) == 2
    steps.close()
    gc.collect()
    assert multiprocessing.active_children() == []


def test_pieces_of_large_images_make_whole_batches(bundle):
    """Images so large that one worker reads only part of a batch."""
    jobs = Jobs(np.arange(14), None, [slice(0, 5), slice(5, 10), slice(10, 14)], 724)
    assert [len(samples) for samples, _ in jobs] == [2, 2, 1, 2, 2, 1, 2, 2]
    transform = v2.Compose([v2.Resize((8, 8)), v2.PILToTensor()])
    for workers in (0, 2):
        read = list(read_batches(bundle._sources["train"], transform, jobs, workers=workers, device=CPU))
        assert [samples.tolist() for _, _, samples in read] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13]]
        assert [len(images) for images, _, _ in read] == [5, 5, 4]


def test_a_source_travels_to_a_process_that_is_not_a_fork(bundle):
    source = bundle._sources["train"]
    again = pickle.loads(pickle.dumps(source))
    assert [again.where(i) for i in range(len(again))] == [source.where(i) for i in range(len(source))]
    pickle.dumps(bundle.train_loader(recipe(**SIZES, auto_augment="ra"), seed=0, device=CPU).transform)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_whole_on_the_device(bundle, workers):
    """Pinned copies on a stream of their own, in pieces, used at once by the default stream."""
    options = {**SIZES, "train_crop_size": 640, "val_resize_size": 640, "val_crop_size": 640, "batch_size": 6,
               "mixup_alpha": 0.2, "cutmix_alpha": 1.0}  # fmt: skip
    cuda = torch.device("cuda")
    expected = batches(bundle, recipe(**options))
    seen = []
    loader = bundle.train_loader(recipe(**options, workers=workers), seed=7, device=cuda)
    for batch in loader.epoch(0):
        assert all(tensor.is_cuda for tensor in batch)
        torch.randn(4096, 4096, device=cuda) @ torch.randn(4096, 4096, device=cuda)  # keep the device busy
        seen.append([tensor.clone() for tensor in batch])
    for one, two in zip(expected, seen):
        for a, b in zip(one, two):
            assert torch.allclose(a, b.cpu(), atol=1e-6)
    assert len(seen) == len(expected)
    state = torch.cuda.get_rng_state()
    list(loader.epoch(1))
    assert torch.equal(state, torch.cuda.get_rng_state())
