"""Executed exits: the modules and rows that ran are those of the counts, and the answers those of the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest
import torch
from msdnet_helpers import SMALL, built, exit_order, small_options
from torch import Tensor, nn

from bench.config.data import DataSpec
from bench.method import Executed
from methods.imta_msdnet.geometry import exit_cells, kept_after
from methods.imta_msdnet.method import IMTAMSDNet

NETWORKS = {
    "msdnet": small_options(isc="none", ofa="none"),
    "imta": small_options(),
    "min": small_options(prune="min"),
    "imagenet stem": {**small_options(exits=3, step_mode="even", base=2, step=2), "stem": "imagenet",
                      "growth_factor": [1, 2, 4, 4], "bottleneck_factor": [1, 2, 4, 4], "head_pool": "global"},
}  # fmt: skip


@cache
def network(name: str, lazy: bool) -> tuple[IMTAMSDNet, nn.Module, Tensor]:
    data = DataSpec("large", 10, 64) if name == "imagenet stem" else SMALL
    method, model = built(data, **NETWORKS[name], lazy=lazy)
    images = torch.randn(9, 3, data.image_size, data.image_size, generator=torch.Generator().manual_seed(2))
    return method, model.eval(), images


def watched(method: IMTAMSDNet, model: nn.Module, run: Callable[[], Executed]) -> tuple[Executed, list[int]]:
    """Run, and for every unit the number of samples that went through its module."""
    rows: Counter[str] = Counter()

    def watch(name: str) -> Callable[..., None]:
        def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            rows[name] += len(args[0])

        return count

    units = method.units(model)
    handles = [unit.module.register_forward_hook(watch(unit.name)) for unit in units]
    try:
        with torch.no_grad():
            executed = run()
    finally:
        for handle in handles:
            handle.remove()
    return executed, [rows[unit.name] for unit in units]


def leave_at(plan: list[int], seen: list[int] | None = None) -> Callable[[int, Tensor], Tensor]:
    """A decision that sends sample i out at exit plan[i], keeping track of who is still there."""
    here = list(range(len(plan)))

    def decide(k: int, logits: Tensor) -> Tensor:
        nonlocal here
        assert len(logits) == len(here)
        if seen is not None:
            seen.append(k)
        stay = torch.tensor([plan[i] > k for i in here])
        here = [i for i in here if plan[i] > k]
        return stay

    return decide


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_points(name: str, lazy: bool) -> None:
    method, model, images = network(name, lazy)
    with torch.no_grad():
        recorded = method.record(model, images)
    for place, point in enumerate(method.points(model)):
        executed, rows = watched(method, model, lambda point=point: method.execute(model, images, point))
        torch.testing.assert_close(executed.logits, recorded.logits[place], rtol=1e-4, atol=1e-5)
        assert torch.equal(executed.counts, recorded.counts[place].expand(9, -1))
        assert rows == executed.counts.sum(0).tolist()
        assert not executed.taken.any()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pattern", ["spread", "all first", "all last", "nobody in the middle"])
def test_a_decision_shrinks_the_batch(name: str, lazy: bool, pattern: str) -> None:
    method, model, images = network(name, lazy)
    last = method.config.exits - 1
    plan = {
        "spread": [min(i % 4, last) for i in (2, 0, 1, 3, 3, 0, 2, 1, 3)],
        "all first": [0] * 9,
        "all last": [last] * 9,
        "nobody in the middle": [0, last] * 4 + [0],
    }[pattern]
    with torch.no_grad():
        recorded = method.record(model, images)
    seen: list[int] = []
    executed, rows = watched(method, model, lambda: method.execute(model, images, leave_at(plan, seen)))
    assert executed.taken.tolist() == plan
    order = exit_order(method, model)
    expected = torch.stack([recorded.logits[order[k], i] for i, k in enumerate(plan)])
    torch.testing.assert_close(executed.logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(executed.logits.argmax(1), expected.argmax(1))
    assert torch.equal(executed.counts, torch.stack([recorded.counts[order[k]] for k in plan]))
    assert rows == executed.counts.sum(0).tolist()
    assert seen == list(range(min(max(plan) + 1, last)))


def test_one_sample() -> None:
    method, model, images = network("imta", True)
    executed = method.execute(model, images[:1], leave_at([2]))
    assert executed.taken.tolist() == [2]
    assert executed.logits.shape == (1, 10)


def test_lazy_evaluation_leaves_out_what_no_reached_exit_depends_on() -> None:
    """Every cell left out at exit k gets no gradient from exits up to k; every cell computed gets one."""
    method, model, images = network("imta", True)
    geometry, modules = model.trunk.geometry, dict(model.trunk.cells())
    full, lazy = exit_cells(geometry, False), exit_cells(geometry, True)
    assert {c for cells in lazy for c in cells} <= {c for cells in full for c in cells}
    for k in range(method.config.exits):
        model.zero_grad(set_to_none=True)
        model.trunk(images[:2])[k].square().sum().backward()
        reached = {
            cell
            for cells in full
            for cell in cells
            if any(p.grad is not None and bool(p.grad.any()) for p in modules[cell].parameters())
        }
        assert reached == {cell for cells in lazy[: k + 1] for cell in cells}
    left_out = sum(map(len, full[:1])) - len(lazy[0])
    assert left_out > 0


@pytest.mark.parametrize("lazy", [False, True])
def test_nothing_is_kept_longer_than_it_is_read(lazy: bool) -> None:
    _, model, _ = network("min", lazy)
    geometry = model.trunk.geometry
    kept = kept_after(geometry, lazy)
    assert kept[-1] == frozenset()
    cells = exit_cells(geometry, lazy)
    for k, keep in enumerate(kept):
        later = {read for group in cells[k + 1 :] for cell in group for read in geometry.reads(cell)}
        assert keep <= later
        computed_later = {cell for group in cells[k + 1 :] for cell in group}
        assert later <= keep | computed_later


def test_the_default_point_is_the_last_exit_and_the_order_of_exits_can_be_told() -> None:
    method, model, _ = network("imta", False)
    points = method.points(model)
    assert [p.name for p in points] == ["exit4", "exit1", "exit2", "exit3"]
    assert [p.settings["exit"] for p in points] == [3, 0, 1, 2]
    costs = method.record(model, torch.zeros(1, 3, 32, 32)).counts.sum(1).tolist()
    assert costs[0] == max(costs)
    assert costs[1:] == sorted(costs[1:])


def test_counts_follow_the_network_to_another_one_of_the_same_method() -> None:
    """Units name modules of the very network that is asked about, also after another was planned."""
    method, model, _ = network("imta", False)
    method.units(model)
    other = method.build(method.stages()[-1])
    assert method.units(other)[0].module is other.trunk.stem[0]
    assert method.units(model)[0].module is model.trunk.stem[0]


def test_a_foreign_network_is_refused() -> None:
    method, _, images = network("imta", False)
    with pytest.raises(TypeError, match="Linear"):
        method.record(nn.Linear(2, 2), images)
