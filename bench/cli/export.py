"""bench export"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench.config.weights import irregular
from bench.errors import ConfigError
from bench.files import require_writable

NAME = "export"
HELP = "write one operating point of a trained run as a plain network: a state_dict, and ONNX"
EXAMPLES = (
    "bench export results/quickstart --run resnet14 --seed 0 --to resnet14.pt",
    "bench export weights/imported.pt --point TTTT --to base.pt --onnx base.onnx",
)
_YAML = (".yaml", ".yml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE_OR_DIR", type=Path,
                        help="a folder of results, its comparison file, or weights that `bench import` wrote")
    parser.add_argument("--run", metavar="NAME", help="which run of a comparison (default: the only one)")
    parser.add_argument("--seed", metavar="K", type=int, help="which seed (default: the first that is trained)")
    parser.add_argument("--point", metavar="POINT", help="which operating point, as tables call it (default: the "
                        "method's own default)")
    parser.add_argument("--to", metavar="OUT.pt", type=Path, required=True, help="where the state_dict goes")
    parser.add_argument("--onnx", metavar="OUT.onnx", type=Path,
                        help="write an ONNX file too (needs the extra: pip install 'depthbench[onnx]')")


def main(options: argparse.Namespace) -> int:
    _check_places(options)
    source = _find(options.source)
    if source.is_file() and (options.run is not None or options.seed is not None):
        raise ConfigError("a file of weights holds one network: leave --run and --seed out", where=str(options.source))
    from bench.launch.export import open_run, open_weights, plain_point, require_onnx, write_onnx, write_state
    from bench.method import Exports

    if options.onnx is not None:
        require_onnx()
    trained = open_weights(source) if source.is_file() else open_run(source, options.run, options.seed)
    point = trained.point(options.point)
    plain = plain_point(trained, point)
    if options.onnx is not None:
        write_onnx(plain, options.onnx, trained.method.data)
    write_state(plain, options.to)
    data = trained.method.data
    print(f"{point.name} of {trained.what}: {sum(p.numel() for p in plain.parameters()):,} parameters -> {options.to}")
    if options.onnx is not None:
        print(f"ONNX: {options.onnx}")
    constructor = trained.method.export_constructor(point) if isinstance(trained.method, Exports) else None
    if constructor is not None:
        print(f"network: {constructor}")
    print(f"images: {data.channels}x{data.image_size}x{data.image_size}, pixels in [0, 1], "
          f"mean {_numbers(data.mean)}, std {_numbers(data.std)}")  # fmt: skip
    return 0


def _check_places(options: argparse.Namespace) -> None:
    """The places to write to, before any work: writable, different, and none of them what is read."""
    places = [place for place in (options.to, options.onnx) if place is not None]
    for place in places:
        require_writable(place)
        if os.path.realpath(place) == os.path.realpath(options.source):
            raise ConfigError("is what is exported; write to another file", where=str(place))
    if len({os.path.realpath(place) for place in places}) < len(places):
        raise ConfigError("--to and --onnx name the same file", where=str(options.to))


def _find(source: Path) -> Path:
    """The folder of results, or the file of weights."""
    if source.suffix.lower() in _YAML and source.is_file():
        from bench.cli.common import output_folder
        from bench.config.load import load_config

        folder = output_folder(load_config(source))
        if not folder.is_dir():
            raise ConfigError(f"no results of it in {folder}; run it first, or name their folder", where=str(source))
        return folder
    kind = irregular(source)
    if kind is not None and not os.path.isdir(source):
        raise ConfigError(f"is {kind}, not a file or a folder of results", where=str(source))
    if not os.path.exists(source):
        raise ConfigError("no such file or folder", where=str(source))
    return source


def _numbers(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
