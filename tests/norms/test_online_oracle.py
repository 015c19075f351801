"""Online normalisation against published vectors and against the sequential algorithm in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from online_oracle import Oracle, relative_errors, step_of
from torch import Tensor

from baselines.norms import online_function, online_passes
from baselines.norms.online import OnlineNorm1d, OnlineNorm2d, OnlineNormBase

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
PUBLISHED = (1023 / 1024, 127 / 128)  # CIFAR-10
SHARP = (511 / 512, 15 / 16)  # CIFAR-100


def make(
    shape: tuple[int, ...],
    decays: tuple[float, float],
    ecm: str,
    affine: bool = True,
    dtype: torch.dtype = torch.float64,
) -> tuple[OnlineNormBase, Oracle]:
    channels = shape[1]
    kind = OnlineNorm2d if len(shape) == 4 else OnlineNorm1d
    layer = kind(channels, *decays, ecm=ecm, affine=affine).to(dtype)
    gamma = beta = None
    if affine:
        gamma, beta = (torch.randn(2, channels) + torch.tensor([[1.0], [0.0]])).double()
        with torch.no_grad():
            layer.weight.copy_(gamma)
            layer.bias.copy_(beta)
    return layer, Oracle(channels, *decays, ecm=ecm, gamma=gamma, beta=beta)


def check_steps(
    layer: OnlineNormBase,
    oracle: Oracle,
    shapes: list[tuple[int, ...]],
    amplitude: float = 3.0,
    lay_out: Callable[[Tensor], Tensor] = lambda x: x,
) -> None:
    """Each shape is one training step; everything it computes and leaves behind is compared."""
    dtype = layer.norm.m.dtype
    for number, shape in enumerate(shapes):
        x, gradient = (torch.randn(shape) * amplitude + 1), torch.randn(shape)
        found = step_of(layer, lay_out(x.to(dtype)), lay_out(gradient.to(dtype)))
        errors = relative_errors(found, oracle.step(x.double(), gradient.double()))
        assert max(errors.values()) <= TOLERANCE[dtype], (number, errors)


def tensor(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_published_vectors_without_affine_and_compensation() -> None:
    layer = OnlineNorm2d(1, 0.5, 0.5, ecm="none", affine=False).double()
    x = tensor((1, 3), (2, 6), (-1, 1)).reshape(3, 1, 1, 2)
    gradient = tensor((1, -1), (0.5, 0.5), (2, 0)).reshape(3, 1, 1, 2)
    first, second = step_of(layer, x, gradient), step_of(layer, x, gradient)
    expected = (
        (
            ((0.999995, 2.999985), (0.707105, 3.5355251), (-1.5275238, -0.654653)),
            ((0.999995, -0.999995), (0.60355, 1.60354), (1.4246395, -0.0788263)),
            (1.25, 4.6875, 1.7764516, -0.5028006),
        ),
        (
            ((-0.1154699, 0.8082895), (0.217072, 2.5325069), (-1.7218984, -0.8186074)),
            ((-0.4397541, -1.2562496), (-0.1194524, 0.4708738), (0.8292137, -0.3248329)),
            (1.40625, 4.9287109, 1.3563508, -1.6097415),
        ),
    )
    for found, (z, dx, streams) in zip((first, second), expected):
        torch.testing.assert_close(found["z"].reshape(3, 2), tensor(*z), atol=6e-8, rtol=0)
        torch.testing.assert_close(found["dx"].reshape(3, 2), tensor(*dx), atol=6e-8, rtol=0)
        for name, value in zip(("m", "var", "u", "v"), streams):
            assert found[name].item() == pytest.approx(value, abs=6e-8)


def test_published_vectors_with_affine_and_layer_scaling() -> None:
    layer = OnlineNorm2d(2, 0.75, 0.5, ecm="ls").double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 0.5]))
        layer.bias.copy_(torch.tensor([0.1, -0.2]))
    x = torch.arange(-3.0, 5.0, dtype=torch.float64).reshape(2, 2, 1, 2)
    gradient = tensor((1, 0, -1, 2), (0.5, 0.5, 0, 1)).reshape(2, 2, 1, 2)
    found = step_of(layer, x, gradient)
    expected = {
        "z": tensor((-1.6596681, -1.0970687, -0.1969101, -0.0562602), (0.9308899, 1.4799468, 0.5744736, 0.7830554)),
        "dx": tensor((0.1948789, -0.2430695, -0.1515568, 0.2781834), (0.0526579, -0.084796, -0.2290011, -0.0861358)),
        "d_gamma": tensor((-0.2024974, 0.9817614))[0],
        "d_beta": tensor((-0.1008489, 0.3789965))[0],
        "m": tensor((-0.09375, 0.78125))[0],
        "var": tensor((2.3974609, 3.1708984))[0],
        "u": tensor((-0.0401644, -0.0942552))[0],
        "v": tensor((-0.1433603, -0.3449355))[0],
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name].reshape(value.shape), value, atol=6e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
@pytest.mark.parametrize("samples", [1, 8, 20, 33, 128])
@pytest.mark.parametrize("rest", [(5, 4), ()], ids=["2d", "1d"])
def test_four_steps_equal_the_sequential_algorithm(
    samples: int, rest: tuple[int, ...], ecm: str, affine: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(samples)
    shape = (samples, 6, *rest)
    check_steps(*make(shape, PUBLISHED, ecm, affine, dtype), [shape] * 4)


@pytest.mark.parametrize("decays", [(0.999, 0.99), SHARP, (0.5, 0.25), (0.0, 0.0)])
@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_other_decays(decays: tuple[float, float], ecm: str) -> None:
    torch.manual_seed(1)
    shape = (33, 4, 3, 3)
    check_steps(*make(shape, decays, ecm), [shape] * 4)


@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_batches_of_changing_size_continue_one_stream(ecm: str) -> None:
    torch.manual_seed(2)
    layer, oracle = make((8, 5, 3, 4), PUBLISHED, ecm)
    check_steps(layer, oracle, [(32, 5, 3, 4), (7, 5, 3, 4), (1, 5, 6, 6), (300, 5, 1, 1)])


def test_control_coefficients_below_minus_one() -> None:
    """Amplitude 8 with a sharp control loop: 1 - k * mean(y^2) starts near -3, where logarithms would fail."""
    torch.manual_seed(3)
    shape = (24, 4, 4, 4)
    layer, oracle = make(shape, SHARP, "none")
    x = torch.randn(shape).double() * 8
    assert (1 - (1 - SHARP[1]) * x[0].square().mean((1, 2))).min() < -1
    errors = relative_errors(step_of(layer, x, torch.ones_like(x)), oracle.step(x, torch.ones_like(x)))
    assert max(errors.values()) <= 1e-12, errors


def test_a_scale_of_zero() -> None:
    torch.manual_seed(4)
    shape = (9, 4, 3, 3)
    for ecm in ("ls", "ac", "none"):
        layer, oracle = make(shape, SHARP, ecm)
        oracle.gamma[1] = 0.0
        with torch.no_grad():
            layer.weight[1] = 0.0
        check_steps(layer, oracle, [shape] * 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_channels_last(ecm: str, dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    shape = (20, 6, 5, 4)

    def lay_out(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    layer, oracle = make(shape, PUBLISHED, ecm, dtype=dtype)
    check_steps(layer, oracle, [shape] * 4, lay_out=lay_out)
    found = step_of(layer, lay_out(torch.randn(shape, dtype=dtype)), torch.randn(shape, dtype=dtype))
    assert all(found[name].is_contiguous(memory_format=torch.channels_last) for name in ("z", "dx"))


@pytest.mark.parametrize("ecm", ["ls", "ac", "none"])
def test_the_form_for_other_devices(monkeypatch: pytest.MonkeyPatch, ecm: str) -> None:
    """What runs where neither NumPy nor the kernels can: elementary operations on tensors alone."""
    torch.manual_seed(6)
    monkeypatch.setattr(online_function, "choose_passes", lambda x: online_passes.PlainPasses())
    for shape in ((20, 6, 5, 4), (33, 6)):
        check_steps(*make(shape, PUBLISHED, ecm), [shape] * 4)


def test_inputs_that_lie_strangely() -> None:
    """Slices, expanded gradients, transposed images: same numbers."""
    torch.manual_seed(7)
    layer, oracle = make((8, 4, 5, 5), PUBLISHED, "ls")
    base = torch.randn(8, 8, 7, 5, dtype=torch.float64)
    x = base[:, ::2].transpose(2, 3)
    gradient = torch.randn(8, 4, 1, 1, dtype=torch.float64).expand(8, 4, 5, 7)
    errors = relative_errors(step_of(layer, x, gradient), oracle.step(x, gradient))
    assert max(errors.values()) <= 1e-12, errors


@pytest.mark.parametrize("lay_out", ["rows", "channels_last", "plain"])
def test_statistics_survive_a_mean_far_from_zero(monkeypatch: pytest.MonkeyPatch, lay_out: str) -> None:
    """mean / std = 300 in float32: E[x^2] - E[x]^2 would leave a relative error of 2e-2."""
    torch.manual_seed(8)
    if lay_out == "plain":
        monkeypatch.setattr(online_function, "choose_passes", lambda x: online_passes.PlainPasses())
    layer, oracle = make((32, 4, 32, 32), PUBLISHED, "none", dtype=torch.float32)
    for network in (layer.norm, oracle):
        network.m = torch.full_like(network.m, 300.0)
    for _ in range(4):
        x = torch.randn(32, 4, 32, 32) + 300
        x[3, 1] = 300.0  # a constant image
        if lay_out == "channels_last":
            x = x.contiguous(memory_format=torch.channels_last)
        found = step_of(layer, x, torch.randn(x.shape))
        expected = oracle.step(x.double(), torch.zeros(x.shape).double())
        assert relative_errors({"var": found["var"]}, {"var": expected["var"]})["var"] <= 1e-4
