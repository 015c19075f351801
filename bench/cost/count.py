"""Count one module by itself: fvcore's trace with our rules, checked by a second counter.

fvcore traces on the CPU and drops whatever no result depends on, so every tensor that any part of the module
returns is made a result. torch's FlopCounterMode runs the same module on the meta device, where fused
attention and LSTM fall apart into the products it knows; it sees every product that is carried out, also one
that the trace dropped, so a disagreement means that one of the two is blind and neither number is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.cost.copies import copy_with, quietly, tensors_in
from bench.cost.opaque import ModuleCosts
from bench.cost.opcall import OpCall
from bench.cost.rules import RULES, find_rule
from bench.cost.table import COLUMNS
from bench.errors import CostError

with quietly():
    # fvcore scripts a function while it is imported; torch announces the end of TorchScript each time
    from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS as FVCORE_HANDLES
    from fvcore.nn.jit_analysis import JitModelAnalysis

__all__ = ["count_module", "count_products"]

#: The two counters may differ by this part of the count, or by these MACs where a unit is tiny.
RELATIVE_SLACK = 1e-3
ABSOLUTE_SLACK = 16

aten = torch.ops.aten
_T = TypeVar("_T")


def count_module(module: nn.Module, inputs: Sequence[Tensor], name: str = "module") -> dict[str, int]:
    """Count one call ``module(*inputs)`` in evaluation mode.

    inputs: tensors on any device; meta tensors stand for zeros. name: what errors call the module.
    Returns ``macs`` (products), ``macs_elementwise`` (everything else that computes) and ``macs_fvcore``
    (products, and norms and pooling as fvcore weighs them), exact integers for this batch.
    The module, its mode, its buffers and the random state stay as they are.
    Raises CostError where an operation has no rule, the two counters disagree by more than 0.1 %, or the
    module cannot be run by itself.
    """
    with _surroundings(name):
        counted = _count_traced(_copy_to(module, "cpu"), tuple(_placed(x, "cpu") for x in inputs), name)
        checked = _count_again(_copy_to(module, "meta"), tuple(x.detach().to("meta") for x in inputs), name)
    if abs(counted["macs"] - checked) > max(RELATIVE_SLACK * max(counted["macs"], checked), ABSOLUTE_SLACK):
        raise CostError(
            f"unit '{name}': two counters disagree, {counted['macs']:,} MACs by rules and {checked:,} by "
            f"torch's FlopCounterMode; "
            + (
                "a product inside is computed but nothing returned depends on it (return it, or make it a unit)"
                if checked > counted["macs"]
                else "a rule counts too much, or torch has no formula (torch.utils.flop_counter."
                "register_flop_formula)"
            )
        )
    return counted


class _EveryOutput(nn.Module):
    """Calls a module and returns every tensor that it or any part of it returned, except for the inside of
    registered modules, which the trace does not know."""

    def __init__(self, module: nn.Module, costs: ModuleCosts) -> None:
        super().__init__()
        self.module = module
        self.costs = costs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        kept: dict[int, Tensor] = {}

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not self.costs.inside:
                kept.update((id(tensor), tensor) for tensor in tensors_in(output))

        hooks = [part.register_forward_hook(keep) for part in self.module.modules()]
        try:
            output = self.module(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
        if next(tensors_in(output), None) is None:
            raise CostError(f"returns no tensor but {type(output).__name__}")
        return tuple(kept.values())


class _Analysis(JitModelAnalysis):
    """fvcore's walk over the trace with its list of ignored operations replaced by our rules."""

    def _should_ignore_node(self, node: Any) -> bool:
        return False


def _count_traced(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> dict[str, int]:
    costs = ModuleCosts()
    analysis = _Analysis(_EveryOutput(module, costs), inputs)
    analysis.clear_op_handles().set_op_handle(**_handles()).tracer_warnings("none")
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with costs.watch(module):
        total = analysis.by_operator()
    unknown = analysis.unsupported_ops()
    if unknown:
        raise CostError(f"unit '{name}': {_describe_unknown(unknown)}")
    return {column: int(total[column]) + costs.said[column] for column in COLUMNS}


def _handles() -> dict[str, Callable[[list[Any], list[Any]], Counter[str]]]:
    names = [name for rule in RULES for name in (rule, f"{rule}_")]
    return {**{name: _handle(name) for name in names}, "prim::PythonOp._Opaque": _free}


def _free(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter()


def _handle(name: str) -> Callable[[list[Any], list[Any]], Counter[str]]:
    rule = find_rule(name)
    if rule is None or rule.reason is not None:
        return _free

    fvcore = FVCORE_HANDLES[name.removesuffix("_")] if rule.by_fvcore else None

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        if fvcore is not None:
            weight = int(fvcore(inputs, outputs))
            return Counter(macs_elementwise=weight, macs_fvcore=weight)
        call = OpCall(name, inputs, outputs)
        macs = rule.macs(call) if rule.macs else 0
        elementwise = rule.elementwise(call) if rule.elementwise else 0
        return Counter(macs=macs, macs_elementwise=elementwise, macs_fvcore=macs)

    return handle


def _describe_unknown(unknown: Counter[str]) -> str:
    names = ", ".join(f"{op} ({times}x)" for op, times in sorted(unknown.items()))
    first = min(unknown)
    python = first.startswith("prim::PythonOp.")
    what = first.removeprefix("prim::PythonOp.") if python else f'"{first}"'
    return (
        f"no rule says what {names} costs; add one with bench.cost.register_elementwise({what}), "
        f"register_headline({what}, macs) or register_free({what}, reason), or register_module_cost for "
        f"the module around it"
    )


def _count_again(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> int:
    """MACs by FlopCounterMode, which counts 2 FLOPs for each; inside of registered modules left out."""
    counter = _second_counter()
    costs = ModuleCosts(counter=counter)
    try:
        with costs.watch(module), counter:
            module(*inputs)
    except CostError:
        raise
    except Exception as error:
        raise CostError(
            f"unit '{name}': cannot be run on the meta device for the second count ({_first_line(error)}); a "
            "unit is called with tensors only and may not branch on their values"
        ) from error
    return _macs(counter, costs)


def count_products(model: nn.Module, run: Callable[[], _T]) -> tuple[int, _T]:
    """MACs of all products that ``run`` really carries out with the model, as the second counter sees them, and what
    it returned. Nothing is traced or copied: ``run`` may branch on values and work on any number of images."""
    counter = _second_counter()
    costs = ModuleCosts(counter=counter)
    with torch.no_grad(), _unfused(), costs.watch(model), counter:
        result = run()
    return _macs(counter, costs), result


def _second_counter() -> FlopCounterMode:
    formulas = {aten.mv: _mv_flops, aten.addmv: _addmv_flops, aten.addbmm: _addbmm_flops, aten.dot: _dot_flops}
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _macs(counter: FlopCounterMode, costs: ModuleCosts) -> int:
    return (counter.get_total_flops() - costs.hidden_flops) // 2 + costs.said["macs"]


@contextmanager
def _unfused() -> Iterator[None]:
    """Attention and LSTM on the CPU as the products that the counter knows, which one fused kernel would hide."""
    with quietly(), torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), _slow_attention():
        yield


def _mv_flops(matrix: Sequence[int], vector: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _addmv_flops(start: Any, matrix: Sequence[int], vector: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _addbmm_flops(start: Any, left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * left[0] * left[1] * left[2] * right[2]


def _dot_flops(left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * left[0]


@contextmanager
def _surroundings(name: str) -> Iterator[None]:
    """No gradients, no fused attention in evaluation mode, no drawn random numbers, no talk of TorchScript."""
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), quietly("torch.jit"), _slow_attention():
            yield
    except CostError as error:
        message = str(error)
        raise CostError(message if message.startswith("unit '") else f"unit '{name}': {message}") from None
    except Exception as error:  # whatever a module of somebody else raises
        raise CostError(f"unit '{name}': cannot be counted by itself ({_first_line(error)})") from error


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Attention modules call their parts one by one in evaluation mode too."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # torch puts the traceback of a traced module first and the reason last
    text = lines[-1] if lines and lines[0].startswith("The following operation failed") else " ".join(lines[:1])
    return f"{type(error).__name__}: {text}"[:300]


def _copy_to(module: nn.Module, device: str) -> nn.Module:
    """The module in evaluation mode on another device. Parameters that lie there already are shared, not
    copied: nothing is trained here."""

    def place(tensor: Tensor) -> Tensor:
        shared = isinstance(tensor, nn.Parameter) and tensor.device.type == device
        return tensor if shared else _placed(tensor, device)

    return copy_with(module, place).eval()


def _placed(tensor: Tensor, device: str) -> Tensor:
    """A copy on that device; what has no data becomes zeros on the CPU."""
    if tensor.device.type == "meta" and device == "cpu":
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    moved = tensor.detach().to(device)
    return moved.clone() if moved.data_ptr() == tensor.data_ptr() else moved
