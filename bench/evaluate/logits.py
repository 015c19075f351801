"""The logits of one split, kept beside the decision record for policies that need them: temperatures, ensembles, sets.

A file of its own, read on demand: most tables need only signals. Up to ``ALL`` classes every logit is kept; above, the
``TOP`` largest of each answer and the log-sum-exp of all, so that the probabilities of the classes that are kept stay
exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import RunError
from bench.evaluate.npz import read_arrays, write_arrays

__all__ = ["ALL", "TOP", "Logits"]

#: Up to this number of classes all logits are kept.
ALL = 100
#: Beyond it, this many of each answer, the largest first.
TOP = 20


@dataclass(frozen=True)
class Logits:
    """P operating points, N images in data-set order, C classes.

    indices: int64 [N]. values: float16 [P, N, K]; K is C, or ``TOP`` if there are more than ``ALL`` classes.
    classes: uint16 or uint32 [P, N, K], the class of each value, largest value first; None if all classes are kept, in
    their order. logsumexp: float32 [P, N] over all classes; None likewise. num_classes: C.
    """

    indices: np.ndarray
    values: np.ndarray
    num_classes: int
    classes: np.ndarray | None = None
    logsumexp: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.indices)
        if self.values.ndim != 3 or self.values.shape[1] != n:
            raise RunError(f"logits have shape {list(self.values.shape)}, not [points, {n}, classes]")
        points, _, kept = self.values.shape
        if (self.classes is None) != (self.logsumexp is None) or (self.classes is None and kept != self.num_classes):
            raise RunError(f"{kept} of {self.num_classes} logits need `classes` and `logsumexp`")
        for name, shape in (("classes", (points, n, kept)), ("logsumexp", (points, n))):
            found = getattr(self, name)
            if found is not None and found.shape != shape:
                raise RunError(f"{name} has shape {list(found.shape)}, not {list(shape)}")

    def save(self, path: str | Path) -> None:
        """Write an ``.npz``; equal content gives equal bytes."""
        arrays = {"indices": self.indices, "values": self.values, "num_classes": np.int64(self.num_classes)}
        if self.classes is not None and self.logsumexp is not None:
            arrays |= {"classes": self.classes, "logsumexp": self.logsumexp}
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path, content: bytes | None = None) -> Logits:
        """Read the file; RunError if it is missing, damaged, or does not hold logits. content: its bytes, if they are
        known to be what was written."""
        arrays = read_arrays(path, content)
        missing = [name for name in ("indices", "values", "num_classes") if name not in arrays]
        if missing:
            raise RunError(f"{path} does not hold logits: {', '.join(missing)} missing")
        return cls(arrays["indices"], arrays["values"], int(arrays["num_classes"]), arrays.get("classes"),
                   arrays.get("logsumexp"))  # fmt: skip

    @property
    def whole(self) -> bool:
        """Whether the logits of all classes are kept."""
        return self.classes is None

    def dense(self) -> np.ndarray:
        """float32 [P, N, C]. RunError if classes are missing or a value is not finite."""
        if not self.whole:
            raise RunError(f"only {self.values.shape[-1]} of {self.num_classes} logits are kept")
        values = self.values.astype(np.float32)
        if not np.isfinite(values).all():
            raise RunError("the logits of a record are not finite; evaluate again")
        return values

    @classmethod
    def join(cls, parts: Sequence[Logits]) -> Logits:
        """Those of several batches or processes as one, in data-set order."""
        indices = np.concatenate([part.indices for part in parts])
        order = np.argsort(indices, kind="stable")

        def joined(name: str) -> np.ndarray | None:
            if getattr(parts[0], name) is None:
                return None
            return np.concatenate([getattr(part, name) for part in parts], axis=1)[:, order]

        values = joined("values")
        assert values is not None
        return cls(indices[order], values, parts[0].num_classes, joined("classes"), joined("logsumexp"))
