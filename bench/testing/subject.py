"""What is checked: a method with its small network, and the images and batches that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.config.schema import MethodConfig, Recipe
from bench.cost.count import count_products
from bench.cost.table import CostTable
from bench.cost.units import count_units
from bench.errors import BenchError, ContractError
from bench.method import Batch, Decisions, Executed, Method, Plan, Point, RunStage, Stage, Unit
from bench.train.seeds import random_state, restore_random_state, seed_everything

_T = TypeVar("_T")

DATA = DataSpec("synthetic", 10, 32)
IMAGES = 6
#: Executed and recorded logits may differ by this part of the largest one: kernels add up in another order.
TOLERANCE = 1e-4


@dataclass
class Subject:
    """A method under test with the network of its last stage, in evaluation mode."""

    name: str
    method: Method
    stage: RunStage
    model: nn.Module

    def fail(self, hook: str, words: str) -> NoReturn:
        raise ContractError(f"method '{self.name}': {hook}: {' '.join(words.split())}")

    @contextmanager
    def calling(self, hook: str) -> Iterator[None]:
        """Whatever a hook raises becomes one line that names it."""
        try:
            yield
        except ContractError:
            raise
        except (Exception, SystemExit) as error:
            kind = "" if isinstance(error, BenchError) else f"raised {type(error).__name__}: "
            self.fail(hook, f"{kind}{str(error)[:300]}")

    @cached_property
    def points(self) -> Sequence[Point]:
        with self.calling("points"):
            return list(self.method.points(self.model))

    @cached_property
    def units(self) -> Sequence[Unit]:
        with self.calling("units"):
            return list(self.method.units(self.model))

    @cached_property
    def cost(self) -> CostTable:
        with self.calling("units"):
            return count_units(self.method, self.model)

    @cached_property
    def products(self) -> Tensor:
        """MACs of one run of each unit by the counter that ``check_work`` uses, [U]."""
        found = []
        for unit in self.units:
            inputs = [torch.zeros(x.shape, dtype=x.dtype) if x.is_meta else x for x in unit.inputs]
            with self.calling("units"):
                found.append(count_products(unit.module, lambda u=unit, i=inputs: u.module(*i))[0])  # type: ignore[misc]
        return torch.tensor(found)

    @cached_property
    def decisions(self) -> Decisions:
        return self.record(make_images())

    def record(self, images: Tensor) -> Decisions:
        return self._measure("record", Decisions, images)

    def execute(self, images: Tensor, plan: Plan) -> Executed:
        return self._measure("execute", Executed, images, plan)

    def _measure(self, hook: str, kind: type[_T], *arguments: Any) -> _T:
        with self.calling(hook), torch.no_grad():
            found = getattr(self.method, hook)(self.model, *arguments)
        if not isinstance(found, kind):
            self.fail(hook, f"returned {type(found).__name__}, not bench.method.{kind.__name__}")
        if any(module.training for module in self.model.modules()):
            self.fail(hook, "leaves the network in training mode")
        return found


def make_subject(cls: type[Method], name: str | None = None, config: MethodConfig | None = None) -> Subject:
    """The method with its small network, whose statistics are away from their defaults, which hide errors.

    Raises ContractError if there is no such network.
    """
    name = name or cls.__name__
    subject = Subject(name, None, None, None)  # type: ignore[arg-type]
    if not (isinstance(getattr(cls, "Config", None), type) and issubclass(cls.Config, MethodConfig)):
        subject.fail("Config", "must be a class derived from bench.config.schema.MethodConfig")
    if config is None:
        with subject.calling("Config.small"):
            config = cls.Config.small()
    with subject.calling("__init__"):
        subject.method = cls(config, DATA)
    with subject.calling("stages"):
        stages = list(subject.method.stages())
    if not stages or not all(isinstance(stage, Stage) for stage in stages):
        subject.fail("stages", f"must name at least one bench.method.Stage, not {stages!r}")
    subject.stage = stages[-1].resolve(Recipe())
    with kept_random_state(), subject.calling("build"):
        seed_everything(0)
        subject.model = subject.method.build(subject.stage)
        if not isinstance(subject.model, nn.Module):
            subject.fail("build", f"returned {type(subject.model).__name__}, not a torch.nn.Module")
        stir(subject.model)
    subject.model.eval()
    return subject


def stir(model: nn.Module) -> None:
    """Running statistics away from their defaults, which hide errors."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(1 + 0.2 * torch.rand(buffer.shape, generator=generator))


def make_images(count: int = IMAGES, seed: int = 2) -> Tensor:
    """Noise of rising contrast, so that decisions differ from image to image. [count, 3, 32, 32]"""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.3, 2.5, count).reshape(-1, 1, 1, 1)
    return torch.randn(count, DATA.channels, DATA.image_size, DATA.image_size, generator=generator) * scale


def make_batch(soft: bool = False, shift: int = 1, count: int = 8) -> Batch:
    """A training batch; soft: targets mixed with those of the image ``shift`` places on."""
    images, labels = make_images(count), torch.arange(count) % DATA.num_classes
    targets: Tensor = labels
    if soft:
        hot = nn.functional.one_hot(labels, DATA.num_classes)
        targets = 0.7 * hot + 0.3 * hot.roll(shift, 0)
    return Batch(images, targets, labels, images)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """The global generators are afterwards as they were before."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def close(a: Tensor, b: Tensor) -> bool:
    """Whether logits are the same up to the order of additions."""
    if a.shape != b.shape:
        return False
    finite = b[b.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True)
