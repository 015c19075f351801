"""A trained run, or a file of weights, opened again; and one operating point of it written for other programs."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.resolve import parse_options
from bench.config.schema import Recipe
from bench.errors import BenchError, ConfigError, RunError, WeightsError
from bench.files import atomic_path, write_bytes_atomic
from bench.launch.folder import read_spec
from bench.launch.stages import run_weights
from bench.method import DataSpec, Exports, Method, Point, load_strict
from bench.registry import did_you_mean, method_class
from bench.store.comparison import read_comparison
from bench.store.reading import Damaged
from bench.store.stage import check_weights
from bench.store.status import read_status
from bench.train.checkpoint import pack, read_weights

__all__ = ["Trained", "open_run", "open_weights", "plain_point", "require_onnx", "write_onnx", "write_state"]

#: Side of the largest images that weights may be said to be for: a sanity check of files.
_LARGEST_IMAGE = 8192
#: Furthest that an exported network's logits may be from the run's own, relative to the largest logit.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Trained:
    """A method and its trained network, on the CPU in evaluation mode. what: how messages call it."""

    what: str
    method: Method
    model: nn.Module

    def point(self, name: str | None) -> Point:
        """The operating point of a name, in any case; the default one for None. ConfigError naming all of them."""
        points = {point.name: point for point in self.method.points(self.model)}
        if name is None:
            return next(iter(points.values()))
        for known, point in points.items():
            if known.lower() == name.lower():
                return point
        raise ConfigError(
            f"{self.what} has no operating point '{name}'{did_you_mean(name, points)}; it has {', '.join(points)}"
        )


def open_weights(path: str | Path, options: dict[str, Any] | None = None) -> Trained:
    """Weights in our format: what `bench import` wrote, or a trained stage. options: instead of the file's own.

    Raises WeightsError if the file is damaged or not ours.
    """
    state, about = read_weights(path)
    if about is None:
        raise WeightsError(f"{path}: does not say which network it belongs to; `bench import METHOD ARCH {path}` "
                           "makes a file that does")  # fmt: skip
    try:
        cls = method_class(str(about["method"]))
        config = parse_options(cls.Config, about["options"] if options is None else options)
        method = cls(config, _data_of(about, state))
        stage = next(s for s in method.stages() if s.name == about["stage"]).resolve(Recipe())
        with torch.random.fork_rng(devices=[]):
            model = method.build(stage)
    except Exception as error:  # the file may say anything
        words = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{path}: what it says of its network cannot be used ({words[:200]})") from None
    load_strict(model, state, what=str(path))
    return Trained(Path(path).name, method, model.eval())


def _data_of(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> DataSpec:
    """The data that weights are for; ValueError for sizes that no network of theirs can have."""
    data = DataSpec(str(about["data"]), int(about["num_classes"]), int(about["image_size"]),
                    int(about.get("channels", 3)), _floats(about["mean"]), _floats(about["std"]))  # fmt: skip
    if not any(data.num_classes in tensor.shape for tensor in state.values()):
        raise ValueError(f"num_classes is {data.num_classes}, but no tensor has that size")
    if not 1 <= data.image_size <= _LARGEST_IMAGE:
        raise ValueError(f"image_size is {data.image_size}, not 1 to {_LARGEST_IMAGE}")
    if not len(data.mean) == len(data.std) == data.channels:
        raise ValueError(f"mean and std must have {data.channels} values")
    return data


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def open_run(out: Path, run: str | None = None, seed: int | None = None) -> Trained:
    """A trained run of a results folder. run: may be None where there is one; seed: default the first trained.

    Raises ConfigError for a run or seed that the comparison has not, RunError where it is not trained.
    """
    entries = read_comparison(out)["runs"]
    names = list(dict.fromkeys(str(entry["run"]) for entry in entries))
    if run is None:
        if len(names) > 1:
            raise ConfigError(f"{out} holds several runs; say which: --run {' | '.join(names)}")
        run = names[0]
    if run not in names:
        raise ConfigError(f"{out} has no run '{run}'{did_you_mean(run, names)}; it has {', '.join(names)}")
    mine = {int(entry["seed"]): out / str(entry["folder"]) for entry in entries if entry["run"] == run}
    if seed is not None and seed not in mine:
        raise ConfigError(f"run '{run}' has no seed {seed}; it has {', '.join(map(str, mine))}")
    for number in mine if seed is None else [seed]:
        trained = _open_one(mine[number], f"run '{run}' seed {number}")
        if trained is not None:
            return trained
    said = f"run '{run}'" if seed is None else f"run '{run}' seed {seed}"
    status = read_status(mine[next(iter(mine)) if seed is None else seed])["status"]
    raise RunError(f"{out}: {said} has no trained weights (status {status}); `bench run` trains it")


def _open_one(folder: Path, what: str) -> Trained | None:
    """One run and seed, or None where it is not trained. folder: of the run, which may lie in another comparison's
    results (`bench compare`)."""
    try:
        weights, spec = run_weights(folder), read_spec(folder)
        if weights is not None:
            check_weights(weights)
    except Damaged as error:
        raise Damaged(f"{error}; `bench run FILE` repairs it") from None
    given = spec.weights if weights is None and spec.evaluate_only else weights
    if given is None:
        return None
    opened = open_weights(given, spec.options)
    return Trained(what, opened.method, opened.model)


def plain_point(trained: Trained, point: Point) -> nn.Module:
    """One operating point as a network of its own, compared with the run's on random images.

    Raises WeightsError where the method has no such network, or where the logits are not the same.
    """
    method, data = trained.method, trained.method.data
    if not isinstance(method, Exports):
        raise WeightsError(f"{type(method).__name__} exports no point: no plain network computes what it computes")
    plain = method.export_point(trained.model, point).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, data.channels, data.image_size, data.image_size, generator=generator)
    with torch.no_grad():
        expected, found = trained.method.execute(trained.model, images, point).logits, plain(images)
    difference = float((expected - found).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise WeightsError(f"{trained.what}, point {point.name}: the exported network's logits differ from its own by "
                           f"{difference:g}")  # fmt: skip
    return plain


def write_state(network: nn.Module, path: Path) -> None:
    """The network's state_dict as a file that ``torch.load(path, weights_only=True)`` reads. Raises RunError."""
    state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    write_bytes_atomic(path, pack(state)[0])


def require_onnx() -> None:
    """Raises BenchError where a package that torch.onnx needs is not installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchError(f"ONNX export needs packages that are not installed: pip install {' '.join(missing)}")


def write_onnx(network: nn.Module, path: str | Path, data: DataSpec) -> None:
    """Write a plain network as one ONNX file for images [batch, C, H, W], the batch size left open.

    Raises BenchError where the packages that torch.onnx needs are not installed.
    """
    require_onnx()
    example = torch.zeros(2, data.channels, data.image_size, data.image_size)
    first = next(iter(inspect.signature(network.forward).parameters))
    with atomic_path(path) as temporary:
        torch.onnx.export(
            network.eval(),
            (example,),
            str(temporary),
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            dynamic_shapes={first: {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
