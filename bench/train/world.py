"""The processes that train one run together. One process is the ordinary case."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from bench.errors import ConfigError


@dataclass(frozen=True)
class World:
    """rank of this process, their number, and the rank on this machine (its GPU)."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes results and prints."""
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process: a decision that all must take together."""
        if self.size == 1:
            return flag
        value = torch.tensor([int(flag)], device=device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())


def is_distributed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun (or another launcher of that kind) started this process."""
    return int(environment.get("WORLD_SIZE", "1") or 1) > 1


def join_world(device: str) -> World:
    """Join the processes that torchrun started: nccl on CUDA, gloo on the CPU. Alone without torchrun."""
    if not is_distributed():
        return World()
    try:
        world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]))
    except (KeyError, ValueError) as error:
        raise ConfigError(f"WORLD_SIZE is set but {error} is not a number: start through torchrun") from None
    if not dist.is_initialized():
        if device == "cuda":
            torch.cuda.set_device(world.local_rank)
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
    return world


def lost_a_process(error: Exception) -> bool:
    """Whether an error is another process's end, noticed in the middle of talking to it."""
    if isinstance(error, getattr(dist, "DistError", ())):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and any(w in words for w in ("gloo", "NCCL", "Connection closed"))


def leave_world() -> None:
    """Leave in order, so that no process waits for another's socket."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
