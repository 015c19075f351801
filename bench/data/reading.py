"""Images -> batches through worker processes, with a thread that carries them to the device ahead of their use.

The thread also has a second purpose: where torch's DataLoader is used from the main thread, the death of a worker
raises an error from a signal handler, in the middle of whatever the main thread does. Here it becomes a DataError
in the loader, which names the file that was being read.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from bench.data.mixing import forked_rng
from bench.data.sources import Source
from bench.errors import DataError
from bench.process import die_with_parent, ignore_interrupts

#: A worker hands over so many pixels at a time (21 images of 224x224): the first batch comes sooner, and an
#: interrupted epoch ends within the time of one piece.
_PIECE_PIXELS = 2**20
#: What helps if processes have nowhere to put what they hand over.
_SHARED = "the shared memory (/dev/shm) is full or cannot be written to: make it larger, or set recipe.workers: 0"
_AHEAD = 2  # whole batches that wait on the device

Triple = tuple[Tensor, Tensor, Tensor]  # images [b, 3, S, S], labels [b], indices [b]


@dataclass(frozen=True)
class Jobs:
    """What to read: samples int64 [n] in order, the seed of each one's transform (None where it draws nothing), and
    the batches as slices of them. size: side of the transformed images."""

    samples: np.ndarray
    seeds: np.ndarray | None
    batches: Sequence[slice]
    size: int

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        piece = max(1, _PIECE_PIXELS // self.size**2)
        for batch in self.batches:
            samples = self.samples[batch]
            seeds = None if self.seeds is None else self.seeds[batch]
            for start in range(0, len(samples), piece):
                cut = slice(start, start + piece)
                yield samples[cut], None if seeds is None else seeds[cut]


class Reader(Dataset):
    """Reads and transforms a piece of a batch. What goes wrong with an image is handed back as a text that names it.

    slots: shared int64 [workers, 2], the process of each worker and the sample it is busy with.
    """

    def __init__(self, source: Source, transform: Callable[[Any], Tensor], slots: Tensor) -> None:
        self.source, self.transform, self.slots = source, transform, slots

    def __getitem__(self, job: tuple[np.ndarray, np.ndarray | None]) -> Triple | str:
        samples, seeds = job
        worker = get_worker_info()
        slot = self.slots[worker.id] if worker else torch.zeros(2, dtype=torch.int64)
        slot[0] = os.getpid()
        images = []
        with forked_rng() as seed:
            for number, sample in enumerate(samples.tolist()):
                slot[1] = sample
                try:
                    picture = self.source.image(sample)
                    if seeds is not None:
                        seed(int(seeds[number]))
                    images.append(self.transform(picture))
                except DataError as error:
                    return str(error)
                except Exception as error:
                    return f"cannot transform {self.source.where(sample)}: {error or type(error).__name__}"
        slot[1] = -1
        batch = default_collate(images), torch.from_numpy(self.source.labels[samples]), torch.from_numpy(samples)
        return batch if worker is None else _shared(batch)


def read_batches(
    source: Source, transform: Callable[[Any], Tensor], jobs: Jobs, *, workers: int, device: torch.device
) -> Iterator[Triple]:
    """The batches of ``jobs``, in order, on the device; the same ones for any number of workers.

    Close the iterator (or let go of it) to end its processes early. Raises DataError.
    """
    workers = min(workers, len(jobs))
    slots = torch.full((max(workers, 1), 2), -1, dtype=torch.int64)
    reader = Reader(source, transform, slots)
    if workers == 0:
        yield from _assemble(map(reader.__getitem__, jobs), jobs, device)
        return
    loader = DataLoader(
        reader, batch_size=None, sampler=jobs, num_workers=workers, collate_fn=_as_is, prefetch_factor=4,
        pin_memory=device.type == "cuda", worker_init_fn=_begin_worker, generator=torch.Generator(),
    )  # fmt: skip
    pieces, children = _start_or_say(slots, loader)
    named = _name_deaths(pieces, children, reader)
    del pieces
    yield from _in_background(_assemble(named, jobs, device))


def _start_or_say(slots: Tensor, loader: DataLoader) -> tuple[Iterator[Any], list[Any]]:
    """``_start``, or DataError. torch's half-made iterator, which complains when it goes, goes unheard."""
    message = ""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        slots.share_memory_()
        return _start(loader)
    except (RuntimeError, OSError) as error:
        message = f"the loader's processes cannot be started: {_one_line(error)}{_advice(error)}"
    finally:  # the error is gone here, and with it what its frames held
        sys.unraisablehook = hook
    raise DataError(message)


def _start(loader: DataLoader) -> tuple[Iterator[Any], list[Any]]:
    """Start the workers from this thread and take back torch's SIGCHLD handler. -> the pieces, the processes."""
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    handler = signal.getsignal(signal.SIGCHLD) if main else None
    before = set(multiprocessing.active_children())
    with warnings.catch_warnings():
        # Workers than there are cores are the user's own choice; forking beside threads is what torch does.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        pieces = iter(loader)
    if main and handler is not None:
        signal.signal(signal.SIGCHLD, handler)
    return pieces, [child for child in multiprocessing.active_children() if child not in before]


def _name_deaths(pieces: Iterator[Any], children: list[Any], reader: Reader) -> Iterator[Any]:
    """Turn the DataLoader's own errors into one line that says who died, why, and over which file."""
    message = None
    try:
        yield from pieces
    except (RuntimeError, OSError, EOFError) as error:
        # A death shows as torch's own RuntimeError or, in the middle of a transfer, as a broken connection.
        message = _obituary(children, reader) or f"the loader failed: {_one_line(error)}{_advice(error)}"
    finally:
        del pieces  # ends the workers now; and below no traceback is chained, which would keep them alive
    if message:
        raise DataError(message)


def _obituary(children: list[Any], reader: Reader) -> str | None:
    """What to say of the first process that died on its own; None where none did."""
    deadline = time.monotonic() + 1.0
    while not (dead := [child for child in children if child.exitcode]):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    code, pid = dead[0].exitcode, dead[0].pid
    cause = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            cause = f"signal {signal.Signals(-code).name}"
    hint = {"signal SIGKILL": ": out of memory?", "signal SIGBUS": f": {_SHARED}"}.get(cause, "")
    busy = [int(sample) for owner, sample in reader.slots.tolist() if owner == pid]
    what = f" while reading {reader.source.where(busy[0])}" if busy and busy[0] >= 0 else ""
    return f"a loader process died{what} ({cause}{hint})"


def _shared(batch: Triple) -> Triple | str:
    """Moved to shared memory here: where torch does it, in a thread of its own, an error leaves the reader waiting."""
    try:
        for tensor in batch:
            tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        return f"the loader failed: {_one_line(error)}{_advice(error)}"
    return batch


def _advice(error: BaseException) -> str:
    """What to do if an error is about shared memory."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM)
    return f"; {_SHARED}" if full or "shared memory" in str(error) or "</torch_" in str(error) else ""


def _one_line(error: BaseException) -> str:
    """The last line: a worker's error arrives as the text of its traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _assemble(pieces: Iterator[Any], jobs: Jobs, device: torch.device) -> Iterator[Triple]:
    """Put pieces together to batches on the device. On CUDA the copies run on a stream of their own."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    try:
        for batch in jobs.batches:
            parts = _collect(pieces, len(range(*batch.indices(len(jobs.samples)))))
            if stream is None:
                yield _join(parts, device)
                continue
            with torch.cuda.stream(stream):
                joined = _join(parts, device)
                copied = stream.record_event()
            copied.synchronize()  # in the background: what is handed out has arrived, and its source may go
            yield joined
    finally:
        if hasattr(pieces, "close"):
            pieces.close()


def _collect(pieces: Iterator[Any], wanted: int) -> list[Triple]:
    parts: list[Triple] = []
    while wanted > 0:
        piece = next(pieces)
        if isinstance(piece, str):
            raise DataError(piece)
        parts.append(piece)
        wanted -= len(piece[2])
    return parts


def _join(parts: list[Triple], device: torch.device) -> Triple:
    if device.type == "cpu":
        images, labels, samples = (torch.cat(p) if len(p) > 1 else p[0] for p in zip(*parts))
        return images, labels, samples
    images = torch.empty((sum(len(p[0]) for p in parts), *parts[0][0].shape[1:]), device=device)
    start = 0
    for part in parts:
        images[start : start + len(part[0])].copy_(part[0], non_blocking=True)
        start += len(part[0])
    return images, torch.cat([p[1] for p in parts]).to(device), torch.cat([p[2] for p in parts]).to(device)


def _in_background(batches: Iterator[Triple]) -> Iterator[Triple]:
    """Run an iterator in a thread, ``_AHEAD`` items ahead; ends the thread when this generator is closed."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=_AHEAD)
    stopped = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def work(items: Iterator[Triple]) -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, args=(batches,), name="bench-loader", daemon=True)
    thread.start()
    del batches
    try:
        while True:
            item = ready.get()
            if item is end:
                return
            if isinstance(item, BaseException):
                raise item
            for tensor in item:
                if tensor.is_cuda:
                    tensor.record_stream(torch.cuda.current_stream(tensor.device))
            yield item
    finally:
        stopped.set()
        thread.join()


def _as_is(value: Any) -> Any:
    return value


def _begin_worker(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; the main process decides when its workers end, and if it is
    killed they end with it."""
    ignore_interrupts()
    die_with_parent()
