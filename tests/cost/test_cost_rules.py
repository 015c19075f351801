"""Each operation against numbers computed by hand; sizes are large enough that the slack hides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.cost import count_module


class Call(nn.Module):
    """A function of (parts, *inputs) as a module, with the modules it uses."""

    def __init__(self, function: Callable[..., Any], part: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function
        self.part = part

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.part, *inputs) if self.part is not None else self.function(*inputs)


def count(function: Callable[..., Any], *shapes: tuple[int, ...], part: nn.Module | None = None) -> dict[str, int]:
    return count_module(Call(function, part), [torch.zeros(shape) for shape in shapes])


def apply(part: nn.Module, *inputs: Tensor) -> Any:
    return part(*inputs)


PRODUCTS = {
    "conv2d": (apply, nn.Conv2d(8, 12, 3, padding=1), [(1, 8, 10, 10)], 8 * 12 * 9 * 100),
    "conv2d bias costs nothing": (apply, nn.Conv2d(8, 12, 1), [(1, 8, 10, 10)], 8 * 12 * 100),
    "conv2d strided": (apply, nn.Conv2d(8, 12, 3, stride=2, padding=1), [(1, 8, 9, 9)], 8 * 12 * 9 * 25),
    "conv2d grouped": (apply, nn.Conv2d(8, 12, 3, padding=1, groups=4), [(1, 8, 10, 10)], 2 * 12 * 9 * 100),
    "conv2d depthwise": (apply, nn.Conv2d(16, 16, 3, groups=16), [(1, 16, 10, 10)], 16 * 9 * 64),
    "conv2d same": (apply, nn.Conv2d(8, 12, 3, padding="same"), [(1, 8, 10, 10)], 8 * 12 * 9 * 100),
    "conv2d batch of 3": (apply, nn.Conv2d(8, 12, 3), [(3, 8, 10, 10)], 3 * 8 * 12 * 9 * 64),
    "conv2d no batch axis": (apply, nn.Conv2d(8, 12, 3), [(8, 10, 10)], 8 * 12 * 9 * 64),
    "conv1d": (apply, nn.Conv1d(8, 12, 5, padding=2), [(1, 8, 30)], 8 * 12 * 5 * 30),
    "conv3d": (apply, nn.Conv3d(4, 6, 3), [(1, 4, 6, 6, 6)], 4 * 6 * 27 * 64),
    # each input pixel meets every weight of its group once
    "transposed": (apply, nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2), [(1, 8, 7, 7)], 49 * 8 * 3 * 9),
    "linear": (apply, nn.Linear(40, 30), [(2, 5, 40)], 2 * 5 * 40 * 30),
    "mm": (torch.mm, None, [(20, 30), (30, 40)], 24_000),
    "bmm": (torch.bmm, None, [(2, 20, 30), (2, 30, 40)], 48_000),
    "matmul": (torch.matmul, None, [(2, 20, 30), (30, 40)], 48_000),
    "matmul broadcast left": (torch.matmul, None, [(20, 30), (2, 30, 40)], 48_000),
    "matmul vector left": (torch.matmul, None, [(300,), (300, 40)], 12_000),
    "matmul vector right": (torch.matmul, None, [(2, 20, 30), (30,)], 1_200),
    "mv": (torch.mv, None, [(200, 300), (300,)], 60_000),
    "dot": (torch.dot, None, [(3000,), (3000,)], 3_000),
    "addmm": (torch.addmm, None, [(40,), (20, 30), (30, 40)], 24_000),
    "baddbmm": (torch.baddbmm, None, [(1, 20, 40), (2, 20, 30), (2, 30, 40)], 48_000),
    "addbmm": (torch.addbmm, None, [(20, 40), (2, 20, 30), (2, 30, 40)], 48_000),
    "addmv": (torch.addmv, None, [(200,), (200, 300), (300,)], 60_000),
    "tensordot": (
        lambda x, y: torch.tensordot(x, y, dims=([1, 2], [2, 0])),
        None,
        [(20, 3, 40), (40, 50, 3)],
        20 * 3 * 40 * 50,
    ),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_products(case: str) -> None:
    function, part, shapes, macs = PRODUCTS[case]
    counted = count(function, *shapes, part=part)
    assert counted == {"macs": macs, "macs_elementwise": 0, "macs_fvcore": macs}


EINSUM = {
    "abc,abd->acd": ([(2, 30, 4), (2, 30, 5)], 2 * 30 * 4 * 5, 0),
    "bhid,bhjd->bhij": ([(2, 4, 18, 16), (2, 4, 19, 16)], 2 * 4 * 18 * 19 * 16, 0),
    "...ij,...jk->...ik": ([(7, 20, 30), (30, 40)], 7 * 20 * 30 * 40, 0),
    "bij,jk": ([(2, 30, 40), (40, 50)], 2 * 30 * 40 * 50, 0),
    # left to right, whatever would be cheaper
    "ij,jk,kl->il": ([(20, 30), (30, 40), (40, 50)], 20 * 30 * 40 + 20 * 40 * 50, 0),
    "ij,jk,kl,lm->im": ([(20, 30), (30, 4), (4, 50), (50, 6)], 20 * 30 * 4 + 20 * 4 * 50 + 20 * 50 * 6, 0),
    # what one operand has alone is summed before; nothing to sum over is a multiplication
    "ijk,j->k": ([(20, 30, 40), (30,)], 30 * 40, 0),
    "i,j->ij": ([(200,), (300,)], 0, 60_000),
    "ij->ji": ([(20, 30)], 0, 0),
}


@pytest.mark.parametrize("equation", EINSUM)
def test_einsum(equation: str) -> None:
    shapes, macs, elementwise = EINSUM[equation]
    counted = count(lambda *xs: torch.einsum(equation, *xs), *shapes)
    assert (counted["macs"], counted["macs_elementwise"]) == (macs, elementwise)


def test_einsum_along_a_path() -> None:
    """opt_einsum's paths: results go to the end of the list."""
    shapes = [(20, 30), (40, 50), (30, 40), (50, 60)]
    counted = count(lambda *xs: torch._VF.einsum("ij,kl,jk,lm->im", xs, path=[1, 2, 1, 2, 0, 1]), *shapes)
    # jk,kl->jl, then lm->jm, then ij
    assert counted["macs"] == 30 * 40 * 50 + 30 * 50 * 60 + 20 * 30 * 60


def test_lstm_of_the_skipnet_gate_costs_800() -> None:
    """fvcore says 0; FlopCounterMode says 0 on the CPU."""
    counted = count(apply, (1, 1, 10), part=nn.LSTM(10, 10))
    assert counted == {"macs": 800, "macs_elementwise": 130, "macs_fvcore": 800}


@pytest.mark.parametrize(
    ("fused", "cell"),
    [(nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell), (nn.RNN, nn.RNNCell)],
    ids=["lstm", "gru", "rnn"],
)
def test_a_fused_step_costs_what_the_cell_spells_out(fused: type[nn.Module], cell: type[nn.Module]) -> None:
    assert count(apply, (1, 6, 40), part=fused(40, 50)) == count(apply, (6, 40), part=cell(40, 50))


def test_recurrent_layers_directions_and_projection() -> None:
    steps = 5 * 3
    lstm = nn.LSTM(10, 12, num_layers=2, bidirectional=True, proj_size=4)
    # first layer reads 10, second the 8 of both directions; each multiplies by its own state of 4
    per_step = 2 * (48 * 10 + 48 * 4 + 4 * 12) + 2 * (48 * 8 + 48 * 4 + 4 * 12)
    counted = count(apply, (5, 3, 10), part=lstm)
    assert counted["macs"] == steps * per_step
    assert counted["macs_elementwise"] == steps * 4 * 13 * 12
    gru = nn.GRU(10, 12, num_layers=2, bidirectional=True, batch_first=True, bias=False)
    counted = count(apply, (3, 5, 10), part=gru)
    assert counted["macs"] == steps * (2 * (36 * 10 + 36 * 12) + 2 * (36 * 24 + 36 * 12))
    assert counted["macs_elementwise"] == steps * 4 * 10 * 12


def test_attention_products_and_elementwise() -> None:
    attend = F.scaled_dot_product_attention
    counted = count(attend, (2, 4, 50, 16), (2, 4, 60, 16), (2, 4, 60, 8))
    scores, query = 2 * 4 * 50 * 60, 2 * 4 * 50 * 16
    assert counted["macs"] == counted["macs_fvcore"] == scores * (16 + 8)
    assert counted["macs_elementwise"] == query + scores
    causal = count(lambda q, k, v: attend(q, k, v, is_causal=True), *[(2, 4, 50, 16)] * 3)
    assert causal["macs"] == 2 * 4 * 50 * 50 * 32, "a mask saves nothing"
    assert causal["macs_elementwise"] == query + 2 * 2 * 4 * 50 * 50


def test_grouped_queries_pay_for_every_query_head() -> None:
    counted = count(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        (2, 4, 50, 16), (2, 2, 60, 16), (2, 2, 60, 16),
    )  # fmt: skip
    assert counted["macs"] == 2 * 4 * 50 * 60 * 32


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_in_evaluation(need_weights: bool) -> None:
    """The study's case: fvcore sees the projections only (3.21 M), FlopCounterMode nothing at all."""
    attention = nn.MultiheadAttention(64, 4, batch_first=True)
    counted = count(lambda m, x: m(x, x, x, need_weights=need_weights)[0], (1, 196, 64), part=attention)
    assert counted["macs"] == 4 * 196 * 64 * 64 + 2 * 196 * 196 * 64 == 8_128_512


ELEMENTWISE: dict[str, tuple[Any, Any, list[tuple[int, ...]], int]] = {
    # fvcore's conventions: running statistics 2 per element, 1 without affine; other norms 5 and 4
    "batch norm": (apply, nn.BatchNorm2d(6), [(2, 6, 5, 5)], 2 * 300),
    "batch norm, no affine": (apply, nn.BatchNorm2d(6, affine=False), [(2, 6, 5, 5)], 300),
    "batch norm, batch statistics": (apply, nn.BatchNorm2d(6, track_running_stats=False), [(2, 6, 5, 5)], 5 * 300),
    "group norm": (apply, nn.GroupNorm(2, 6), [(2, 6, 5, 5)], 5 * 300),
    "layer norm": (apply, nn.LayerNorm([6, 5, 5]), [(2, 6, 5, 5)], 5 * 300),
    "layer norm, no affine": (apply, nn.LayerNorm(5, elementwise_affine=False), [(2, 6, 5, 5)], 4 * 300),
    "instance norm": (apply, nn.InstanceNorm2d(6, affine=True), [(2, 6, 5, 5)], 5 * 300),
    "instance norm, no affine": (apply, nn.InstanceNorm2d(6), [(2, 6, 5, 5)], 4 * 300),
    "global pooling": (apply, nn.AdaptiveAvgPool2d(1), [(2, 6, 5, 5)], 300),
    "bilinear": (apply, nn.Upsample(scale_factor=2, mode="bilinear"), [(1, 6, 5, 5)], 4 * 600),
    # ours
    "rms norm": (apply, nn.RMSNorm(5), [(2, 6, 5, 5)], 4 * 300),
    "max pooling": (apply, nn.MaxPool2d(3, 2, 1), [(2, 6, 8, 8)], 2 * 6 * 64),
    "average pooling": (apply, nn.AvgPool2d(2), [(2, 6, 8, 8)], 2 * 6 * 64),
    "mean": (lambda x: x.mean((2, 3)), None, [(2, 6, 5, 5)], 300),
    "relu": (apply, nn.ReLU(), [(2, 6, 5, 5)], 300),
    "relu in place": (lambda x: F.relu(x + 1, inplace=True), None, [(2, 6, 5, 5)], 600),
    "softmax": (lambda x: x.softmax(1), None, [(2, 6, 5, 5)], 300),
    "broadcast": (lambda x, y: x * y, None, [(2, 6, 5, 5), (6, 1, 1)], 300),
    "a norm in plain operations": (
        lambda x: (x - x.mean((2, 3), keepdim=True)) * torch.rsqrt(x.var((2, 3), keepdim=True) + 1e-5),
        None,
        [(2, 6, 5, 5)],
        300 + 300 + 300 + 12 + 12 + 300,
    ),
    # nothing is computed
    "dropout": (apply, nn.Dropout(0.5), [(2, 6, 5, 5)], 0),
    "views": (lambda x: F.pad(x.flatten(1)[:, ::2].t()[None], (1, 1)).contiguous(), None, [(2, 6, 5, 5)], 0),
    "shapes": (lambda x: x.view(x.shape[0] * x.shape[1] // 2, -1), None, [(2, 6, 5, 5)], 0),
    "comparison": (lambda x: (x > 0.5).long() + 1, None, [(2, 6, 5, 5)], 0),
}


@pytest.mark.parametrize("case", ELEMENTWISE)
def test_elementwise(case: str) -> None:
    function, part, shapes, expected = ELEMENTWISE[case]
    counted = count(function, *shapes, part=part)
    assert (counted["macs"], counted["macs_elementwise"]) == (0, expected)


def test_fvcore_column_has_fvcores_norms_and_nothing_of_our_own() -> None:
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    counted = count_module(block, [torch.zeros(1, 3, 10, 10)])
    conv, norm, pool = 3 * 8 * 9 * 64, 2 * 8 * 64, 8 * 16
    assert counted["macs_fvcore"] == conv + norm + pool
    assert counted["macs_elementwise"] == norm + 8 * 64 + 8 * 64 + pool
