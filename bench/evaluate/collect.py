"""Making a decision record: one pass of a trained network over one split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import RunError
from bench.evaluate.logits import ALL, TOP, Logits
from bench.evaluate.record import DecisionRecord, Outcomes, Signals, smallest_counts
from bench.tracing import evaluating

if TYPE_CHECKING:
    from bench.method import Decisions, Method

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

#: Names that a method's own signal must not take.
RESERVED = {"prediction", "confidence", "margin", "entropy", "counts", "label", "hit", "hit5", "logp"}


def record_split(
    method: Method,
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    device: torch.device | str,
    amp: str = "off",
    channels_last: bool = False,
    keep_logits: bool = False,
) -> DecisionRecord:
    """Run ``method.record`` over a split, in evaluation mode and without gradients; softmax in float32.

    loader yields images [B, 3, H, W], labels [B] and the images' numbers in the data set [B], in any order,
    each image once. amp: "off", "bf16" or "fp16".
    keep_logits: whether the record has ``logits``. The mode of every module is put back afterwards.
    Raises RunError where logits are not finite, counts or shapes do not fit what the method announced, a
    label has no logit, or an image comes twice.
    """
    device = torch.device(device)
    points = tuple(point.name for point in method.points(model))
    units = tuple(unit.name for unit in method.units(model))
    parts: list[dict[str, Any]] = []
    logits: list[Logits] = []
    with evaluating(model), torch.no_grad():
        for images, labels, indices in loader:
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True).long()
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with _autocast(device, amp):
                decisions = method.record(model, images)
            parts.append(_batch(decisions, labels, indices, points, units))
            if keep_logits:
                logits.append(_kept(decisions.logits.float(), indices))
    if not parts:
        raise RunError("the split to evaluate has no image")
    return _assemble(parts, points, units, Logits.join(logits) if keep_logits else None)


def _kept(logits: Tensor, indices: Tensor) -> Logits:
    """What is stored of a batch's logits [P, B, C]. float16 ends at 65,504, far above what a network answers."""
    number, classes = indices.long().cpu().numpy(), logits.shape[-1]
    if classes <= ALL:
        return Logits(number, _half(logits), classes)
    top = logits.topk(TOP, dim=-1)
    small = np.uint16 if classes <= np.iinfo(np.uint16).max + 1 else np.uint32
    return Logits(number, _half(top.values), classes, top.indices.cpu().numpy().astype(small),
                  logits.logsumexp(-1).cpu().numpy())  # fmt: skip


def _half(values: Tensor) -> np.ndarray:
    most = torch.finfo(torch.float16).max
    return values.clamp(-most, most).half().cpu().numpy()


def _batch(
    decisions: Decisions, labels: Tensor, indices: Tensor, points: tuple[str, ...], units: tuple[str, ...]
) -> dict[str, Any]:
    """Everything the record keeps of one batch, as numpy arrays with the batch in the last place."""
    logits = decisions.logits.float()
    p, b, u = len(points), len(labels), len(units)
    if logits.ndim != 3 or logits.shape[:2] != (p, b):
        raise RunError(f"record gave logits of shape {list(logits.shape)}, not [{p}, {b}, classes]")
    bad = ~torch.isfinite(logits).all(-1)
    if bad.any():
        point, image = bad.nonzero()[0].tolist()
        raise RunError(
            f"logits are not finite for {int(bad.any(0).sum())} of {b} images of a batch; the first is image "
            f"{int(indices[image])} at point '{points[point]}'"
        )
    classes = logits.shape[-1]
    if b and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise RunError(f"labels run from {found}, the network has {classes} classes")
    logp = logits.log_softmax(-1)
    probability = logp.exp()
    top = probability.topk(min(2, classes), dim=-1).values
    prediction = logits.argmax(-1)
    part: dict[str, Any] = {
        "indices": indices.long(),
        "prediction": prediction.int(),
        "confidence": top[..., 0],
        "margin": top[..., 0] - top[..., 1] if classes > 1 else torch.ones_like(top[..., 0]),
        "entropy": torch.special.entr(probability).sum(-1),
        "label": labels.int(),
        "hit": prediction == labels,
        "hit5": _rank(logits, labels) < 5,
        "logp": logp.gather(-1, labels.expand(p, b)[..., None])[..., 0],
    }
    for name, values in decisions.signals.items():
        if name in RESERVED:
            raise RunError(f"a method's signal cannot be called '{name}'")
        if values.shape != (p, b):
            raise RunError(f"signal '{name}' has shape {list(values.shape)}, not [{p}, {b}]")
        part[f"extra.{name}"] = values.float()
    part = {name: values.cpu().numpy() for name, values in part.items()}
    part["counts"] = _check_counts(decisions.counts, p, b, u)
    return part


def _rank(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the label, [P, B]; equal logits in the order of the classes, as argmax."""
    own = logits.gather(-1, labels.expand(logits.shape[:2])[..., None])
    earlier = torch.arange(logits.shape[-1], device=logits.device) < labels[:, None]
    return ((logits > own) | ((logits == own) & earlier)).sum(-1)


def _check_counts(counts: Tensor, p: int, b: int, u: int) -> np.ndarray:
    if counts.is_floating_point() or counts.is_complex():
        raise RunError(f"record gave counts of type {counts.dtype}; they must be integers")
    if counts.shape not in ((p, u), (p, b, u)):
        raise RunError(f"record gave counts of shape {list(counts.shape)}, not [{p}, {u}] or [{p}, {b}, {u}]")
    if counts.numel() and int(counts.min()) < 0:
        raise RunError("record gave a negative count")
    return smallest_counts(counts.to(torch.int64).cpu().numpy())


def _assemble(
    parts: list[dict[str, Any]], points: tuple[str, ...], units: tuple[str, ...], logits: Logits | None
) -> DecisionRecord:
    """Batches in data-set order; RunError for an image that came twice, or counts that change their kind."""
    indices = np.concatenate([part["indices"] for part in parts])
    order = np.argsort(indices, kind="stable")
    repeated = np.flatnonzero(np.diff(indices[order]) == 0)
    if len(repeated):
        first = indices[order][repeated[0]]
        raise RunError(f"{len(repeated)} images were evaluated twice, the first is number {first}")
    joined = {
        name: np.concatenate([part[name] for part in parts], axis=-1)[..., order]
        for name in parts[0]
        if name != "counts"
    }
    counts = [part["counts"] for part in parts]
    if all(c.ndim == 2 for c in counts):
        if any(not np.array_equal(c, counts[0]) for c in counts):
            raise RunError("record gave counts [P, U] that change between batches; give them as [P, B, U]")
        joined["counts"] = counts[0]
    elif all(c.ndim == 3 for c in counts):
        joined["counts"] = smallest_counts(np.concatenate(counts, axis=1)[:, order])
    else:
        raise RunError("record gave counts [P, U] for some batches and [P, B, U] for others")
    return DecisionRecord(
        Signals(
            points,
            units,
            extra={name[6:]: values for name, values in joined.items() if name.startswith("extra.")},
            read_logits=None,
            **{k: joined[k] for k in ("indices", "prediction", "confidence", "margin", "entropy", "counts")},
        ),
        Outcomes(**{k: joined[k] for k in ("indices", "label", "hit", "hit5", "logp")}),
        logits,
    )


def _autocast(device: torch.device, amp: str) -> contextlib.AbstractContextManager[Any]:
    if amp == "off":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AMP_TYPES[amp])
