"""What every registered method must fulfil. A new method is tested here the day it is registered."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from bench.config.resolve import parse_options
from bench.config.schema import Recipe
from bench.cost.units import count_units
from bench.errors import ConfigError, WeightsError
from bench.method import Batch, DataSpec, Method, Point, Stage
from bench.registry import METHOD_CONFIGS, _entries, method_class, method_config, method_names
from bench.train.optim import freeze, make_optimizer
from bench.train.step import TrainStep

DATA = DataSpec("synthetic", 10, 32)


@dataclass(frozen=True)
class Built:
    method: Method
    stage: Stage
    model: nn.Module


@cache
def _built(name: str) -> Built:
    method = method_class(name)(method_config(name).small(), DATA)
    stage = method.stages()[-1].resolve(Recipe())
    torch.manual_seed(0)
    model = method.build(stage)
    _stir(model)
    return Built(method, stage, model.eval())


def _stir(model: nn.Module) -> None:
    """Statistics and affine parameters away from their defaults, which hide errors."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.2 * torch.rand(buffer.shape, generator=generator))


@pytest.fixture(params=method_names())
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    found = _built(request.param)
    before = {k: v.clone() for k, v in found.model.state_dict().items()}
    yield found
    after = found.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before), "a measurement changed the network"


def _images(count: int = 6, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.3, 2.5, count).reshape(-1, 1, 1, 1)
    return torch.randn(count, 3, 32, 32, generator=generator) * scale


def _batch(count: int = 8, soft: bool = False) -> Batch:
    images, labels = _images(count), torch.arange(count) % 10
    targets: Tensor = labels
    if soft:
        targets = 0.7 * nn.functional.one_hot(labels, 10) + 0.3 * nn.functional.one_hot(labels.roll(1), 10)
    return Batch(images, targets, labels, images)


def test_options_are_written_out_and_read_back(built: Built) -> None:
    config = built.method.config
    text = json.dumps(config.model_dump(mode="json", exclude_unset=True))
    assert parse_options(type(config), json.loads(text)) == config


@pytest.mark.parametrize("name", [n for n in method_names() if n in _entries(METHOD_CONFIGS)])
def test_options_are_checked_without_torch(name: str) -> None:
    code = "import sys, bench.registry as r; r.method_config(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, name], check=False).returncode == 0


def test_stages_follow_one_another(built: Built) -> None:
    stages = list(built.method.stages())
    assert stages
    seen: set[str] = set()
    everything = built.method.config.model_dump(mode="json")
    for stage in stages:
        assert stage.name not in seen
        assert stage.start_from is None or stage.start_from in seen
        assert stage.options is None or set(stage.options) <= set(everything)
        Recipe.model_validate({**stage.recipe})
        seen.add(stage.name)
    assert [s.name for s in stages] == [s.name for s in built.method.config.stages()]


def test_the_same_seed_builds_the_same_network(built: Built) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(built.method.build(built.stage).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "mixed"])
def test_every_stage_trains(built: Built, soft: bool) -> None:
    """Two steps per stage: finite loss, gradients where the stage trains and nowhere else, weights that move."""
    previous: dict[str, nn.Module] = {}
    for planned in built.method.stages():
        stage = planned.resolve(Recipe(lr=0.01, label_smoothing=0.1))
        torch.manual_seed(0)
        model = built.method.build(stage)
        built.method.prepare(model, stage, previous.get(stage.start_from or ""))
        freeze(model, stage.trains)
        optimizer = make_optimizer(model, stage.resolved or Recipe())
        before = {k: v.detach().clone() for k, v in model.named_parameters()}
        step = TrainStep(built.method, model, stage)
        step.train()
        for _ in range(2):
            optimizer.zero_grad()
            parts = step(*_batch(soft=soft))
            assert parts["loss"].ndim == 0
            assert torch.isfinite(parts["loss"])
            assert all(p.numel() == 1 for k, p in parts.items() if k != "logits")
            parts["loss"].backward()
            optimizer.step()
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                assert parameter.grad is None
                assert torch.equal(parameter, before[name])
            elif not built.method.find_unused_parameters:
                assert parameter.grad is not None, name
        assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
        previous[stage.name] = model


def test_training_works_in_bfloat16(built: Built) -> None:
    model = copy.deepcopy(built.model)
    step = TrainStep(built.method, model, built.stage)
    freeze(model, built.stage.trains)
    step.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = step(*_batch())
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"])


def test_record_says_what_the_contract_asks(built: Built) -> None:
    points, units = built.method.points(built.model), built.method.units(built.model)
    names = [u.name for u in units]
    assert len(set(names)) == len(names)
    assert len({p.name for p in points}) == len(points)
    with torch.no_grad():
        decisions = built.method.record(built.model, _images())
    assert decisions.logits.shape == (len(points), 6, 10)
    assert decisions.counts.shape in ((len(points), len(units)), (len(points), 6, len(units)))
    assert not decisions.counts.is_floating_point()
    assert int(decisions.counts.min()) >= 0
    assert all(s.shape == (len(points), 6) for s in decisions.signals.values())
    assert not decisions.logits.requires_grad
    default = decisions.counts[0]
    assert int(default.sum()) > 0


def test_record_does_not_depend_on_the_batch(built: Built) -> None:
    images = _images()
    with torch.no_grad():
        together = built.method.record(built.model, images)
        alone = [built.method.record(built.model, images[i : i + 1]) for i in range(len(images))]
    logits = torch.cat([one.logits for one in alone], dim=1)
    assert torch.allclose(together.logits, logits, rtol=1e-4, atol=1e-4)
    if together.counts.ndim == 3:
        assert torch.equal(together.counts, torch.cat([one.counts for one in alone], dim=1))
    else:
        assert all(torch.equal(together.counts, one.counts) for one in alone)


def test_execute_does_what_the_record_says(built: Built) -> None:
    images = _images()
    with torch.no_grad():
        decisions = built.method.record(built.model, images)
        for index, point in enumerate(built.method.points(built.model)):
            executed = built.method.execute(built.model, images, point)
            scale = decisions.logits[index].abs().max()
            assert torch.allclose(executed.logits, decisions.logits[index], rtol=1e-4, atol=1e-5 * float(scale))
            counts = decisions.counts[index]
            expected = counts if counts.ndim == 2 else counts.expand(len(images), -1)
            assert torch.equal(executed.counts.long(), expected.long())
            assert executed.taken.shape == (len(images),)


def test_execute_with_a_policy_that_never_goes_on(built: Built) -> None:
    """The first exit, path or the whole static network: no more work than any sample's dearest point."""
    images = _images()
    cost = count_units(built.method, built.model)

    def stop(k: int, logits: Tensor) -> Tensor:
        return torch.zeros(len(logits), dtype=torch.bool)

    def go(k: int, logits: Tensor) -> Tensor:
        return torch.ones(len(logits), dtype=torch.bool)

    if not built.method.capabilities & {"exits", "static_paths"}:
        try:
            built.method.execute(built.model, images, stop)
        except ConfigError:
            return  # nothing to stop at, and it says so
    with torch.no_grad():
        first = built.method.execute(built.model, images, stop)
        last = built.method.execute(built.model, images, go)
    assert first.logits.shape == last.logits.shape == (len(images), 10)
    cheap, dear = (cost.cost(e.counts.numpy())["macs"] for e in (first, last))
    assert (cheap <= dear).all()


def test_costs_are_counted_and_agree(built: Built) -> None:
    cost = count_units(built.method, built.model)
    assert list(cost.units) == [u.name for u in built.method.units(built.model)]
    assert int(cost.columns["macs"].sum()) > 0
    params = sum(p.numel() for p in built.model.parameters())
    assert 0 < int(cost.columns["params"].sum()) <= params
    again = type(cost).from_dict(json.loads(json.dumps(cost.to_dict())))
    assert again.to_dict() == cost.to_dict()


def test_networks_can_be_copied_and_stored(built: Built) -> None:
    other = copy.deepcopy(built.model)
    torch.manual_seed(9)
    fresh = built.method.build(built.stage).eval()
    fresh.load_state_dict(built.model.state_dict())
    with torch.no_grad():
        logits = [built.method.record(m, _images()).logits for m in (built.model, other, fresh)]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def _smallest_arch(cls: type[Method]) -> str | None:
    archs = cls.archs()
    small = [name for name, arch in archs.items() if arch.data.image_size <= 32]
    return (small or list(archs) or [None])[0]


def test_published_names_round_trip(built: Built) -> None:
    cls = type(built.method)
    arch = _smallest_arch(cls)
    if arch is None:
        pytest.skip(f"{cls.__name__} names no published weights")
    spec = cls.archs()[arch]
    method = cls(spec.config, spec.data)
    torch.manual_seed(3)
    model = method.build(method.stages()[-1].resolve(Recipe()))
    _stir(model)
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


def test_points_are_points(built: Built) -> None:
    assert all(isinstance(point, Point) for point in built.method.points(built.model))
    assert built.method.backbone()
