"""Online normalisation in several processes: rank 0's streams count, as rank 0's running statistics of batch norm."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from online_oracle import step_of
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from baselines.norms.online import OnlineNorm2d

STREAMS = ("m", "var", "u", "v")


def network() -> nn.Module:
    torch.manual_seed(0)
    return OnlineNorm2d(4, 0.9, 0.8)


def shard(rank: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 * step + rank)
    x, gradient = torch.randn(2, 6, 4, 3, 3, generator=generator)
    return x + rank, gradient


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = DistributedDataParallel(network())
    history = []
    for step in range(3):
        x, gradient = shard(rank, step)
        (model(x) * gradient).sum().backward()
        history.append({name: getattr(model.module.norm, name).clone() for name in STREAMS})
    torch.save(history, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_every_step_starts_from_the_streams_of_rank_0(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = network()
    for step in range(3):
        beside = copy.deepcopy(alone)  # rank 1 starts the step with rank 0's streams
        for layer, rank, history in ((alone, 0, first), (beside, 1, second)):
            found = step_of(layer, *shard(rank, step))
            torch.testing.assert_close(history[step], {name: found[name] for name in STREAMS})
    assert (first[-1]["m"] - second[-1]["m"]).abs().max() > 0.1
