"""Counting a module by itself: nothing is dropped, nothing unknown passes, nothing of the caller's changes."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fvcore_alone import fvcore_alone
from torch import Tensor, nn

from bench.cost import (
    count_module,
    register_elementwise,
    register_free,
    register_headline,
    register_module_cost,
)
from bench.cost.opaque import MODULE_COSTS
from bench.cost.rules import RULES
from bench.errors import CostError

CONV = 16 * 16 * 9 * 32 * 32  # 2,359,296
IMAGE = torch.zeros(1, 16, 32, 32)


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    rules, modules = dict(RULES), dict(MODULE_COSTS)
    yield
    RULES.clear()
    RULES.update(rules)
    MODULE_COSTS.clear()
    MODULE_COSTS.update(modules)


def conv() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3, padding=1, bias=False)


class Gated(nn.Module):
    """A gate that only steers control flow."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.gate, self.block, self.threshold = conv(), conv(), threshold

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if self.gate(x).mean() > self.threshold else x


@pytest.mark.parametrize(("threshold", "alone"), [(-1.0, CONV), (1.0, 0)], ids=["run", "skipped"])
def test_a_gate_is_paid_since_it_is_a_unit(threshold: float, alone: int) -> None:
    """fvcore drops the gate from the whole network, and with the block skipped the network costs nothing."""
    network = Gated(threshold)
    assert fvcore_alone(network, IMAGE) == alone
    assert count_module(network.gate, [IMAGE])["macs"] == CONV
    assert count_module(network.block, [IMAGE])["macs"] == CONV


def test_a_unit_that_branches_on_values_is_refused() -> None:
    with pytest.raises(CostError, match=r"unit 'net'.*meta device.*branch on their values"):
        count_module(Gated(0.0), [IMAGE], "net")


class Exits(nn.Module):
    """Three blocks with a head each; returns one of them, or all."""

    def __init__(self, returned: int | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(conv() for _ in range(3))
        self.heads = nn.ModuleList(conv() for _ in range(3))
        self.returned = returned

    def forward(self, x: Tensor) -> Any:
        outs = []
        for block, head in zip(self.blocks, self.heads):
            x = block(x)
            outs.append({"logits": head(x)})
        return outs if self.returned is None else outs[self.returned]["logits"]


@pytest.mark.parametrize("returned", [0, 2, None])
def test_heads_that_are_not_returned_are_counted(returned: int | None) -> None:
    if returned is not None:
        assert fvcore_alone(Exits(returned), IMAGE) == (returned + 2) * CONV
    assert count_module(Exits(returned), [IMAGE])["macs"] == 6 * CONV


class LostProduct(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x @ y
        return x


def test_a_product_that_the_trace_drops_is_an_error() -> None:
    with pytest.raises(CostError, match=r"'lost'.*0 MACs by rules and 24,000.*return it"):
        count_module(LostProduct(), [torch.zeros(20, 30), torch.zeros(30, 40)], "lost")


def test_a_rule_that_counts_too_much_is_an_error() -> None:
    register_headline("aten::mm", lambda call: 2 * call.size_out() * call.shape(0)[1], replace=True)

    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.mm(x, x)

    with pytest.raises(CostError, match="two counters disagree, 54,000 MACs by rules and 27,000"):
        count_module(Product(), [torch.zeros(30, 30)])


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        return x * factor, (x @ x.transpose(-1, -2)).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None


class UsesFunction(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return Double.apply(x, 2.0)


def test_an_unknown_operation_names_unit_operation_and_remedy() -> None:
    with pytest.raises(CostError) as error:
        count_module(UsesFunction(), [torch.zeros(20, 30)], "gate3")
    message = str(error.value)
    assert "unit 'gate3'" in message
    assert "prim::PythonOp.Double (1x)" in message
    assert "register_elementwise(Double)" in message
    assert "\n" not in message


def test_a_custom_function_can_be_registered() -> None:
    register_headline(Double, lambda call: 20 * 20 * 30, elementwise=lambda call: call.size_out())
    counted = count_module(UsesFunction(), [torch.zeros(20, 30)])
    assert counted == {"macs": 12_000, "macs_elementwise": 600, "macs_fvcore": 12_000}


def test_what_a_custom_function_says_is_checked_too() -> None:
    register_elementwise(Double)
    with pytest.raises(CostError, match="disagree, 0 MACs by rules and 12,000"):
        count_module(UsesFunction(), [torch.zeros(20, 30)])


class Special(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def test_an_operation_of_torch_without_rule_is_refused_until_registered() -> None:
    with pytest.raises(CostError, match=r"register_elementwise\(\"aten::special_bessel_j0\"\)"):
        count_module(Special(), [torch.zeros(3, 4)])
    register_elementwise("aten::special_bessel_j0", lambda call: 7 * call.size_out())
    assert count_module(Special(), [torch.zeros(3, 4)])["macs_elementwise"] == 84


def test_registrations_are_deliberate() -> None:
    with pytest.raises(CostError, match="has a rule already"):
        register_elementwise("aten::linear")
    with pytest.raises(CostError, match="'relu' is no operation"):
        register_elementwise("relu")
    with pytest.raises(CostError, match="reason"):
        register_free("mylib::noop", " ")
    register_free("mylib::noop", "changes nothing")


class Repeat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.size(0))):
            x = torch.mm(x, x)
        return x


def test_a_scripted_part_is_refused() -> None:
    """What runs inside of a script cannot be seen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Repeat())
    with pytest.raises(CostError, match=r"unit 'loop': cannot be counted by itself .*ScriptModule"):
        count_module(nn.Sequential(scripted), [torch.zeros(30, 30)], "loop")


class OddNorm(nn.Module):
    """A layer that computes otherwise than its cost says, with products of its own."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) - x


def test_a_registered_module_speaks_for_itself() -> None:
    @register_module_cost(OddNorm)
    def cost(module: OddNorm, inputs: tuple[Tensor, ...], output: Tensor) -> dict[str, int]:
        assert inputs[0].shape == output.shape
        assert not module.training
        return {"macs_elementwise": 2 * output.numel(), "macs_fvcore": 3 * output.numel()}

    class Kind(OddNorm):
        pass

    network = nn.Sequential(nn.Linear(30, 40), Kind(40), nn.ReLU(), nn.Linear(40, 50))
    counted = count_module(network, [torch.zeros(6, 30)])
    products = 6 * (30 * 40 + 40 * 50)
    assert counted == {
        "macs": products,
        "macs_elementwise": 2 * 240 + 240,
        "macs_fvcore": products + 3 * 240,
    }
    assert "forward" not in vars(network[1]), "the caller's module is not touched"


def test_a_registered_product_is_in_both_counters_and_in_fvcores_column() -> None:
    register_module_cost(OddNorm)(lambda module, inputs, output: {"macs": 77_000})
    outer = nn.Sequential(OddNorm(40), OddNorm(40))
    assert count_module(outer, [torch.zeros(6, 40)]) == {
        "macs": 154_000, "macs_elementwise": 0, "macs_fvcore": 154_000,
    }  # fmt: skip


def test_the_outermost_registered_module_speaks() -> None:
    register_module_cost(nn.Linear)(lambda module, inputs, output: {"macs": 1_000_000})
    register_module_cost(OddNorm)(lambda module, inputs, output: {"macs": 5})
    assert count_module(OddNorm(40), [torch.zeros(6, 40)])["macs"] == 5


@pytest.mark.parametrize("said", [{"flops": 3}, {"macs": -1}, {"macs": 2.5}])
def test_what_a_registered_module_says_must_make_sense(said: dict[str, Any]) -> None:
    register_module_cost(OddNorm)(lambda module, inputs, output: said)
    with pytest.raises(CostError, match="cost rule of OddNorm"):
        count_module(OddNorm(40), [torch.zeros(6, 40)])


def test_only_module_classes_have_module_costs() -> None:
    with pytest.raises(CostError, match="takes a module class"):
        register_module_cost(torch.relu)  # type: ignore[arg-type]


class Busy(nn.Module):
    """Everything a counter could disturb: modes, a buffer that moves, dropout, plain tensor attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.plain = torch.ones(16, 1, 1)
        self.listed = [torch.ones(16, 1, 1, requires_grad=True) * 2]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.drop(self.norm(self.conv(x))) * self.plain * self.listed[0]


def test_nothing_of_the_callers_changes() -> None:
    network = Busy().train()
    network.norm.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    first = count_module(network, [IMAGE])
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    assert torch.backends.mha.get_fastpath_enabled() == fastpath
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert count_module(network.eval(), [IMAGE]) == first, "the mode of the caller does not matter"


def test_counting_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        count_module(nn.Sequential(conv(), nn.ReLU(), nn.Identity()), [IMAGE])
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_inputs_may_have_no_data() -> None:
    meta = torch.empty(1, 16, 32, 32, device="meta")
    assert count_module(conv(), [meta]) == count_module(conv(), [IMAGE])
    assert count_module(conv().to("meta"), [meta])["macs"] == CONV, "nor must the parameters"


def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(CostError, match=r"unit 'head'.*lazy parameters"):
        count_module(nn.LazyLinear(10), [torch.zeros(2, 3)], "head")


def test_a_module_that_fails_is_one_line() -> None:
    with pytest.raises(CostError, match=r"unit 'stem': cannot be counted by itself \(RuntimeError") as error:
        count_module(conv(), [torch.zeros(1, 3, 8, 8)], "stem")
    assert "\n" not in str(error.value)


def test_a_unit_must_return_a_tensor() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(CostError, match="unit 'gate': returns no tensor but NoneType"):
        count_module(Nothing(), [IMAGE], "gate")


def test_shared_and_reused_parts_count_each_time() -> None:
    part = conv()
    assert count_module(nn.Sequential(part, nn.ReLU(inplace=True), part), [IMAGE])["macs"] == 2 * CONV


def test_counts_inside_inference_mode() -> None:
    with torch.inference_mode():
        assert count_module(conv(), [torch.zeros(1, 16, 32, 32)])["macs"] == CONV
