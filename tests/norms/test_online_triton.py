"""The Triton kernels, without a GPU: run by Triton's interpreter, and compiled for one that is not there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from baselines.norms import online_triton

HERE = Path(__file__).resolve().parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")

COMPARE = """
import itertools, sys, torch
sys.path.insert(0, {here!r})
from online_oracle import Oracle, relative_errors, step_of
from baselines.norms import online_scan, online_triton
from baselines.norms.online import OnlineNorm1d, OnlineNorm2d

torch.set_num_threads(1)
online_triton.CHUNK = 8  # so that long batches carry their state over
assert online_triton.uses_triton(torch.zeros(2, 3, 4, 5))
calls = []

def counted(function):
    def call(*arguments):
        calls.append(function.__name__)
        return function(*arguments)
    return call

online_triton.track, online_triton.control = counted(online_triton.track), counted(online_triton.control)

def check(shape, ecm, affine, dtype, last, decays=(0.999, 0.99)):
    torch.manual_seed(0)
    channels = shape[1]
    layer = (OnlineNorm2d if len(shape) == 4 else OnlineNorm1d)(channels, *decays, ecm=ecm, affine=affine).to(dtype)
    oracle = Oracle(channels, *decays, ecm=ecm)
    if affine:
        with torch.no_grad():
            layer.weight.normal_()
            layer.bias.normal_()
        oracle.gamma, oracle.beta = layer.weight.detach().double(), layer.bias.detach().double()
    for _ in range(2):
        x, gradient = (torch.randn(shape) * 3 + 1).to(dtype), torch.randn(shape).to(dtype)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        found = step_of(layer, x, gradient)
        errors = relative_errors(found, oracle.step(x.double(), gradient.double()))
        assert max(errors.values()) <= (1e-12 if dtype == torch.float64 else 1e-5), (shape, ecm, affine, dtype, errors)
        if len(shape) == 4:
            assert found["z"].stride() == found["dx"].stride() == x.stride()

f32, f64 = torch.float32, torch.float64
check((19, 5, 3, 3), "ls", True, f64, False)
check((5, 3, 3, 3), "ac", True, f64, True)
check((5, 3, 3, 3), "none", False, f64, False)
check((1, 3, 2, 40), "ls", False, f32, False)
check((9, 6), "ls", True, f32, False)
check((9, 6), "ac", False, f64, False)
check((2, 3, 40, 30), "ls", True, f32, True)
assert calls.count("track") == calls.count("control") == 14, calls

half = OnlineNorm2d(3)
x = torch.randn(4, 3, 5, 5, dtype=torch.float16)
found = step_of(half, x, torch.randn(4, 3, 5, 5, dtype=torch.float16))
assert found["z"].dtype == found["dx"].dtype == torch.float16 and found["m"].dtype == torch.float32

a, b, s = torch.randn(19, 5) - 0.5, torch.randn(19, 5), torch.randn(5)
for coefficients in (a, 0.75):
    expected = online_scan._scan(coefficients, b, s)
    torch.testing.assert_close(online_triton.scan(coefficients, b, s), expected, rtol=1e-5, atol=1e-5)
print("equal")
"""


@needs_triton
def test_the_interpreter_finds_what_the_sequential_algorithm_finds() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "BENCH_TRITON": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPARE.format(here=str(HERE))],
        env=environment, cwd=HERE.parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "equal"


@needs_triton
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_every_kernel_compiles_for_a_gpu(half: bool) -> None:
    """To machine code of compute capability 9.0; nothing is run."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from baselines.norms import online_kernels

    numbers = {"channels", "size", "samples", "stride_n", "stride_c", "stride_d"}
    constants = {
        "acc": tl.float32, "affine": True, "scaling": True, "clamping": True, "varying": True, "afwd": 0.999,
        "abkw": 0.99, "eps": 1e-5, "ls_eps": 1e-5, "limit": 5.0, "coefficient": 0.9, "rows": 128, "block_c": 2,
        "block_d": 1024,
    }  # fmt: skip
    kernels = [value for name, value in vars(online_kernels).items() if name.endswith("_kernel")]
    assert len(kernels) == 9
    for kernel in kernels:
        chosen = {name: constants[name] for name in kernel.arg_names if name in constants}
        signature = {
            name: "constexpr" if name in chosen else "i32" if name in numbers
            else "*bf16" if half and name in ("x", "z", "dz", "dx") else "*fp32"
            for name in kernel.arg_names
        }  # fmt: skip
        at = {(kernel.arg_names.index(name),): value for name, value in chosen.items()}
        source = ASTSource(kernel, signature, at)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def test_it_is_used_on_cuda_only() -> None:
    assert not online_triton.uses_triton(torch.zeros(2, 3, 4, 4))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_equals_the_eager_form(monkeypatch: pytest.MonkeyPatch) -> None:
    from online_oracle import step_of

    from baselines.norms.online import OnlineNorm2d

    for ecm in ("ls", "ac", "none"):
        torch.manual_seed(0)
        fast, eager = (OnlineNorm2d(16, ecm=ecm).cuda() for _ in range(2))
        x, gradient = torch.randn(2, 33, 16, 9, 9, device="cuda")
        found = step_of(fast, x, gradient)
        with monkeypatch.context() as patch:
            patch.setattr(online_triton, "uses_triton", lambda x: False)
            expected = step_of(eager, x, gradient)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
