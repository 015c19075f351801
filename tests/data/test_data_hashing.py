"""Counter-based random numbers and the order of an epoch."""

import numpy as np
import pytest
import torch

from bench.data.hashing import extend, extend_tensor, key, mix, permutation, uniforms
from bench.data.order import BatchPlan
from bench.errors import ConfigError


def test_mix_is_splitmix64():
    # First outputs of the reference generator seeded with 0: the state is a multiple of the golden gamma.
    golden = 0x9E3779B97F4A7C15
    assert [mix(golden * n % 2**64) for n in (1, 2, 3)] == [
        0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # fmt: skip


def test_tensors_and_integers_give_the_same_bits():
    words = [0, 1, 2, 12345, 2**40 + 17]
    state = key(11, 22)
    tensor = extend_tensor(state, torch.tensor(words))
    assert [value % 2**64 for value in tensor.tolist()] == [extend(state, word) for word in words]
    again = extend_tensor(tensor, torch.tensor([3] * 5))
    assert [value % 2**64 for value in again.tolist()] == [key(11, 22, word, 3) for word in words]
    golden = 0x9E3779B97F4A7C15
    draws = uniforms(tensor, 2)
    expected = [[(mix((extend(state, w) + n * golden) % 2**64) >> 11) * 2.0**-53 for n in (1, 2)] for w in words]
    assert draws.tolist() == expected


def test_words_are_ordered_and_streams_differ():
    assert key(1, 2) != key(2, 1)
    assert len({key(seed, epoch) for seed in range(30) for epoch in range(30)}) == 900


def test_uniforms_are_uniform_and_uncorrelated():
    draws = uniforms(extend_tensor(key(5), torch.arange(20_000)), 3)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert torch.allclose(draws.mean(0), torch.full((3,), 0.5, dtype=torch.float64), atol=0.01)
    counts = torch.histc(draws[:, 0].float(), 81, 0, 1)
    assert ((counts - 20_000 / 81) ** 2 / (20_000 / 81)).sum() < 140  # chi square of 80 degrees: 99.99 % below 134
    assert torch.corrcoef(draws.T).fill_diagonal_(0).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([draws[1:, 0], draws[:-1, 0]]))[0, 1].abs() < 0.03


def test_permutation_is_fixed_for_ever():
    assert permutation(10, key(1, 2)).tolist() == [6, 2, 4, 0, 8, 1, 5, 3, 9, 7]
    assert sorted(permutation(1000, 3)) == list(range(1000))


def test_batches_cover_the_epoch_once():
    plan = BatchPlan(count=103, batch_size=10, seed=1)
    positions, repetition = plan.epoch(4)
    assert plan.steps == 11
    assert sorted(positions) == list(range(103))
    assert not repetition.any()
    assert not np.array_equal(positions, plan.epoch(5)[0])
    assert sum(len(positions[plan.share(step)]) for step in range(plan.steps)) == 103
    assert [plan.global_size(step) for step in (0, 9, 10)] == [10, 10, 3]
    assert BatchPlan(103, 10, 1, drop_last=True).steps == 10


@pytest.mark.parametrize("world", [2, 5])
def test_shares_make_up_the_global_batch(world):
    whole = BatchPlan(count=103, batch_size=20, seed=1)
    positions, _ = whole.epoch(0)
    plans = [BatchPlan(103, 20, 1, rank=rank, world=world) for rank in range(world)]
    for step in range(whole.steps - 1):
        shares = [plan.epoch(0)[0][plan.share(step)] for plan in plans]
        assert {len(share) for share in shares} == {20 // world}
        assert np.array_equal(np.stack(shares, 1).reshape(-1), positions[whole.share(step)])


def test_repeated_augmentation_deals_repetitions_in_a_row():
    plan = BatchPlan(count=102, batch_size=12, seed=1, repetitions=4)
    positions, repetition = plan.epoch(0)
    assert (len(positions), plan.steps) == (102, 9)
    assert positions[:8].tolist() == [positions[0]] * 4 + [positions[4]] * 4
    assert repetition[:8].tolist() == [0, 1, 2, 3] * 2
    assert len(set(positions)) == 26  # a quarter of the images, rounded up
    # As torchvision's RASampler deals them, the repetitions of an image go to different processes.
    share = BatchPlan(102, 12, 1, repetitions=4, rank=1, world=4).share(0)
    assert len(set(positions[share])) == 3
    assert repetition[share].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (BatchPlan(10, 11, 0), "a batch of 11 is larger than the training part of x (10 images)"),
        (BatchPlan(10, 5, 0, world=2), "a batch of 5 cannot be shared by 2 processes"),
        (BatchPlan(9, 4, 0, world=4), "the last batch of an epoch has 1 images for 4 processes"),
    ],
)
def test_impossible_batches(plan, text):
    with pytest.raises(ConfigError) as error:
        plan.check("x")
    assert text in str(error.value)
    assert "\n" not in str(error.value)
