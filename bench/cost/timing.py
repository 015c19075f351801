"""What executing really takes: time, peak memory and energy of calls, on the CPU or a CUDA device."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["energy_of", "peak_memory", "time_interleaved"]

Call = Callable[[int], object]

#: NVML's energy counter moves every few tens of milliseconds: calls are repeated for so long (seconds).
ENERGY_WINDOW = 1.0


def time_interleaved(
    calls: Sequence[Call], *, rounds: int, warmup: int, batches: int, device: torch.device | str
) -> np.ndarray:
    """Milliseconds of every call in every round, [calls, rounds].

    Round r asks every call for batch ``r % batches``, in an order of its own, so that whatever else goes on
    in the machine meets all of them alike. Each time is taken with the device idle before and after. warmup:
    rounds that are not counted. Garbage is not collected meanwhile.
    """
    device = torch.device(device)
    taken = np.empty((len(calls), rounds))
    was_on = gc.isenabled()
    for number in range(warmup):
        for call in calls:
            call(number % batches)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for index in np.random.default_rng(number).permutation(len(calls)):
                _finish(device)
                start = time.perf_counter()
                calls[index](number % batches)
                _finish(device)
                taken[index, number] = 1e3 * (time.perf_counter() - start)
    finally:
        if was_on:
            gc.enable()
    return taken


def peak_memory(call: Callable[[], object], device: torch.device | str) -> int:
    """Bytes that a call needs at its peak, beyond what was alive before it.

    CUDA: the allocator's own peak. CPU: storages made by torch's operators while they are alive, each once; what
    a kernel takes for itself and returns within one operator is not seen.
    """
    device = torch.device(device)
    if device.type == "cuda":
        _finish(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        _finish(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _LiveStorages() as live:
        call()
    return live.peak


def energy_of(call: Call, batches: int, device: torch.device | str) -> float | None:
    """Millijoules of one call, averaged over at least ``ENERGY_WINDOW`` seconds of them; idle power is included.

    From the GPU's own counter (NVML: package ``nvidia-ml-py``, from Volta on). None where there is none.
    """
    device = torch.device(device)
    handle = _nvml_handle(device) if device.type == "cuda" else None
    if handle is None:
        return None
    read, gpu = handle
    try:
        _finish(device)
        start, first, calls = time.perf_counter(), read(gpu), 0
        while time.perf_counter() - start < ENERGY_WINDOW:
            for batch in range(batches):
                call(batch)
            calls += batches
            _finish(device)
        return (read(gpu) - first) / calls
    except Exception:  # NVML refuses in its own classes: no counter on this GPU, no permission
        return None


def _nvml_handle(device: torch.device) -> tuple[Callable[[Any], int], Any] | None:
    """The counter's reader (millijoules) and the GPU's handle, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # By UUID: numbers differ between NVML and CUDA_VISIBLE_DEVICES.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml.nvmlDeviceGetTotalEnergyConsumption, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except Exception:  # as above
        return None


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _LiveStorages(TorchDispatchMode):
    """Counts the bytes of storages that operators made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What an operator is given but did not make was there before: weights, images, buffers.
        given = {_key(t) for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given:
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self._now)
        return result

    def _add(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        self._now += size
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self._now -= size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
