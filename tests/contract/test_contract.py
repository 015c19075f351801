"""What every registered method must fulfil. A new method is tested here the day it is registered."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec

import pytest
import torch

from bench.config.schema import Recipe
from bench.errors import WeightsError
from bench.method import Method
from bench.registry import method_class, method_names
from bench.testing import CHECKS, Subject, kept_random_state, make_subject, stir

#: Those whose package is installed: timm is an extra (tests/baselines/test_named.py says what is said without it).
NAMES = [name for name in method_names() if name != "timm" or find_spec("timm") is not None]


@cache
def _subject(name: str) -> Subject:
    return make_subject(method_class(name), name)


@pytest.fixture(params=NAMES)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    found = _subject(request.param)
    before = {k: v.clone() for k, v in found.model.state_dict().items()}
    yield found
    after = found.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before), "a measurement changed the network"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_contract(subject: Subject, check: Callable[[Subject], None]) -> None:
    with kept_random_state():
        check(subject)


@pytest.mark.parametrize("name", method_names())
def test_options_are_checked_without_torch(name: str) -> None:
    code = "import sys, bench.registry as r; r.method_config(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, name], check=False).returncode == 0


def test_costs_survive_being_stored(subject: Subject) -> None:
    again = type(subject.cost).from_dict(subject.cost.to_dict())
    assert again.to_dict() == subject.cost.to_dict()


def _smallest_arch(cls: type[Method]) -> str | None:
    archs = cls.archs()
    small = [name for name, arch in archs.items() if arch.data.image_size <= 32]
    return (small or list(archs) or [None])[0]


def test_published_names_round_trip(subject: Subject) -> None:
    cls = type(subject.method)
    arch = _smallest_arch(cls)
    if arch is None:
        pytest.skip(f"{cls.__name__} names no published weights")
    spec = cls.archs()[arch]
    method = cls(spec.config, spec.data)
    torch.manual_seed(3)
    model = method.build(method.stages()[-1].resolve(Recipe()))
    stir(model)
    state = method.export_weights(model.eval())
    again, imported = cls.import_weights(arch, {f"module.{k}": v for k, v in state.items()})
    size = spec.data.image_size
    images = torch.randn(2, spec.data.channels, size, size)
    with torch.no_grad():
        first = method.record(model, images).logits
        second = again.record(imported.eval(), images).logits
    assert torch.equal(first, second)
    key = next(k for k, v in state.items() if v.ndim > 1)
    with pytest.raises(WeightsError):
        cls.import_weights(arch, {k: v for k, v in state.items() if k != key})
    with pytest.raises(WeightsError):
        cls.import_weights(arch, {**state, "left.over": torch.zeros(1)})
    with pytest.raises(WeightsError):
        cls.import_weights(arch, {**state, key: torch.zeros(1, 2, 3)})
    with pytest.raises(WeightsError):
        cls.import_weights("no-such-arch", state)
