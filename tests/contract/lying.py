"""A sound method with two exits, and what goes wrong in it, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.schema import MethodConfig
from bench.config.stage import Stage
from bench.method import Batch, Decisions, Executed, Method, Plan, Point, Unit
from bench.train.losses import cross_entropy
from bench.walking import Walk, where


class TwoExitsConfig(MethodConfig):
    """Two exits."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head1 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head2 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        self.seen = 0


class TwoExits(Method):
    Config = TwoExitsConfig
    capabilities = frozenset({"exits"})

    def build(self, stage: Stage) -> nn.Module:
        return Net()

    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        x = model.first(batch.images)
        early, last = model.head1(x), model.head2(model.second(x))
        return {"loss": cross_entropy(early, batch.targets) + cross_entropy(last, batch.targets), "logits": last}

    def points(self, model: nn.Module) -> Sequence[Point]:
        return [Point("exit2"), Point("exit1")]

    def units(self, model: nn.Module) -> Sequence[Unit]:
        image, small, smaller = torch.zeros(1, 3, 32, 32), torch.zeros(1, 8, 8, 8), torch.zeros(1, 16, 4, 4)
        return [
            Unit("first", model.first, (image,)),
            Unit("head1", model.head1, (small,)),
            Unit("second", model.second, (small,)),
            Unit("head2", model.head2, (smaller,)),
        ]

    @torch.no_grad()
    def record(self, model: nn.Module, images: Tensor) -> Decisions:
        x = model.first(images)
        logits = torch.stack([model.head2(model.second(x)), model.head1(x)])
        return Decisions(logits, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]))

    @torch.no_grad()
    def execute(self, model: nn.Module, images: Tensor, plan: Plan) -> Executed:
        x = model.first(images)
        logits = model.head1(x)
        on = torch.full((len(images),), plan.name == "exit2") if isinstance(plan, Point) else plan(0, logits)
        counts = torch.tensor([1, 1, 0, 0]).repeat(len(images), 1)
        if on.any():
            logits[on] = model.head2(model.second(x[on]))
            counts[on] = torch.tensor([1, 1, 1, 1])
        return Executed(logits, counts, on.long())


def changed(**members: Any) -> type[TwoExits]:
    """The method with some of its hooks replaced."""
    return type("Lying", (TwoExits,), members)


def after(hook: str, change: Callable[..., Any]) -> type[TwoExits]:
    """The method with ``change(what the hook returned, model)`` in place of what it returned."""
    sound = getattr(TwoExits, hook)

    def lying(self: TwoExits, model: nn.Module, *rest: Any) -> Any:
        return change(sound(self, model, *rest), model)

    return changed(**{hook: lying})


def _decided(
    logits: Callable[..., Tensor] | None = None, counts: Callable[[Tensor], Any] | None = None
) -> type[TwoExits]:
    return after(
        "record",
        lambda d, model: Decisions(
            logits(d.logits, model) if logits else d.logits, counts(d.counts) if counts else d.counts, d.signals
        ),
    )


def _forgets_mixing(self: TwoExits, model: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
    return TwoExits.loss(self, model, batch._replace(targets=batch.labels), stage)


def _uses_batch(self: TwoExits, model: nn.Module, images: Tensor) -> Decisions:
    return TwoExits.record(self, model, images - images.mean(0))


def _computes_on(self: TwoExits, model: nn.Module, images: Tensor, plan: Plan) -> Executed:
    model.second(model.first(images))
    return TwoExits.execute(self, model, images, plan)


def _leaves_out_head(self: TwoExits, model: nn.Module) -> Sequence[Unit]:
    return [unit for unit in TwoExits.units(self, model) if not unit.name.startswith("head")]


def _half(d: Any, model: nn.Module) -> Any:
    d.counts = d.counts[..., ::2]
    return d


def _two_heads_outside() -> type[TwoExits]:
    record, execute = (
        lambda self, *a, _hook=hook: _half(getattr(TwoExits, _hook)(self, *a), a[0]) for hook in ("record", "execute")
    )
    return changed(units=_leaves_out_head, record=record, execute=execute)


def _other_order() -> type[TwoExits]:
    def turned(self: TwoExits, model: nn.Module) -> Sequence[Unit]:
        units = list(TwoExits.units(self, model))
        return [units[2], units[3], units[0], units[1]]

    return changed(units=turned)


def _leaks(self: TwoExits, model: nn.Module, images: Tensor) -> Decisions:
    found = TwoExits.record(self, model, images)
    model.seen += 1
    return Decisions(found.logits + model.seen, found.counts)


def _unused(self: TwoExits, stage: Stage) -> nn.Module:
    net = Net()
    net.idle = nn.Linear(2, 2)
    return net


class IdleConfig(MethodConfig):
    """Two exits, and an option that nobody looks at."""

    breadth_nobody_reads: int = 8


class Gated(Method):
    """A block behind a gate, which is cheap but not free."""

    Config = TwoExitsConfig
    capabilities = frozenset({"gates"})

    def build(self, stage: Stage) -> nn.Module:
        net = nn.Module()
        net.stem, net.gate, net.block = nn.Conv2d(3, 8, 3, 4, 1), nn.Linear(8, 1), nn.Conv2d(8, 8, 3, 1, 1)
        net.head = nn.Linear(8, 10)
        return net

    def walk(self, model: nn.Module, images: Tensor) -> Walk:
        x = model.stem(images).relu()
        score = model.gate(x.mean((2, 3)))
        if model.training:
            x = x + score.sigmoid()[:, :, None, None] * model.block(x)
        else:
            x = self.gated(model, x, score)
        yield model.head(x.mean((2, 3)))

    def gated(self, model: nn.Module, x: Tensor, score: Tensor) -> Tensor:
        return x + where(score[:, 0] > 0, model.block, x, otherwise=torch.zeros_like(x))


class FreeGate(Gated):
    def units(self, model: nn.Module) -> Sequence[Unit]:
        return [unit for unit in super().units(model) if unit.name != "gate"]


class HandmadeGate(Gated):
    """Its gate's product is computed beside the module, so that nobody sees it."""

    def walk(self, model: nn.Module, images: Tensor) -> Walk:
        x = model.stem(images).relu()
        score = x.mean((2, 3)) @ model.gate.weight.T + model.gate.bias
        if model.training:
            x = x + score.sigmoid()[:, :, None, None] * model.block(x)
        else:
            x = self.gated(model, x, score)
        yield model.head(x.mean((2, 3)))


def _raises(*_: Any) -> Any:
    raise IndexError("list index out of range")


#: What is wrong -> (the method, words of the one line that says so).
LIES: dict[str, tuple[type[TwoExits], str]] = {
    "float counts": (
        _decided(counts=lambda c: c.float()),
        "record: counts must be a tensor of integers, not torch.float32",
    ),
    "counts in a list": (
        _decided(counts=lambda c: c.tolist()),
        "record: counts must be a tensor of integers, not list",
    ),
    "counts of fewer units": (
        _decided(counts=lambda c: c[:, :3]),
        "record: counts must be of shape [2, 4] or [2, 6, 4]",
    ),
    "negative counts": (_decided(counts=lambda c: c - 1), "record: a count is negative"),
    "counts of another order": (_other_order(), "units: point 'exit1' carries out"),
    "a loss for each image": (
        after("loss", lambda parts, model: {"loss": parts["loss"] * torch.ones(8)}),
        "loss: stage 'train': 'loss' has shape [8]",
    ),
    "a loss without a gradient": (
        after("loss", lambda parts, model: {"loss": parts["loss"].detach()}),
        "loss: stage 'train': 'loss' has no gradient",
    ),
    "a loss that is not in a dict": (after("loss", lambda parts, model: parts["loss"]), "must return a dict"),
    "a loss that raises": (changed(loss=_raises), "loss: raised IndexError: list index out of range"),
    "mixed targets ignored": (changed(loss=_forgets_mixing), "loss: stage 'train': it ignores the targets of mixup"),
    "no points": (changed(points=lambda self, model: []), "points: there is none"),
    "points of one name": (changed(points=lambda self, model: [Point("a"), Point("a")]), "points: two are called 'a'"),
    "units of one name": (
        after("units", lambda units, model: [Unit("a", u.module, u.inputs) for u in units]),
        "units: two are called 'a'",
    ),
    "units that cannot be called": (
        after("units", lambda units, model: [Unit(u.name, u.module, (torch.zeros(1, 5, 8, 8),)) for u in units]),
        "units: unit 'first': cannot be",
    ),
    "logits in another order": (
        _decided(logits=lambda x, model: x.flip(0)),
        "record: logits of point 'exit2' are not those of executing it; they are those of 'exit1'",
    ),
    "logits of too few classes": (
        _decided(logits=lambda x, model: x[..., :9]),
        "[points, images, classes] = [2, 6, 10]",
    ),
    "logits that are not numbers": (
        _decided(logits=lambda x, model: x * float("nan")),
        "record: logits are not finite",
    ),
    "heads outside of every unit": (_two_heads_outside(), "is used in evaluation but is in no unit"),
    "an exit that computes on": (changed(execute=_computes_on), "something is computed outside of every unit"),
    "a record that depends on the batch": (changed(record=_uses_batch), "it depends on the batch"),
    "state that leaks between batches": (changed(record=_leaks), "record: the same images get another answer"),
    "random numbers in evaluation": (
        _decided(logits=lambda x, model: x + torch.rand(1)),
        "record: draws random numbers in evaluation mode",
    ),
    "another generator's random numbers": (
        _decided(logits=lambda x, model: x + torch.rand(1, generator=GENERATOR)),
        "record: the same images get another answer",
    ),
    "a record that trains": (
        after("record", lambda d, model: (model.first[1].running_mean.add_(1e-7), d)[1]),
        "of the network; measuring",
    ),
    "a mode that is not put back": (
        after("record", lambda d, model: (model.train(), d)[1]),
        "record: leaves the network in training",
    ),
    "a parameter without a gradient": (changed(build=_unused), "'idle.weight' gets no gradient"),
    "a build that raises": (changed(build=_raises), "build: raised IndexError"),
    "a signal that the harness has": (
        after("record", lambda d, model: Decisions(d.logits, d.counts, {"hit": d.logits[..., 0]})),
        "cannot be called 'hit'",
    ),
    "a gate that is not paid": (HandmadeGate, "parameter 'gate.weight' is used in evaluation but is in no unit"),
    "a gate that is not a unit": (FreeGate, "walk runs 'gate', which FreeGate.units does not name"),
    "an option that changes nothing": (changed(Config=IdleConfig), "option 'breadth_nobody_reads' changes nothing"),
    "no Config": (changed(Config=None), "Config: must be a class derived"),
}
GENERATOR = torch.Generator().manual_seed(0)
