"""Recording and executing: the same numbers, and nothing runs that the counts do not name."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from adn_oracle import randomise
from torch import Tensor

from bench.config.data import DataSpec
from bench.method import Point
from methods.adn.config import ADNConfig
from methods.adn.method import ADN


@pytest.fixture(scope="module")
def cifar():
    method = ADN(ADNConfig(depth=20, cascade=("base", "TFF", "super")), DataSpec("cifar10", 10, 32))
    torch.manual_seed(0)
    network = method.build(method.stages()[-1])
    randomise(network)
    return method, network.eval(), torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class _Watch:
    """Rows that each unit processed."""

    def __init__(self, method: ADN, network) -> None:
        self.rows: Counter[str] = Counter()
        self.names = [unit.name for unit in method.units(network)]
        self.handles = [
            unit.module.register_forward_hook(lambda _m, x, _o, name=unit.name: self.rows.update({name: len(x[0])}))
            for unit in method.units(network)
        ]

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_) -> None:
        for handle in self.handles:
            handle.remove()

    def ran(self) -> list[int]:
        return [self.rows[name] for name in self.names]


def test_record_holds_every_point(cifar):
    method, network, images = cifar
    decisions = method.record(network, images)
    points = method.points(network)
    assert decisions.logits.shape == (8, 7, 10)
    assert decisions.counts.shape == (8, len(method.units(network)))
    assert not decisions.counts.is_floating_point()
    assert not decisions.logits.requires_grad
    for logits, point in zip(decisions.logits, points):
        assert torch.equal(logits, network(images, point.settings["skip"]))


def test_a_point_runs_exactly_its_units(cifar):
    method, network, images = cifar
    decisions = method.record(network, images)
    for index, point in enumerate(method.points(network)):
        with _Watch(method, network) as watch:
            executed = method.execute(network, images, point)
        assert torch.equal(executed.logits, decisions.logits[index])
        assert torch.equal(executed.counts, decisions.counts[index].expand(7, -1))
        assert watch.ran() == executed.counts.sum(0).tolist()
        assert executed.taken.tolist() == [0] * 7


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.5, 2.0])
def test_a_cascade_pays_for_all_that_it_ran(cifar, threshold):
    method, network, images = cifar
    by_name = {p.name: i for i, p in enumerate(method.points(network))}
    order = [by_name["TTT"], by_name["TFF"], by_name["FFF"]]
    decisions = method.record(network, images)
    asked: list[tuple[int, int]] = []

    def decide(k: int, logits: Tensor) -> Tensor:
        asked.append((k, len(logits)))
        return logits.softmax(1).amax(1) < threshold

    with _Watch(method, network) as watch:
        executed = method.execute(network, images, decide)
    confidence = decisions.logits.softmax(-1).amax(-1)
    for row in range(7):
        place = next((k for k, p in enumerate(order[:2]) if confidence[p, row] >= threshold), 2)
        assert executed.taken[row] == place
        assert torch.allclose(executed.logits[row], decisions.logits[order[place], row], atol=1e-5)
        assert torch.equal(executed.counts[row], decisions.counts[order[: place + 1]].sum(0))
    assert watch.ran() == executed.counts.sum(0).tolist()
    assert [k for k, _ in asked] == list(range(len(asked)))
    if threshold == -1.0:
        assert asked == [(0, 7)]
    if threshold == 2.0:
        assert asked == [(0, 7), (1, 7)]
        assert executed.taken.tolist() == [2] * 7


def test_a_policy_may_name_its_points(cifar):
    method, network, images = cifar
    by_name = {p.name: p for p in method.points(network)}

    class Policy:
        points = (by_name["TTF"], by_name["FTF"])

        def __call__(self, k: int, logits: Tensor) -> Tensor:
            return torch.arange(len(logits)) % 2 == 0

    executed = method.execute(network, images, Policy())
    assert executed.taken.tolist() == [1, 0, 1, 0, 1, 0, 1]
    both = method.record(network, images)
    names = [p.name for p in method.points(network)]
    assert torch.equal(executed.counts[0], both.counts[names.index("TTF")] + both.counts[names.index("FTF")])
    assert torch.equal(executed.counts[1], both.counts[names.index("TTF")])


def test_one_image_and_no_image(cifar):
    method, network, images = cifar
    for size in (1, 0):
        executed = method.execute(network, images[:size], lambda k, logits: logits[:, 0] < 1e9)
        assert executed.logits.shape == (size, 10)
        assert executed.counts.shape[0] == executed.taken.shape[0] == size


def test_a_point_of_another_backbone_is_refused(cifar):
    method, network, images = cifar
    from bench.errors import ConfigError

    with pytest.raises(ConfigError, match="has 4 flags, this backbone takes 3"):
        method.execute(network, images, Point("FFFF", {"skip": (False,) * 4}))
