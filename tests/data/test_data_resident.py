"""The resident loader against slow per-sample references, and its determinism."""

import random

import numpy as np
import pytest
import torch
from data_helpers import CPU, batches, recipe, same
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as TF

from bench.config.schema import Data
from bench.data import open_data
from bench.data.hashing import AUGMENT, key, mix
from bench.data.resident import crop_and_flip, erase, erase_boxes

GOLDEN = 0x9E3779B97F4A7C15


@pytest.fixture(scope="module")
def bundle():
    return open_data(Data(name="synthetic", val_size=100))


def draw(state, number):
    """The ``number``-th draw of a sample's key, from Python integers."""
    return (mix((state + number * GOLDEN) % 2**64) >> 11) * 2.0**-53


def reference(bundle, sample, state, *, padding=4, hflip=0.5):
    """One augmented training image as torchvision makes it from a picture: pad, crop, flip, float, normalise."""
    picture = bundle._sources["train"].image(sample)
    place = int(draw(state, 1) * (2 * padding + 1) ** 2)
    top, left = place // (2 * padding + 1), place % (2 * padding + 1)
    picture = ImageOps.expand(picture, padding, fill=0).crop((left, top, left + 32, top + 32))
    if draw(state, 2) < hflip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tensor = TF.to_dtype(TF.pil_to_tensor(picture), torch.float32, scale=True)
    return TF.normalize(tensor, list(bundle.mean), list(bundle.std))


def test_crops_and_flips_equal_the_reference(bundle):
    r = recipe(batch_size=50, hflip_prob=0.5)
    loader = bundle.train_loader(r, seed=7, device=CPU)
    positions, _ = loader.plan.epoch(3)
    for step, batch in zip(range(2), loader.epoch(3)):
        samples = bundle.split.train[positions[50 * step : 50 * step + 50]]
        for number, sample in enumerate(samples.tolist()):
            expected = reference(bundle, sample, key(7, 3, AUGMENT, sample, 0))
            assert torch.equal(batch.images[number], expected), (step, number)
        assert batch.labels.tolist() == bundle._sources["train"].labels[samples].tolist()


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_every_window_and_both_directions_occur(padding):
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(2000, 3, 8, 8)
    draws = torch.rand(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cropped = crop_and_flip(image, draws, padding, 0.5)
    assert len({tuple(c.flatten().tolist()) for c in cropped}) == 2 * (2 * padding + 1) ** 2


def test_no_crop_and_no_flip_leave_the_image_alone(bundle):
    for options in ({"train_crop": "none"}, {"train_crop": "center"}, {"crop_padding": 0}):
        batch = batches(bundle, recipe(batch_size=900, **options))[0]
        clean = {int(i): x for xs, _, ix in bundle.eval_loader("train", recipe(), batch_size=64, device=CPU)
                 for x, i in zip(xs, ix)}  # fmt: skip
        positions, _ = bundle.train_loader(recipe(batch_size=900), seed=7, device=CPU).plan.epoch(0)
        assert torch.equal(batch.images, torch.stack([clean[int(i)] for i in bundle.split.train[positions]]))


def test_erasing_follows_torchvisions_rule():
    draws = torch.rand(4000, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whether = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    erased = erase(torch.ones(4000, 3, 32, 32), erase_boxes(whether, draws, 0.25, 32, 32)) == 0
    assert torch.equal(erased[:, 0], erased[:, 2])
    assert torch.equal(erased.flatten(1).any(1), whether < 0.25)
    for number in torch.nonzero(whether < 0.25).flatten().tolist():
        # The slow way: torchvision's loop over tries with these draws.
        for attempt in draws[number].view(-1, 4).tolist():
            area = 1024 * (0.02 + attempt[0] * (0.33 - 0.02))
            ratio = np.exp(np.log(0.3) + attempt[1] * (np.log(3.3) - np.log(0.3)))
            h, w = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if h < 32 and w < 32:
                break
        top, left = int(attempt[2] * (32 - h + 1)), int(attempt[3] * (32 - w + 1))
        expected = torch.zeros(32, 32, dtype=torch.bool)
        expected[top : top + h, left : left + w] = True
        assert torch.equal(erased[number, 0], expected)


def test_erasing_comes_after_normalisation(bundle):
    plain = batches(bundle, recipe(batch_size=300))[0]
    erased = batches(bundle, recipe(batch_size=300, random_erase=0.5))[0]
    changed = (plain.images != erased.images).flatten(1).any(1)
    assert 0.35 < changed.float().mean() < 0.65
    assert (erased.images[plain.images != erased.images] == 0).all()


@pytest.mark.parametrize("options", [{}, {"random_erase": 0.5, "mixup_alpha": 0.2, "cutmix_alpha": 1.0, "ra_reps": 3}])
def test_an_epoch_can_be_entered_anywhere(bundle, options):
    r = recipe(batch_size=128, **options)
    whole = batches(bundle, r, epoch=2)
    assert len(whole) == 8
    for start in (0, 1, 5, 7, 8):
        assert same(batches(bundle, r, epoch=2, start=start), whole[start:])


def test_epochs_and_seeds_differ(bundle):
    r = recipe(batch_size=128)
    one = batches(bundle, r)
    assert not same(one, batches(bundle, r, epoch=1))
    assert not same(one, batches(bundle, r, seed=8))
    assert same(one, batches(bundle, r))


def test_augmentation_does_not_depend_on_the_batch(bundle):
    """A sample's crop is the same in batches of 30 and 100, and when only part of the data is used."""
    small = open_data(Data(name="synthetic", val_size=100, train_subset=300))
    seen = []
    for b, size in ((bundle, 100), (bundle, 30), (small, 100)):
        r = recipe(batch_size=size, hflip_prob=0.5, random_erase=0.3)
        positions, _ = b.train_loader(r, seed=7, device=CPU).plan.epoch(0)
        images = torch.cat([batch.images for batch in batches(b, r)])
        seen.append(dict(zip(b.split.train[positions].tolist(), images)))
    for other in seen[1:]:
        assert all(torch.equal(image, seen[0][sample]) for sample, image in other.items())


def test_repetitions_of_an_image_are_augmented_each_in_its_own_way(bundle):
    batch = batches(bundle, recipe(batch_size=90, ra_reps=3))[0]
    assert (batch.labels.view(-1, 3) == batch.labels.view(-1, 3)[:, :1]).all()
    first, second, third = batch.images.view(-1, 3, 3, 32, 32).unbind(1)
    assert (first != second).flatten(1).any(1).float().mean() > 0.9
    assert (second != third).flatten(1).any(1).float().mean() > 0.9


@pytest.mark.parametrize("options", [{}, {"ra_reps": 2}, {"random_erase": 0.5}])
def test_processes_share_the_global_batch(bundle, options):
    r = recipe(batch_size=100, **options)
    whole = batches(bundle, r)
    for world in (2, 4):
        ranks = [batches(bundle, r, rank=rank, world=world) for rank in range(world)]
        for step, batch in enumerate(whole):
            for rank in range(world):
                for field in ("images", "targets", "labels", "clean_images"):
                    assert torch.equal(getattr(ranks[rank][step], field), getattr(batch, field)[rank::world])


@pytest.mark.parametrize(
    ("options", "kinds"), [({"mixup_alpha": 0.8}, {"mixup"}), ({"cutmix_alpha": 1.0}, {"cutmix"}),
                           ({"mixup_alpha": 0.8, "cutmix_alpha": 1.0}, {"mixup", "cutmix"})],
)  # fmt: skip
def test_mixing(bundle, options, kinds):
    plain = batches(bundle, recipe(batch_size=30))
    seen = set()
    for mixed, clean in zip(batches(bundle, recipe(batch_size=30, **options)), plain):
        assert torch.equal(mixed.clean_images, clean.images)
        assert torch.equal(mixed.labels, clean.labels)
        one_hot = torch.nn.functional.one_hot(clean.labels, 10).float()
        partner = mixed.images.new_tensor(0)
        # The share of the own label, from a pair of different labels.
        pair = torch.nonzero(clean.labels != clean.labels.roll(1)).flatten()[0]
        share = mixed.targets[pair, clean.labels[pair]]
        assert mixed.targets.dtype == torch.float32
        assert torch.allclose(mixed.targets, share * one_hot + (1 - share) * one_hot.roll(1, 0), atol=1e-6)
        partner = clean.images.roll(1, 0)
        blended = share * clean.images + (1 - share) * partner
        if torch.allclose(mixed.images, blended, atol=1e-5):
            seen.add("mixup")
        else:
            assert ((mixed.images == clean.images) | (mixed.images == partner)).all()
            seen.add("cutmix")
    assert seen == kinds


def test_mixing_draws_the_same_in_every_process(bundle):
    r = recipe(batch_size=100, mixup_alpha=0.8, cutmix_alpha=1.0)
    ranks = [batches(bundle, r, rank=rank, world=2) for rank in range(2)]
    for one, two in zip(*ranks):
        shares = []
        for batch in (one, two):
            pair = torch.nonzero(batch.labels != batch.labels.roll(1)).flatten()[0]
            shares.append(batch.targets[pair, batch.labels[pair]])
        assert torch.allclose(shares[0], shares[1], atol=1e-6)


def test_global_random_states_are_untouched(bundle):
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    batches(bundle, recipe(batch_size=100, mixup_alpha=0.2, cutmix_alpha=1.0, random_erase=0.5))
    list(bundle.eval_loader("val", recipe(), batch_size=10, device=CPU))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()


def test_a_different_global_seed_changes_nothing(bundle):
    r = recipe(batch_size=100, mixup_alpha=0.2, cutmix_alpha=1.0)
    torch.manual_seed(1)
    one = batches(bundle, r)
    torch.manual_seed(2)
    assert same(one, batches(bundle, r))


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_holds_each_sample_once(bundle, part, world):
    loaders = [bundle.eval_loader(part, recipe(), batch_size=32, device=CPU, rank=r, world=world) for r in range(world)]
    seen = [batch for loader in loaders for batch in loader]
    assert len(seen) == sum(len(loader) for loader in loaders)
    indices = torch.cat([indices for _, _, indices in seen])
    assert sorted(indices.tolist()) == getattr(bundle.split, part).tolist()
    source = bundle._sources[part]
    assert torch.cat([labels for _, labels, _ in seen]).tolist() == source.labels[indices.numpy()].tolist()
    image, index = seen[0][0][1], int(seen[0][2][1])
    expected = torch.from_numpy(source.data[index]).float().div(255)
    expected = (expected - torch.tensor(bundle.mean).view(3, 1, 1)) / torch.tensor(bundle.std).view(3, 1, 1)
    assert torch.allclose(image, expected, atol=1e-6)


def test_normalisation_can_be_given(bundle):
    other = bundle.with_normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    one = next(iter(bundle.eval_loader("val", recipe(), batch_size=8, device=CPU)))[0]
    two = next(iter(other.eval_loader("val", recipe(), batch_size=8, device=CPU)))[0]
    assert torch.allclose(one * 0.25 + 0.5, two, atol=1e-6)
    assert other.spec(recipe()).mean == (0.0, 0.0, 0.0)
    assert other.split_hash == bundle.split_hash
    assert bundle.with_normalisation(None, None).mean == bundle.mean
    assert other._resident is bundle._resident  # one copy of the pixels for both


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_does_not_matter(bundle):
    r = recipe(batch_size=100, random_erase=0.3, hflip_prob=0.5, mixup_alpha=0.2, cutmix_alpha=1.0)
    cuda = torch.device("cuda")
    for one, two in zip(batches(bundle, r), batches(bundle, r, device=cuda)):
        assert two.images.is_cuda
        for a, b in zip(one, two):
            assert torch.allclose(a, b.cpu(), atol=1e-6)
