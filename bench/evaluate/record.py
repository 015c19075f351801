"""The decision record: what a trained network said and ran for every image, at every operating point.

It keeps two things apart, as two objects in two files. *Signals* are what a policy may see; *outcomes* need
the label. Everything after the record (policies, costs, statistics, figures) needs neither network nor GPU.
``bench.evaluate.collect.record_split`` makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import RunError
from bench.evaluate.logits import Logits
from bench.evaluate.npz import read_arrays, write_arrays
from bench.store.manifest import RunFiles

if TYPE_CHECKING:
    from bench.evaluate.collect import record_split

__all__ = ["DecisionRecord", "Outcomes", "Signals", "merge", "record_split"]

#: Raised when the layout of the files changes.
FORMAT = 1


def __getattr__(name: str) -> Any:
    """``record_split`` lives with its torch import in ``collect``; records are read without torch."""
    if name == "record_split":
        from bench.evaluate.collect import record_split

        return record_split
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Signals:
    """What a policy may see of one split: P operating points, N images in data-set order, U units.

    points: names [P], the default one first. units: names [U]. indices: int64 [N], growing.
    prediction: int32 [P, N]. confidence: float32 [P, N], largest softmax probability. margin: float32 [P, N],
    largest minus second largest probability. entropy: float32 [P, N], nats.
    counts: unsigned integers, how often each unit ran, [P, U] where every image has the same, else [P, N, U].
    extra: signals of the method itself, each float32 [P, N]. Arrays are read-only. read_logits: how to get the logits
    of these images; None if they were not kept.
    """

    points: tuple[str, ...]
    units: tuple[str, ...]
    indices: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    entropy: np.ndarray
    counts: np.ndarray
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    read_logits: Callable[[], Logits] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        p, n, u = len(self.points), len(self.indices), len(self.units)
        for name in ("points", "units"):
            names = getattr(self, name)
            if len(set(names)) != len(names):
                raise RunError(f"two {name} of a record have the same name: {', '.join(names)}")
        if n > 1 and not (np.diff(self.indices) > 0).all():
            raise RunError("the images of a record must stand in data-set order, each once")
        shapes = {"prediction": (p, n), "confidence": (p, n), "margin": (p, n), "entropy": (p, n)}
        for name, shape in shapes.items():
            _check_shape(name, getattr(self, name), shape)
        for name, values in self.extra.items():
            _check_shape(name, values, (p, n))
        if self.counts.shape not in ((p, u), (p, n, u)):
            raise RunError(f"counts have shape {self.counts.shape}, not [{p}, {u}] or [{p}, {n}, {u}]")
        _freeze(self, "indices", *shapes, "counts")
        object.__setattr__(self, "extra", {name: _read_only(values) for name, values in self.extra.items()})

    @property
    def n(self) -> int:
        """Images."""
        return len(self.indices)

    @property
    def same_for_all(self) -> bool:
        """Whether every image runs the same units at a given point."""
        return self.counts.ndim == 2

    @cached_property
    def logits(self) -> Logits | None:
        """Read on first use; None if they were not kept. RunError if they are damaged or of other points or images."""
        if self.read_logits is None:
            return None
        found = self.read_logits()
        if not np.array_equal(found.indices, self.indices) or len(found.values) != len(self.points):
            raise RunError("signals and logits are not of the same images and points; evaluate again")
        return found

    def counts_of(self, point: int) -> np.ndarray:
        """How often each unit ran at one point, [N, U] (a view without copying where all are the same)."""
        counts = self.counts[point]
        return np.broadcast_to(counts, (self.n, len(self.units))) if self.same_for_all else counts

    def save(self, path: str | Path) -> None:
        arrays = {name: getattr(self, name) for name in _SIGNALS}
        arrays |= {f"extra.{name}": values for name, values in self.extra.items()}
        arrays |= {"points": _text(self.points), "units": _text(self.units), "format": np.int64(FORMAT)}
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path, content: bytes | None = None) -> Signals:
        """Read a file. content: its bytes, where they are known to be what was written. Raises RunError."""
        arrays = _read(path, (*_SIGNALS, "points", "units"), content)
        extra = {name[6:]: values for name, values in arrays.items() if name.startswith("extra.")}
        points, units = (tuple(str(name) for name in arrays[key]) for key in ("points", "units"))
        return cls(points, units, extra=extra, read_logits=None, **{name: arrays[name] for name in _SIGNALS})


@dataclass(frozen=True)
class Outcomes:
    """What needs the label. indices: int64 [N]. label: int32 [N]. hit, hit5: bool [P, N], the label is the
    first (among the first five) by logit, equal logits in the order of the classes. logp: float32 [P, N],
    log-probability of the label, nats."""

    indices: np.ndarray
    label: np.ndarray
    hit: np.ndarray
    hit5: np.ndarray
    logp: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.indices)
        shape = (self.hit.shape[0] if self.hit.ndim else 0, n)
        _check_shape("label", self.label, (n,))
        for name in ("hit", "hit5", "logp"):
            _check_shape(name, getattr(self, name), shape)
        _freeze(self, *_OUTCOMES)

    def save(self, path: str | Path) -> None:
        write_arrays(path, {name: getattr(self, name) for name in _OUTCOMES} | {"format": np.int64(FORMAT)})

    @classmethod
    def load(cls, path: str | Path, content: bytes | None = None) -> Outcomes:
        """Read a file. content: its bytes, where they are known to be what was written. Raises RunError."""
        arrays = _read(path, _OUTCOMES, content)
        return cls(**{name: arrays[name] for name in _OUTCOMES})


def _given(logits: Logits) -> Logits:
    return logits


_SIGNALS = ("indices", "prediction", "confidence", "margin", "entropy", "counts")
_OUTCOMES = ("indices", "label", "hit", "hit5", "logp")


@dataclass(frozen=True)
class DecisionRecord:
    """One split's signals and outcomes; the same images in the same order. logits: None if they were not kept, or if
    the record was read from files (``signals.logits`` reads them on demand)."""

    signals: Signals
    outcomes: Outcomes
    logits: Logits | None = None

    def __post_init__(self) -> None:
        if not np.array_equal(self.signals.indices, self.outcomes.indices):
            raise RunError("signals and outcomes are not of the same images; evaluate again")
        if self.outcomes.hit.shape[0] != len(self.signals.points):
            raise RunError("signals and outcomes are not of the same operating points; evaluate again")
        if self.logits is not None and not np.array_equal(self.signals.indices, self.logits.indices):
            raise RunError("signals and logits are not of the same images; evaluate again")
        if self.logits is not None and self.signals.read_logits is None:
            # a function of the module: records of a part of the images travel between processes
            read_logits = partial(_given, self.logits)
            object.__setattr__(self, "signals", replace(self.signals, read_logits=read_logits))

    @property
    def points(self) -> tuple[str, ...]:
        return self.signals.points

    @property
    def units(self) -> tuple[str, ...]:
        return self.signals.units

    @property
    def n(self) -> int:
        """Images."""
        return self.signals.n

    def save(self, folder: str | Path, split: str) -> None:
        """Write ``<split>-signals.npz``, ``<split>-outcomes.npz`` and, if logits are kept, ``<split>-logits.npz``;
        equal content gives equal bytes."""
        self.signals.save(Path(folder) / f"{split}-signals.npz")
        self.outcomes.save(Path(folder) / f"{split}-outcomes.npz")
        logits = Path(folder) / f"{split}-logits.npz"
        if self.logits is not None:
            self.logits.save(logits)
        else:
            logits.unlink(missing_ok=True)  # of an earlier measurement

    @classmethod
    def load(cls, folder: str | Path, split: str, files: RunFiles | None = None) -> DecisionRecord:
        """Read both files; RunError where one is missing, damaged or does not fit the other. files: with hashes that
        they must fit."""
        folder = Path(folder)
        files = files if files is not None else RunFiles(folder, None)
        names = [f"{split}-{kind}.npz" for kind in ("signals", "outcomes")]
        known = [files.read(name) if files.listed is not None else None for name in names]
        signals = Signals.load(folder / names[0], known[0])
        logits = f"{split}-logits.npz"
        if files.has(logits):
            read = partial(_read_logits, folder / logits, files if files.listed is not None else None)
            signals = replace(signals, read_logits=read)
        return cls(signals, Outcomes.load(folder / names[1], known[1]))


def _read_logits(path: Path, files: RunFiles | None) -> Logits:
    return Logits.load(path, files.read(path.name) if files is not None else None)


def merge(records: Sequence[DecisionRecord]) -> DecisionRecord:
    """One record out of those of several processes, in data-set order; RunError for an image in two."""
    if not records:
        raise RunError("no record to merge")
    first = records[0].signals
    for record in records[1:]:
        if (record.points, record.units) != (first.points, first.units):
            raise RunError("records of different networks cannot be merged")
    indices = np.concatenate([r.signals.indices for r in records])
    order = np.argsort(indices, kind="stable")
    if (np.diff(indices[order]) == 0).any():
        twice = indices[order][1:][np.diff(indices[order]) == 0]
        raise RunError(f"{len(twice)} images were evaluated twice, the first is number {twice[0]}")

    def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays, axis=-1)[..., order]

    signals = [r.signals for r in records]
    outcomes = [r.outcomes for r in records]
    return DecisionRecord(
        Signals(
            first.points,
            first.units,
            counts=_join_counts(signals, order),
            extra={name: join([s.extra[name] for s in signals]) for name in first.extra},
            read_logits=None,
            **{name: join([getattr(s, name) for s in signals]) for name in _SIGNALS if name != "counts"},
        ),
        Outcomes(**{name: join([getattr(o, name) for o in outcomes]) for name in _OUTCOMES}),
        _join_logits([r.logits for r in records]),
    )


def _join_logits(parts: Sequence[Logits | None]) -> Logits | None:
    kept = [part for part in parts if part is not None]
    return Logits.join(kept) if len(kept) == len(parts) else None


def smallest_counts(counts: np.ndarray) -> np.ndarray:
    """The same counts as uint8, uint16 or uint32, whichever is enough."""
    most = int(counts.max()) if counts.size else 0
    return counts.astype(np.promote_types(np.min_scalar_type(most), np.uint8))


def _join_counts(signals: Sequence[Signals], order: np.ndarray) -> np.ndarray:
    """[P, U] if every part says the same, else [P, N, U] in the order of the data set."""
    first = signals[0]
    if all(s.same_for_all and np.array_equal(s.counts, first.counts) for s in signals):
        return first.counts
    whole = np.concatenate(
        [np.stack([s.counts_of(p) for p in range(len(s.points))]) for s in signals], axis=1
    )[:, order]
    return smallest_counts(whole)


def _read(path: str | Path, names: Sequence[str], content: bytes | None) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, content)
    missing = [name for name in (*names, "format") if name not in arrays]
    if missing:
        raise RunError(f"{path} is no record of this program: {', '.join(missing)} missing")
    for name, values in arrays.items():
        kinds, low, high = _RANGES.get("extra" if name.startswith("extra.") else name, ("biufU", 0, 0))
        if values.dtype.kind not in kinds:
            raise RunError(f"{path} is damaged: {name} holds {values.dtype}")
        if low < high and values.size and not (values.min() >= low and values.max() <= high):
            raise RunError(f"{path} is damaged: {name} holds values outside of {low:g} to {high:g}")
    if arrays["format"].tolist() not in (FORMAT, [FORMAT]):  # the first records had a list of one
        raise RunError(f"{path} has format {arrays['format'].tolist()}, this program reads {FORMAT}; evaluate again")
    return arrays


#: Kinds of numbers that an array may hold, and between what they lie (nan lies nowhere); 0 and 0: anywhere.
_ROUNDED = 1e-4
_LARGEST = float(np.finfo(np.float32).max)
_RANGES: dict[str, tuple[str, float, float]] = {
    "indices": ("iu", 0, np.inf), "prediction": ("iu", 0, np.inf), "label": ("iu", 0, np.inf),
    "counts": ("biu", 0, np.inf), "confidence": ("f", 0, 1 + _ROUNDED), "margin": ("f", -_ROUNDED, 1 + _ROUNDED),
    "entropy": ("f", -_ROUNDED, _LARGEST), "logp": ("f", -_LARGEST, _ROUNDED), "hit": ("b", 0, 0), "hit5": ("b", 0, 0),
    "extra": ("f", 0, 0), "points": ("U", 0, 0), "units": ("U", 0, 0), "format": ("iu", 0, np.inf),
}  # fmt: skip


def _check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise RunError(f"{name} has shape {list(values.shape)}, not {list(shape)}")


def _text(names: Sequence[str]) -> np.ndarray:
    return np.array(list(names), dtype=np.str_)


def _read_only(values: np.ndarray) -> np.ndarray:
    view = values.view()
    view.flags.writeable = False
    return view


def _freeze(owner: object, *names: str) -> None:
    for name in names:
        object.__setattr__(owner, name, _read_only(getattr(owner, name)))
