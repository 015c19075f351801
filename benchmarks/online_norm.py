"""Online normalisation against batch norm: time of a layer, time of a training step, memory kept for backward.

    python benchmarks/online_norm.py [layer] [compiled] [step] [memory] [--seconds 10] [--ecm ls] [--device cpu]

layer     forward and backward of one layer with affine, three shapes, beside nn.GroupNorm and a plain loop over
          the samples; limits on online / batch 0.8, 1.45, 0.8
compiled  the same under torch.compile; limit 0.5 each
step      a whole training step of ResNet-20 (projection shortcuts), batch 128; limit on online / batch 1.1
memory    bytes that norm and ReLU keep for the backward pass, in activations

On the CPU: one thread, the thread's own CPU time (a busy machine disturbs it least), and a heap that keeps its
pages, since page faults hit whoever asks last (--system-heap leaves it alone). All contenders take turns; ratios
are medians over turns of two neighbours in time. Fails where a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from baselines.norms.config import NormConfig
from baselines.norms.factory import norm_layer
from baselines.norms.online import OnlineNorm2d
from baselines.resnet import CifarResNet

SHAPES = ((128, 16, 32), (128, 64, 8), (32, 256, 28))  # batch, channels, side
LAYER_LIMITS = (0.8, 1.45, 0.8)
COMPILED_LIMIT = 0.5
STEP_LIMIT = 1.1
AFWD, ABKW = 1023 / 1024, 127 / 128


def main() -> None:
    args = _arguments()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        heap = "as it is" if args.system_heap or not _keep_pages() else "keeps its pages"
        print(f"torch {torch.__version__}, CPU {torch.backends.cpu.get_cpu_capability()}, 1 thread, heap {heap}")
    else:
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}")
    parts = {"layer": layer, "compiled": compiled, "step": step, "memory": memory}
    above = [line for name in args.parts for line in parts[name](args, device)]
    if above:
        raise SystemExit("above the limit: " + "; ".join(above))


def layer(args: argparse.Namespace, device: torch.device) -> list[str]:
    above = []
    for shape, limit in zip(SHAPES, LAYER_LIMITS):
        n, c, side = shape
        modules = {
            "batch": nn.BatchNorm2d(c),
            "online": OnlineNorm2d(c, AFWD, ABKW, ecm=args.ecm),
            "group(8)": nn.GroupNorm(8, c),
            "loop": LoopNorm(c, AFWD, ABKW, args.ecm),
        }
        above += _compare(f"{n}x{c}x{side}x{side}, ecm {args.ecm}", modules, shape, limit, args, device)
    return above


def compiled(args: argparse.Namespace, device: torch.device) -> list[str]:
    above = []
    for shape in SHAPES:
        n, c, side = shape
        online = torch.compile(OnlineNorm2d(c, AFWD, ABKW, ecm=args.ecm), fullgraph=True, dynamic=False)
        modules = {"batch": nn.BatchNorm2d(c), "online": online}
        title = f"{n}x{c}x{side}x{side}, ecm {args.ecm}, online compiled"
        above += _compare(title, modules, shape, COMPILED_LIMIT, args, device)
    return above


def _compare(
    title: str,
    modules: dict[str, Any],
    shape: tuple[int, int, int],
    limit: float,
    args: argparse.Namespace,
    device: torch.device,
) -> list[str]:
    n, c, side = shape
    torch.manual_seed(0)
    x = torch.randn(n, c, side, side, device=device, requires_grad=True)
    gradient = torch.randn_like(x)

    def run(module: nn.Module) -> Callable[[], None]:
        module.to(device)

        def once() -> None:
            module.zero_grad()
            x.grad = None
            module(x).backward(gradient)

        return once

    times = take_turns({name: run(module) for name, module in modules.items()}, args.seconds, device, inner=3)
    return _report(title, times, limit)


def step(args: argparse.Namespace, device: torch.device) -> list[str]:
    torch.manual_seed(0)
    images = torch.randn(128, 3, 32, 32, device=device)
    labels = torch.randint(10, (128,), device=device)
    options = {
        "batch": NormConfig(kind="batch"),
        "online": NormConfig(kind="online", afwd=AFWD, abkw=ABKW, ecm=args.ecm),
        "group(8)": NormConfig(kind="group", gn_num_groups=8),
        "none": NormConfig(kind="none"),
    }

    def run(option: NormConfig) -> Callable[[], None]:
        torch.manual_seed(0)
        network = CifarResNet(20, 10, "B", norm_layer(option)).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)

        def once() -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()

        return once

    times = take_turns({name: run(option) for name, option in options.items()}, args.seconds, device, inner=1)
    return _report(f"ResNet-20 step, batch 128, ecm {args.ecm}", times, STEP_LIMIT)


def memory(args: argparse.Namespace, device: torch.device) -> list[str]:
    above = []
    for n, c, side in SHAPES:
        activation = n * c * side * side * 4
        print(f"kept for backward by norm and ReLU, {n}x{c}x{side}x{side}, in activations")
        modules = {
            "batch": nn.BatchNorm2d(c),
            **{f"online {ecm}": OnlineNorm2d(c, AFWD, ABKW, ecm=ecm) for ecm in ("ls", "ac", "none")},
            "group(8)": nn.GroupNorm(8, c),
            "loop": LoopNorm(c, AFWD, ABKW, args.ecm),
        }
        for name, module in modules.items():
            kept = kept_bytes(nn.Sequential(module, nn.ReLU(inplace=True)).to(device), (n, c, side), device)
            rest = kept - 2 * activation
            print(f"  {name:12s} {kept / activation:6.3f}   beyond input and output: {rest / (n * c * 4):5.2f} numbers "
                  "per sample and channel")  # fmt: skip
            if name.startswith("online") and rest > 6 * n * c * 4:
                above.append(f"{name} keeps {kept / activation:.3f} activations")
    return above


def kept_bytes(module: nn.Module, shape: tuple[int, int, int], device: torch.device) -> int:
    """Bytes of what autograd saves in one forward pass, each storage once, without the module's own."""
    n, c, side = shape
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    storages: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    x = torch.randn(n, c, side, side, device=device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        z = module(x * 1.0)
    del z
    return sum(t.untyped_storage().nbytes() for key, t in storages.items() if key not in own)


def take_turns(
    runs: dict[str, Callable[[], None]], seconds: float, device: torch.device, inner: int
) -> dict[str, list[float]]:
    """Seconds per call. Each turn times every contender once, ``inner`` calls in a row, until time is up."""
    for run in runs.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(next(iter(times.values()))) < 5:
        for name, run in runs.items():
            start = _now(device)
            for _ in range(inner):
                run()
            times[name].append((_now(device) - start) / inner)
    return times


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _report(title: str, times: dict[str, list[float]], limit: float) -> list[str]:
    print(f"{title}: {len(times['batch'])} turns")
    ratio = 0.0
    for name, values in times.items():
        ratios = [value / batch for value, batch in zip(values, times["batch"])]
        print(
            f"  {name:9s} median {statistics.median(values) * 1e3:8.3f} ms, best {min(values) * 1e3:8.3f} ms; "
            f"/ batch: median {statistics.median(ratios):6.3f}, of the best {min(values) / min(times['batch']):6.3f}"
        )
        ratio = statistics.median(ratios) if name == "online" else ratio
    return [f"{title}: {ratio:.3f} > {limit}"] if ratio > limit else []


class _LoopFunction(torch.autograd.Function):
    """The normalisation alone, sample after sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, m: Tensor, var: Tensor, u: Tensor, v: Tensor, afwd: float, abkw: float) -> Tensor:
        y, s = torch.empty_like(x), torch.empty(x.shape[:2], device=x.device)
        for n, sample in enumerate(x):
            s[n] = (var + 1e-5).sqrt()
            y[n] = (sample - m[:, None, None]) / s[n][:, None, None]
            variance, mean = torch.var_mean(sample.flatten(1), 1, correction=0)
            step = mean - m
            var.mul_(afwd).add_((1 - afwd) * (variance + afwd * step * step))
            m.add_((1 - afwd) * step)
        ctx.save_for_backward(y, s)
        ctx.u, ctx.v, ctx.k = u, v, 1 - abkw
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, s = ctx.saved_tensors
        dx = torch.empty_like(gradient)
        for n, g in enumerate(gradient):
            h = g - ctx.k * ctx.v[:, None, None] * y[n]
            ctx.v.add_((h * y[n]).mean((1, 2)))
            dx[n] = h / s[n][:, None, None] - ctx.k * ctx.u[:, None, None]
            ctx.u.add_(dx[n].mean((1, 2)))
        return dx, *(None,) * 6


class LoopNorm(nn.Module):
    """Online normalisation as the algorithm reads: the time it takes without scans and folding."""

    def __init__(self, channels: int, afwd: float, abkw: float, ecm: str) -> None:
        super().__init__()
        self.afwd, self.abkw, self.ecm = afwd, abkw, ecm
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        for name in ("m", "var", "u", "v"):
            self.register_buffer(name, torch.full((channels,), float(name == "var")))

    def forward(self, x: Tensor) -> Tensor:
        y = _LoopFunction.apply(x, self.m, self.var, self.u, self.v, self.afwd, self.abkw)
        z = y * self.weight[:, None, None] + self.bias[:, None, None]
        if self.ecm == "ls":
            return z / (z.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return z.clamp(-5, 5) if self.ecm == "ac" else z


def _keep_pages() -> bool:
    """Tell glibc to give no memory back: True where it listened."""
    trim_threshold, mmap_threshold = -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(mmap_threshold, 1 << 25) and mallopt(trim_threshold, 1 << 30))


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("layer", "compiled", "step", "memory")
    parser.add_argument("parts", nargs="*", default=["layer", "step", "memory"], metavar="part", help=", ".join(parts))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each comparison")
    parser.add_argument("--ecm", choices=("ls", "ac", "none"), default="ls")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--system-heap", action="store_true", help="leave the heap's settings alone")
    args = parser.parse_args(argv)
    unknown = [part for part in args.parts if part not in parts]
    if unknown:
        parser.error(f"no part '{unknown[0]}' (parts: {', '.join(parts)})")
    return args


if __name__ == "__main__":
    main()
