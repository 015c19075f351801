"""One seed per run; everything random derives its own from it, so that no part disturbs another."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, *axes: object) -> int:
    """An independent seed for a purpose: sha256 over the run's seed and the names of the purpose."""
    text = "/".join([str(seed), *map(str, axes)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators, CUDA's included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


def random_state() -> dict[str, Any]:
    """The state of the global generators, in tensors and primitives only."""
    numpy_state = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = numpy_state  # type: ignore[misc]
    python_version, python_state, python_gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [python_version, list(python_state), python_gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position),
                  int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }  # fmt: skip
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the global generators back; the state of a device that is not here is left alone."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, numpy_gauss = state["numpy"]
    np.random.set_state((kind, _as_uint32(keys), position, has_gauss, numpy_gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _as_uint32(keys: Tensor) -> np.ndarray:
    return keys.numpy().astype(np.uint32)
