"""Online normalisation as a module: evaluation, dtypes, copies, checkpoints, what it keeps, what it refuses."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from online_oracle import step_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from baselines.norms.online import OnlineNorm1d, OnlineNorm2d, OnlineNormBase
from bench.train.ema import ModelEMA

STREAMS = ("m", "var", "u", "v")


def streams(layer: OnlineNormBase) -> dict[str, Tensor]:
    return {name: getattr(layer.norm, name).clone() for name in STREAMS}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def trained(layer: OnlineNormBase, shape: tuple[int, ...] = (8, 4, 5, 5)) -> OnlineNormBase:
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
    for _ in range(3):
        layer(torch.randn(shape) * 2 + 1).square().sum().backward()
    return layer


@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_evaluation_uses_the_frozen_streams_and_keeps_the_compensation(ecm: str) -> None:
    layer = trained(OnlineNorm2d(4, ecm=ecm, clamp_val=1.0)).eval()
    before = streams(layer)
    x = torch.randn(6, 4, 5, 5) * 3
    z = layer(x)
    column = [t[:, None, None] for t in (before["m"], before["var"], layer.weight, layer.bias)]
    expected = (x - column[0]) / (column[1] + 1e-5).sqrt() * column[2] + column[3]
    if ecm == "ls":
        expected = expected / (expected.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(z.square().mean((1, 2, 3)).sqrt(), torch.ones(6), atol=1e-4, rtol=0)
    elif ecm == "ac":
        expected = expected.clamp(-1, 1)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(torch.cat([layer(sample[None]) for sample in x]), z)
    assert same(before, streams(layer))


def test_evaluation_is_differentiable_and_leaves_the_control_alone() -> None:
    layer = trained(OnlineNorm2d(4)).double().eval()
    before = streams(layer)
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert same(before, streams(layer))


def test_forward_moves_mean_and_variance_and_backward_the_control() -> None:
    layer = trained(OnlineNorm2d(4))
    start = streams(layer)
    with torch.no_grad():
        layer(torch.randn(3, 4, 5, 5))
    after = streams(layer)
    assert not torch.equal(after["m"], start["m"])
    assert not torch.equal(after["var"], start["var"])
    assert torch.equal(after["u"], start["u"])
    assert torch.equal(after["v"], start["v"])
    layer(torch.randn(3, 4, 5, 5)).sum().backward()
    assert not torch.equal(streams(layer)["u"], start["u"])


def test_two_forward_passes_before_their_backward_passes() -> None:
    """Each backward belongs to its own forward; the control visits them in the order of the backward calls."""
    torch.manual_seed(1)
    layer, alone = OnlineNorm2d(4), OnlineNorm2d(4)
    first, second = torch.randn(2, 5, 4, 3, 3)
    weights = torch.randn(5, 4, 3, 3)
    a, b = first.clone().requires_grad_(), second.clone().requires_grad_()
    za, zb = layer(a), layer(b)
    (za * weights).sum().backward()
    (zb * weights).sum().backward()
    found = [step_of(alone, x, weights) for x in (first, second)]
    torch.testing.assert_close(torch.stack([a.grad, b.grad]), torch.stack([f["dx"] for f in found]))
    torch.testing.assert_close(streams(layer), streams(alone))


def test_the_gradient_is_no_derivative_and_has_none() -> None:
    layer = OnlineNorm2d(2)
    x = torch.randn(3, 2, 2, 2, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|twice"):
        dx.sum().backward()


def test_the_output_can_be_changed_in_place() -> None:
    for affine in (True, False):
        for ecm in ("ls", "ac", "none"):
            layer = OnlineNorm2d(4, ecm=ecm, affine=affine)
            for x in (torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last)):
                F.relu(layer(x.requires_grad_()), inplace=True).sum().backward()


def test_frozen_parameters_and_inputs_without_gradient() -> None:
    layer = OnlineNorm2d(4).requires_grad_(False)
    x = torch.randn(3, 4, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None
    layer = OnlineNorm2d(4)
    layer(torch.randn(3, 4, 5, 5)).sum().backward()
    assert layer.weight.grad is not None


def test_a_copy_has_streams_of_its_own() -> None:
    layer = trained(OnlineNorm2d(4))
    twin = copy.deepcopy(layer)
    before = streams(layer)
    twin(torch.randn(3, 4, 5, 5)).sum().backward()
    assert same(before, streams(layer))
    assert not same(before, streams(twin))


def test_an_average_of_the_model_evaluates_averaged_streams() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), OnlineNorm2d(4))
    ema = ModelEMA(network, decay=0.5)
    ema.update(network)
    first = streams(network[1])
    network(torch.randn(6, 3, 5, 5) + 2).sum().backward()
    ema.update(network)
    for name, value in streams(ema.module[1]).items():
        torch.testing.assert_close(value, (first[name] + streams(network[1])[name]) / 2)


def test_resuming_from_a_checkpoint_continues_the_streams() -> None:
    layer = trained(OnlineNorm2d(4))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    resumed = OnlineNorm2d(4)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    x, gradient = torch.randn(5, 4, 3, 3), torch.randn(5, 4, 3, 3)
    assert same(step_of(layer, x, gradient), step_of(resumed, x, gradient))
    assert list(layer.state_dict()) == ["weight", "bias", "norm.m", "norm.var", "norm.u", "norm.v"]
    whole = io.BytesIO()
    torch.save(layer, whole)
    whole.seek(0)
    assert same(streams(layer), streams(torch.load(whole, weights_only=False)))


def test_resetting() -> None:
    layer = trained(OnlineNorm2d(4))
    layer.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(layer.state_dict().values(), OnlineNorm2d(4).state_dict().values()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_half_precision_activations(ecm: str, dtype: torch.dtype) -> None:
    """Streams and parameter gradients as in float32 on the same (rounded) numbers; activations rounded once."""
    torch.manual_seed(2)
    half, full = OnlineNorm2d(4, ecm=ecm), OnlineNorm2d(4, ecm=ecm)
    for _ in range(3):
        x, gradient = torch.randn(9, 4, 6, 6).to(dtype), torch.randn(9, 4, 6, 6).to(dtype)
        found, expected = step_of(half, x, gradient), step_of(full, x.float(), gradient.float())
        assert found["z"].dtype == found["dx"].dtype == dtype
        unit = torch.finfo(dtype).eps
        for name in ("z", "dx"):
            torch.testing.assert_close(found[name].float(), expected[name], rtol=unit, atol=unit / 100)
        for name in ("d_gamma", "d_beta", *STREAMS):
            torch.testing.assert_close(found[name], expected[name], rtol=2e-5, atol=2e-5)
    half.eval()
    assert half(x).dtype == dtype
    torch.testing.assert_close(half(x).float(), full.eval()(x.float()), rtol=4 * unit, atol=4 * unit)


def test_under_autocast_the_streams_stay_exact() -> None:
    torch.manual_seed(3)
    layers = OnlineNorm2d(4), OnlineNorm2d(4)
    x = torch.randn(64, 4, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = layers[0](x)
        z.square().sum().backward()
    layers[1](x).square().sum().backward()
    assert z.dtype == torch.float32
    assert same(streams(layers[0]), streams(layers[1]))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), OnlineNorm2d(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = network(torch.randn(2, 3, 8, 8))
    assert z.dtype == torch.bfloat16
    assert network[1].norm.m.dtype == torch.float32


def test_casting_a_model_to_half_leaves_the_streams_wide() -> None:
    layer = trained(OnlineNorm2d(4))
    before = streams(layer)
    layer.bfloat16()
    assert layer.weight.dtype == torch.bfloat16
    assert same(before, streams(layer))
    x = torch.randn(3, 4, 5, 5, dtype=torch.bfloat16, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad.dtype == x.grad.dtype == torch.bfloat16
    assert layer.eval()(x).dtype == torch.bfloat16
    assert layer.double().norm.m.dtype == torch.float64
    assert layer.to("meta").norm.u.is_meta


@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_only_the_input_and_numbers_per_sample_and_channel_are_kept(ecm: str) -> None:
    layer = OnlineNorm2d(8, ecm=ecm)
    x = torch.randn(16, 8, 12, 12, requires_grad=True)
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    own = {p.data_ptr() for p in layer.parameters()}
    assert [t.data_ptr() for t in saved].count(x.data_ptr()) == 1
    rest = [t for t in saved if t.data_ptr() != x.data_ptr() and t.data_ptr() not in own]
    assert sum(t.untyped_storage().nbytes() for t in rest) <= (4 * 16 * 8 + 16) * 4


def test_recomputing_a_forward_pass_moves_the_streams_twice() -> None:
    """A limitation, stated: activation checkpointing runs a training forward again."""
    torch.manual_seed(4)
    layer, twice = OnlineNorm2d(4), OnlineNorm2d(4)
    x = torch.randn(5, 4, 3, 3, requires_grad=True)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    twice(x)
    twice(x)
    torch.testing.assert_close(layer.norm.m, twice.norm.m)


def test_an_empty_batch_leaves_everything_as_it_is() -> None:
    layer = trained(OnlineNorm2d(4))
    before = streams(layer)
    assert layer(torch.empty(0, 4, 5, 5)).shape == (0, 4, 5, 5)
    assert same(before, streams(layer))


def test_a_layer_of_double_input_and_single_state() -> None:
    layer = OnlineNorm2d(4)
    z = layer(torch.randn(3, 4, 5, 5, dtype=torch.float64))
    assert z.dtype == torch.float64
    assert layer.norm.m.dtype == torch.float32


def test_the_one_dimensional_layer_is_the_other_on_single_pixels() -> None:
    torch.manual_seed(5)
    for ecm in ("ls", "ac", "none"):
        flat, image = OnlineNorm1d(6, ecm=ecm).double(), OnlineNorm2d(6, ecm=ecm).double()
        x, gradient = torch.randn(2, 7, 6, dtype=torch.float64)
        found = step_of(flat, x, gradient)
        expected = step_of(image, x[..., None, None], gradient[..., None, None])
        torch.testing.assert_close({k: v.flatten() for k, v in found.items()},
                                   {k: v.flatten() for k, v in expected.items()})  # fmt: skip
        torch.testing.assert_close(flat.eval()(x), image.eval()(x[..., None, None]).flatten(1))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(OnlineNorm2d, (2, 3, 5, 5)), (OnlineNorm2d, (2, 4, 5)), (OnlineNorm1d, (2, 4, 5)), (OnlineNorm1d, (2, 5))],
)
def test_inputs_that_do_not_fit(kind: type[OnlineNormBase], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected an input of shape \[N, 4"):
        kind(4)(torch.zeros(shape))


@pytest.mark.parametrize(("options", "message"), [
    ({"afwd": 1.0}, "afwd"), ({"abkw": -0.1}, "abkw"), ({"ecm": "lc"}, "ecm"),
])  # fmt: skip
def test_options_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnlineNorm2d(4, **options)


def test_what_it_says_of_itself() -> None:
    assert repr(OnlineNorm2d(4, ecm="ac")).startswith("OnlineNorm2d(\n  4, afwd=0.999, abkw=0.99, eps=1e-05, ecm=ac")
