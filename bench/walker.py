"""A method's network, walked: points, counts, record and execution."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import ConfigError, CostError
from bench.nouns import Decisions, Executed, Plan, Point, Unit
from bench.tracing import Tracer, like
from bench.walking import EVERYBODY, Tally, Walk, everybody, telling

if TYPE_CHECKING:
    from bench.method import Method

__all__ = ["Walker"]

Decide = Callable[[int, Tensor], Tensor]


class _Answer(NamedTuple):
    logits: Tensor
    counts: Tensor
    signals: dict[str, Tensor]


class Walker:
    """What is derived from ``method.walk`` for one network.

    A walk that takes a point is a path: it is walked anew for every point, and its last answer counts. Otherwise
    the points are the walk's answers: exits, of which the last one is the default.
    """

    def __init__(self, method: Method[Any], model: nn.Module) -> None:
        self.method = method
        self.model = model
        self.paths = _takes_point(type(method).walk)
        self.device = like(model).device
        data = method.data
        self._tracer = Tracer(model, (data.channels, data.image_size, data.image_size))
        self._followed: dict[str, list[Counter[str]]] = {}
        self._tables: dict[str, Tensor] = {}

    def is_for(self, model: nn.Module) -> bool:
        return model is self.model and like(model).device == self.device

    def units(self) -> list[Unit]:
        """What the walk calls. Points are walked, in their order, until the whole network has been seen."""
        for point in self.method.points(self.model) if self.paths else [None]:
            self._answers(point)
            units = self._tracer.units()
            seen = {parameter for unit in units for parameter in unit.module.parameters()}
            if seen.issuperset(self.model.parameters()):
                break
        return units

    def _answers(self, point: Point | None) -> list[Counter[str]]:
        """How often each unit has run by each answer of a walk, which is walked when first asked about."""
        name = point.name if point is not None and self.paths else ""
        if name not in self._followed:
            self._followed[name] = self._tracer.follow(lambda images: self._start(images, point))
        return self._followed[name]

    def points(self) -> list[Point]:
        if self.paths:
            raise NotImplementedError(f"{type(self.method).__name__}.walk takes a point: define points()")
        last = len(self._answers(None)) - 1
        return [Point(f"exit{k + 1}", {"exit": k}) for k in (last, *range(last))] if last else [Point("full")]

    @cached_property
    def _names(self) -> dict[str, int]:
        return {unit.name: place for place, unit in enumerate(self.method.units(self.model))}

    @cached_property
    def _places(self) -> dict[nn.Module, int]:
        return {unit.module: self._names[unit.name] for unit in self._tracer.units()}

    def counts(self) -> Tensor:
        """How often each unit runs at each point, int64 [P, U]; what runs behind gates is left out."""
        return torch.stack([self._ran(point)[self._stop(point)] for point in self.method.points(self.model)])

    def _ran(self, point: Point | None) -> Tensor:
        """How often each unit has run by each answer: int64 [K, U]."""
        name = point.name if point is not None and self.paths else ""
        if name not in self._tables:
            rows = self._answers(point)
            unknown = {unit for row in rows for unit in row} - set(self._names)
            if unknown:
                raise CostError(f"walk runs '{min(unknown)}', which {type(self.method).__name__}.units does not name")
            table = torch.tensor([[row[unit] for unit in self._names] for row in rows])
            self._tables[name] = table if self.device.type == "meta" else table.to(self.device)
        return self._tables[name]

    def _stop(self, point: Point) -> int:
        """The number of the answer that counts."""
        return -1 if self.paths else int(point.settings.get("exit", len(self._answers(None)) - 1))

    def _start(self, images: Tensor, point: Point | None) -> Walk:
        walk: Callable[..., Walk] = self.method.walk
        return walk(self.model, images, point) if self.paths else walk(self.model, images)

    # ---- record -------------------------------------------------------------------------------------
    def record(self, images: Tensor) -> Decisions:
        points = self.method.points(self.model)
        shared = [] if self.paths else self._visit(images, None)
        seen = [(shared or self._visit(images, point))[self._stop(point)] for point in points]
        widest = max((one.counts for one in seen), key=lambda counts: counts.ndim).shape
        return Decisions(
            torch.stack([one.logits for one in seen]),
            torch.stack([one.counts.expand(widest) for one in seen]),
            {name: torch.stack([one.signals[name] for one in seen]) for name in seen[0].signals},
        )

    def _visit(self, images: Tensor, point: Point | None) -> list[_Answer]:
        tally, ran = Tally(recording=True), self._ran(point)
        with telling(tally):
            return [
                _Answer(logits, self._with_gates(ran[k], tally, len(images)), dict(tally.signals))
                for k, logits in enumerate(everybody(self._start(images, point)))
            ]

    def _with_gates(self, counts: Tensor, tally: Tally, samples: int) -> Tensor:
        """Counts [U] or [B, U]; with what ran behind gates, if there are any, [B, U]."""
        if not tally.gated:
            return counts
        ran = [mask if rows is None else mask.new_zeros(samples).index_copy_(0, rows, mask)
               for _, mask, rows in tally.gated]  # fmt: skip
        places = torch.tensor([self._places[module] for module, _, _ in tally.gated], device=counts.device)
        return counts.expand(samples, -1).index_add(1, places, torch.stack(ran, 1).to(counts.dtype))

    # ---- execution ----------------------------------------------------------------------------------
    def execute(self, images: Tensor, plan: Plan) -> Executed:
        with torch.inference_mode():
            if isinstance(plan, Point):
                done = self._run(images, plan)
            else:
                done = self._cascade(images, plan) if self.paths else self._leave(images, plan)
        return Executed(done.logits.clone(), done.counts.clone(), done.taken.clone())  # ordinary tensors again

    def _run(self, images: Tensor, point: Point) -> Executed:
        ran, tally = self._ran(point), Tally()
        stop = self._stop(point) % len(ran)
        with telling(tally):
            walk = self._start(images, point)
            logits = next(walk)
            for _ in range(stop):
                logits = walk.send(EVERYBODY)
            walk.close()
        counts = self._with_gates(ran[stop], tally, len(images)).expand(len(images), -1)
        return Executed(logits, counts, torch.zeros(len(images), dtype=torch.int64, device=images.device))

    def _leave(self, images: Tensor, decide: Decide) -> Executed:
        """One walk, which images leave at the exits at which the policy stops them."""
        ran, tally = self._ran(None), Tally()
        last = len(ran) - 1
        rows = torch.arange(len(images), device=images.device)
        taken = torch.full_like(rows, last)
        with telling(tally):
            walk = self._start(images, None)
            answer = next(walk)
            logits = torch.empty_like(answer)
            for k in range(last):
                on = decide(k, answer).to(device=rows.device, dtype=torch.bool)
                leaving, staying = (~on).nonzero().squeeze(1), on.nonzero().squeeze(1)
                if len(leaving):
                    logits[rows[leaving]], taken[rows[leaving]] = answer[leaving], k
                    rows = tally.rows = rows[staying]
                if not len(rows):
                    break
                answer = walk.send(staying if len(leaving) else EVERYBODY)
            logits[rows] = answer[: len(rows)]
            walk.close()
        return Executed(logits, self._with_gates(ran[taken], tally, len(images)), taken)

    def _cascade(self, images: Tensor, decide: Decide) -> Executed:
        """Points one after the other, each from the image; what an image runs adds up."""
        points: Sequence[Point] = getattr(decide, "points", None) or self.method.cascade(self.model)
        if not points:
            name = type(self.method).__name__
            raise ConfigError(f"{name} has no exits to stop at: give execute one of its operating points")
        done = self._run(images, points[0])
        logits, counts, taken = done.logits.clone(), done.counts.clone(), done.taken
        rows, answer = torch.arange(len(images), device=images.device), logits
        for k, point in enumerate(points[1:]):
            rows = rows[decide(k, answer).to(device=rows.device, dtype=torch.bool)]
            if not len(rows):
                break
            done = self._run(images[rows], point)
            answer = done.logits
            logits[rows], taken[rows] = answer, k + 1
            counts[rows] += done.counts
        return Executed(logits, counts, taken)


@cache
def _takes_point(walk: Callable[..., Walk]) -> bool:
    """Whether a walk, as its class holds it, is told the operating point."""
    return "point" in inspect.signature(walk).parameters
