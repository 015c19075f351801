"""Checks of what is measured: record, execution, and that what is run is what is paid for."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.cost.count import count_products
from bench.errors import ConfigError
from bench.evaluate.collect import RESERVED
from bench.method import Plan
from bench.testing.subject import DATA, IMAGES, Subject, close, make_images
from bench.train.seeds import seed_everything


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
            if not close(answer(make_images()), first):
                subject.fail(hook, "the same images get another answer after another batch: something is carried over")
        seed_everything(2)
        if not close(answer(make_images()), first):
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
        if not close(alone.logits[:, 0], together.logits[:, index]):
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
        if not close(found.logits, recorded.logits[index]):
            same = [p.name for p, e in zip(subject.points, executed) if close(e.logits, recorded.logits[index])]
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
            changed = not close(subject.record(make_images()).logits, subject.decisions.logits)
            parameter.copy_(kept)
        if changed:
            subject.fail("units", f"parameter '{name}' is used in evaluation but is in no unit")


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
        if not close(logits, subject.decisions.logits):
            subject.fail("build", f"a network that is {what} answers otherwise: something is kept outside of its state")
