"""The contract of ``bench.method`` as plain checks, for methods of any package.

``check_method(cls)`` builds a method's small network (``Config.small()``) for ten classes of 32x32 images and asks for
everything that a comparison relies on. What does not hold is one line each: method, hook, what was expected, what was
found. Nothing is trained for longer than two steps; the whole takes seconds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.config.resolve import parse_options
from bench.config.schema import MethodConfig, Recipe
from bench.cost.count import count_products
from bench.cost.table import CostTable
from bench.cost.units import count_units
from bench.errors import BenchError, ConfigError, ContractError
from bench.evaluate.collect import RESERVED
from bench.method import Batch, Decisions, Executed, Method, Plan, Point, RunStage, Stage, Unit
from bench.train.optim import freeze, make_optimizer
from bench.train.seeds import random_state, restore_random_state, seed_everything
from bench.train.step import TrainStep

_T = TypeVar("_T")

__all__ = ["CHECKS", "Subject", "check_method", "make_subject"]

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


def check_method(cls: type[Method], name: str | None = None, config: MethodConfig | None = None) -> list[str]:
    """What does not hold, one line each; nothing where all is well. config: default ``Config.small()``."""
    try:
        subject = make_subject(cls, name, config)
    except ContractError as error:
        return [str(error)]
    problems = []
    for check in CHECKS:
        try:
            with kept_random_state():
                check(subject)
        except ContractError as error:
            problems.append(str(error))
        except Exception:
            if not problems:  # else what the check relies on is what is wrong
                raise
    return list(dict.fromkeys(problems))


def make_subject(cls: type[Method], name: str | None = None, config: MethodConfig | None = None) -> Subject:
    """The method with its small network, whose statistics are away from their defaults, which hide errors.

    Raises ContractError where there is no such network.
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


# ---- what it is -------------------------------------------------------------------------------------
def check_options(subject: Subject) -> None:
    """Options can be stored and read back."""
    config = subject.method.config
    with subject.calling("Config"):
        text = json.dumps(config.model_dump(mode="json", exclude_unset=True))
        again = parse_options(type(config), json.loads(text))
    if again != config:
        subject.fail("Config", "options that are written out and read back are others than before")


def check_stages(subject: Subject) -> None:
    """Stages follow one another, with options and recipe values that exist."""
    seen: set[str] = set()
    with subject.calling("stages"):
        known = set(subject.method.config.model_dump(mode="json"))
        stages = list(subject.method.stages())
        declared = [stage.name for stage in subject.method.config.stages()]
        for stage in stages:
            Recipe.model_validate({**stage.recipe})
    for stage in stages:
        if stage.name in seen:
            subject.fail("stages", f"two stages are called '{stage.name}'")
        if stage.start_from is not None and stage.start_from not in seen:
            subject.fail("stages", f"'{stage.name}' starts from '{stage.start_from}', which is not a stage before it")
        unknown = sorted(set(stage.options or ()) - known)
        if unknown:
            subject.fail("stages", f"'{stage.name}' depends on '{unknown[0]}', which is not an option")
        seen.add(stage.name)
    if [stage.name for stage in stages] != declared:
        subject.fail("stages", f"gives {[stage.name for stage in stages]}, but Config.stages gives {declared}")


def check_build(subject: Subject) -> None:
    """The same seed builds the same network, on the CPU."""
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        with subject.calling("build"):
            states.append(subject.method.build(subject.stage).state_dict())
    if states[0].keys() != states[1].keys():
        subject.fail("build", "two networks of one seed have other parameters")
    for key, value in states[0].items():
        if value.device.type != "cpu":
            subject.fail("build", f"'{key}' is on {value.device}, not on the CPU")
        if not torch.equal(value, states[1][key]):
            subject.fail("build", f"two networks of one seed differ in '{key}': draw from torch's global generator")
    with subject.calling("backbone"):
        if not subject.method.backbone():
            subject.fail("backbone", "is empty")


def check_points(subject: Subject) -> None:
    """At least one operating point, each with a name of its own."""
    if not subject.points:
        subject.fail("points", "there is none; give at least one, the default one first")
    strange = [point for point in subject.points if not isinstance(point, Point)]
    if strange:
        subject.fail("points", f"{strange[0]!r} is not a bench.method.Point")
    _distinct(subject, "points", [point.name for point in subject.points])


def check_units(subject: Subject) -> None:
    """Units have names of their own, can be counted, and two counters agree about each."""
    strange = [unit for unit in subject.units if not isinstance(unit, Unit)]
    if strange:
        subject.fail("units", f"{strange[0]!r} is not a bench.method.Unit")
    _distinct(subject, "units", [unit.name for unit in subject.units])
    if int(subject.cost.columns["macs"].sum()) <= 0:
        subject.fail("units", "they do not multiply anything: 0 MACs in all")


def _distinct(subject: Subject, hook: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        subject.fail(hook, f"two are called '{twice[0]}'")


# ---- measuring --------------------------------------------------------------------------------------
def check_record(subject: Subject) -> None:
    """Logits, counts and signals have the shapes and kinds that the contract asks for."""
    p, b, u = len(subject.points), IMAGES, len(subject.units)
    logits, counts = subject.decisions.logits, subject.decisions.counts
    expected = [p, b, DATA.num_classes]
    if not isinstance(logits, Tensor) or list(logits.shape) != expected:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        subject.fail("record", f"logits must be [points, images, classes] = {expected}, not {found}")
    if not bool(torch.isfinite(logits).all()):
        subject.fail("record", "logits are not finite")
    if logits.requires_grad:
        subject.fail("record", "logits carry gradients; record under torch.no_grad()")
    _check_counts(subject, "record", counts, ([p, u], [p, b, u]))
    if int(counts[0].sum()) == 0:
        subject.fail("record", "counts say that the default point runs no unit")
    for name, values in subject.decisions.signals.items():
        if name in RESERVED:
            subject.fail("record", f"a signal cannot be called '{name}', which the harness records itself")
        if not isinstance(values, Tensor) or list(values.shape) != [p, b]:
            subject.fail("record", f"signal '{name}' must be [points, images] = {[p, b]}")


def _check_counts(subject: Subject, hook: str, counts: Any, shapes: Sequence[list[int]]) -> None:
    if not isinstance(counts, Tensor) or counts.is_floating_point() or counts.is_complex():
        kind = counts.dtype if isinstance(counts, Tensor) else type(counts).__name__
        subject.fail(hook, f"counts must be a tensor of integers, not {kind}")
    if list(counts.shape) not in shapes:
        subject.fail(hook, f"counts must be of shape {' or '.join(map(str, shapes))}, not {list(counts.shape)}")
    if counts.numel() and int(counts.min()) < 0:
        subject.fail(hook, "a count is negative")


def check_repeatable(subject: Subject) -> None:
    """The same images give the same answers: no random numbers, nothing kept from batch to batch, nothing changed."""
    before = {key: value.clone() for key, value in subject.model.state_dict().items()}
    for hook, answer in (
        ("record", lambda images: subject.record(images).logits),
        ("execute", lambda images: subject.execute(images, subject.points[0]).logits),
    ):
        seed_everything(1)
        drawn = torch.get_rng_state()
        first = answer(make_images())
        if not torch.equal(drawn, torch.get_rng_state()):
            subject.fail(hook, "draws random numbers in evaluation mode")
        for images in (make_images(), make_images(seed=3)):  # what comes between may be the same or another batch
            answer(images)
            seed_everything(1)
            if not _close(answer(make_images()), first):
                subject.fail(hook, "the same images get another answer after another batch: something is carried over")
        seed_everything(2)
        if not _close(answer(make_images()), first):
            subject.fail(hook, "the same images get another answer under another seed: it draws random numbers")
    after = subject.model.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    if changed:
        subject.fail("record", f"changes '{changed[0]}' of the network; measuring must leave it alone")


def check_batches(subject: Subject) -> None:
    """An image's record does not depend on the other images of its batch."""
    images, together = make_images(), subject.decisions
    for index in range(len(images)):
        alone = subject.record(images[index : index + 1])
        if not _close(alone.logits[:, 0], together.logits[:, index]):
            subject.fail("record", "an image alone gets other logits than among others: it depends on the batch")
        own = together.counts[:, index] if together.counts.ndim == 3 else together.counts
        if not torch.equal(alone.counts[:, 0] if alone.counts.ndim == 3 else alone.counts, own):
            subject.fail("record", "an image alone gets other counts than among others: they depend on the batch")


def check_execute(subject: Subject) -> None:
    """Executing a point gives the logits and counts that the record has for it, in the order of the points."""
    images, recorded = make_images(), subject.decisions
    executed = [subject.execute(images, point) for point in subject.points]
    for index, (point, found) in enumerate(zip(subject.points, executed)):
        _check_counts(subject, "execute", found.counts, ([IMAGES, len(subject.units)],))
        if found.logits.shape != recorded.logits[index].shape:
            subject.fail("execute", f"logits of point '{point.name}' are {list(found.logits.shape)}, not "
                         f"[images, classes] = {list(recorded.logits[index].shape)}")  # fmt: skip
        if not isinstance(found.taken, Tensor) or list(found.taken.shape) != [IMAGES]:
            subject.fail("execute", f"'taken' of point '{point.name}' must be one number per image")
        if not _close(found.logits, recorded.logits[index]):
            same = [p.name for p, e in zip(subject.points, executed) if _close(e.logits, recorded.logits[index])]
            why = f"; they are those of '{same[0]}': logits follow the order of points" if same else ""
            subject.fail("record", f"logits of point '{point.name}' are not those of executing it{why}")
        counts = recorded.counts[index].expand(IMAGES, -1)
        wrong = (found.counts.long() != counts.long()).any(0).nonzero().flatten().tolist()
        if wrong:
            subject.fail("execute", f"at point '{point.name}' it runs unit '{subject.units[wrong[0]].name}' "
                         f"{found.counts[:, wrong[0]].tolist()} times, record says "
                         f"{counts[:, wrong[0]].tolist()}")  # fmt: skip


def check_work(subject: Subject) -> None:
    """What is executed is what is paid for: products outside of every unit, gates that nobody pays, exits that
    compute on, counts in another order than the units."""
    images = make_images()
    plans: list[tuple[str, Plan]] = [(f"point '{point.name}'", point) for point in subject.points]
    if subject.method.capabilities & {"exits", "static_paths"}:
        plans += [("a policy that stops at once", _stop), ("a policy that stops at random", _some)]
    for what, plan in plans:
        for part in (images[:1], images):
            done, executed = count_products(subject.model, lambda p=part, q=plan: subject.execute(p, q))  # type: ignore[misc]
            paid = int((executed.counts.long() @ subject.products).sum())
            if done != paid:
                why = ("something is computed outside of every unit, or is not counted" if done > paid
                       else "counts say more than is run")  # fmt: skip
                subject.fail("units", f"{what} carries out {done:,} MACs for {len(part)} images, counts times the "
                             f"units' costs are {paid:,}: {why}")  # fmt: skip


def _stop(k: int, logits: Tensor) -> Tensor:
    return torch.zeros(len(logits), dtype=torch.bool)


def _go(k: int, logits: Tensor) -> Tensor:
    return torch.ones(len(logits), dtype=torch.bool)


def _some(k: int, logits: Tensor) -> Tensor:
    """A decision that an image's own logits make: neither all nor none of a batch go on."""
    return logits.argmax(-1) % 2 == 0


def check_policies(subject: Subject) -> None:
    """Stopping at once costs no more than going on; a method with nothing to stop at says so."""
    images = make_images()
    if not subject.method.capabilities & {"exits", "static_paths"}:
        try:
            subject.method.execute(subject.model, images, _stop)
        except ConfigError:
            return
        except Exception as error:
            subject.fail("execute", f"a policy must run or be refused with a ConfigError, not {type(error).__name__}")
    first, last = (subject.execute(images, plan) for plan in (_stop, _go))
    for executed in (first, last):
        if list(executed.logits.shape) != [IMAGES, DATA.num_classes]:
            subject.fail("execute", f"logits under a policy are {list(executed.logits.shape)}")
    cheap, dear = (subject.cost.cost(executed.counts.cpu().numpy())["macs"] for executed in (first, last))
    if not (cheap <= dear).all():
        subject.fail("execute", "a policy that stops at once costs more than one that never stops")


def check_parameters(subject: Subject) -> None:
    """Parameters that matter in evaluation belong to a unit: only what training alone uses may be outside."""
    own = {id(p) for unit in subject.units for p in unit.module.parameters()}
    outside = [(name, p) for name, p in subject.model.named_parameters() if id(p) not in own]
    for name, parameter in outside:
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(1.0 + kept.abs().mean())
            changed = not _close(subject.record(make_images()).logits, subject.decisions.logits)
            parameter.copy_(kept)
        if changed:
            subject.fail("units", f"parameter '{name}' is used in evaluation but is in no unit")


# ---- training ---------------------------------------------------------------------------------------
def check_training(subject: Subject) -> None:
    """Two steps of each stage with labels and with mixed targets: a scalar, finite loss; gradients where the stage
    trains and nowhere else; weights that move."""
    for soft in (False, True):
        previous: dict[str, nn.Module] = {}
        for planned in subject.method.stages():
            stage = planned.resolve(Recipe(lr=0.01, label_smoothing=0.1))
            previous[stage.name] = _train(subject, stage, previous.get(stage.start_from or ""), soft)


def _train(subject: Subject, stage: RunStage, previous: nn.Module | None, soft: bool) -> nn.Module:
    torch.manual_seed(0)
    with subject.calling("build"):
        model = subject.method.build(stage)
    with subject.calling("prepare"):
        subject.method.prepare(model, stage, previous)
    with subject.calling("stages"):
        freeze(model, stage.trains)
        optimizer = make_optimizer(model, stage.recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = TrainStep(subject.method, model, stage)
    with subject.calling("set_mode"):
        step.train()
    for _ in range(2):
        optimizer.zero_grad()
        _loss(subject, stage, step, make_batch(soft)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        if not parameter.requires_grad and (parameter.grad is not None or moved):
            subject.fail("loss", f"stage '{stage.name}': '{name}' is frozen but is trained")
        if parameter.requires_grad and parameter.grad is None and not subject.method.find_unused_parameters:
            subject.fail("loss", f"stage '{stage.name}': '{name}' gets no gradient; freeze it (Stage.trains) or set "
                         "find_unused_parameters = True")  # fmt: skip
    if all(torch.equal(p, before[name]) for name, p in model.named_parameters()):
        subject.fail("loss", f"stage '{stage.name}': two steps move no parameter")
    return model


def _loss(subject: Subject, stage: RunStage, step: nn.Module, batch: Batch) -> Tensor:
    with subject.calling("loss"):
        parts = step(*batch)
    if not isinstance(parts, Mapping) or not isinstance(parts.get("loss"), Tensor):
        subject.fail("loss", f"stage '{stage.name}': must return a dict with a tensor under 'loss'")
    loss: Tensor = parts["loss"]
    if loss.ndim != 0:
        subject.fail("loss", f"stage '{stage.name}': 'loss' has shape {list(loss.shape)}; it must be a scalar")
    if not bool(torch.isfinite(loss)):
        subject.fail("loss", f"stage '{stage.name}': 'loss' is {loss.item()}, not a finite number")
    if not loss.requires_grad:
        subject.fail("loss", f"stage '{stage.name}': 'loss' has no gradient: nothing would be trained")
    for name, value in parts.items():
        if name == "logits":
            if list(value.shape) != [len(batch.labels), DATA.num_classes]:
                subject.fail("loss", f"stage '{stage.name}': 'logits' are {list(value.shape)}, not [images, classes]")
        elif not isinstance(value, (Tensor, float, int)) or (isinstance(value, Tensor) and value.numel() != 1):
            subject.fail("loss", f"stage '{stage.name}': '{name}' must be a scalar, for the training curve")
    return loss


def check_targets(subject: Subject) -> None:
    """Mixed targets count: two mixtures of the same images and labels give two losses."""
    for planned in subject.method.stages():
        stage = planned.resolve(Recipe())
        torch.manual_seed(0)
        model = subject.method.build(stage)
        losses = []
        for shift in (1, 2):
            step = TrainStep(subject.method, copy.deepcopy(model), stage)
            step.train()
            seed_everything(0)
            losses.append(float(_loss(subject, stage, step, make_batch(soft=True, shift=shift)).detach()))
        if losses[0] == losses[1]:
            subject.fail("loss", f"stage '{stage.name}': it ignores the targets of mixup and cutmix (batch.targets)")


def check_bfloat16(subject: Subject) -> None:
    """A training step works in mixed precision."""
    model = copy.deepcopy(subject.model)
    freeze(model, subject.stage.trains)
    step = TrainStep(subject.method, model, subject.stage)
    step.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = _loss(subject, subject.stage, step, make_batch())
    with subject.calling("loss"):
        loss.backward()  # type: ignore[no-untyped-call]


def check_copies(subject: Subject) -> None:
    """A copy of a network, and one that its state_dict fills, answer as it does."""
    with subject.calling("build"):
        other = copy.deepcopy(subject.model)
        torch.manual_seed(9)
        fresh = subject.method.build(subject.stage).eval()
        fresh.load_state_dict(subject.model.state_dict())
    for what, model in (("copied", other), ("loaded from its state_dict", fresh)):
        with subject.calling("record"), torch.no_grad():
            logits = subject.method.record(model, make_images()).logits
        if not _close(logits, subject.decisions.logits):
            subject.fail("build", f"a network that is {what} answers otherwise: something is kept outside of its state")


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    finite = b[b.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True)


#: In this order, so that the first failure is the cause of those after it.
CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_options, check_stages, check_build, check_points, check_units, check_record, check_repeatable, check_batches,
    check_execute, check_parameters, check_work, check_policies, check_copies, check_training, check_targets,
    check_bfloat16,
)  # fmt: skip
