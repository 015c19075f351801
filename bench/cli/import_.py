"""bench import"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench.config.weights import find_weights, split_key
from bench.errors import ConfigError, WeightsError
from bench.files import require_writable
from bench.registry import did_you_mean, method_names

NAME = "import"
HELP = "turn published weights into weights that runs can name (weights: FILE)"
EXAMPLES = (
    "bench import resnet cifar10_resnet20 resnet20.th -o weights/resnet20.pt",
    "bench import resnet resnet50 resnet50-0676ba61.pth",
    "bench import resnet resnet50 checkpoint.pth#model -o weights/resnet50.pt",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="a method of `bench list methods`")
    parser.add_argument("arch", metavar="ARCH", help="the published architecture; 'list' shows what there is")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the published file; FILE#KEY takes one of several "
                        "networks in it (file.pth#model_ema)")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="where to write (default: beside FILE)")


def main(options: argparse.Namespace) -> int:
    if options.method not in method_names():
        raise ConfigError(f"unknown method '{options.method}'{did_you_mean(options.method, method_names())}")
    if options.arch != "list" and options.file is None:
        raise ConfigError("name the FILE that holds the published weights")
    from bench.registry import method_class

    cls = method_class(options.method)
    archs = cls.archs()
    if options.arch == "list":
        print("\n".join(archs) if archs else f"{options.method} knows no published weights")
        return 0
    if options.arch not in archs:
        raise ConfigError(f"{options.method} knows no '{options.arch}'{did_you_mean(options.arch, archs)}")
    source, _ = find_weights(options.file, where=options.file)
    beside = split_key(options.file)[0].with_name(f"{options.method}-{options.arch.replace('/', '-')}.pt")
    out = options.output or beside
    require_writable(out)
    if os.path.realpath(out) == str(source):
        raise ConfigError("is the published file itself; write to another one (-o)", where=str(out))
    from bench.api import import_official, save_official
    from bench.train.checkpoint import read_weights

    state, about = read_weights(options.file)
    if about is not None:
        raise ConfigError("holds our own format already; name it as `weights:`", where=options.file)
    try:
        method, model = import_official(options.method, options.arch, state)
    except WeightsError as error:
        raise WeightsError(f"{options.file}: {error}") from None
    save_official(method, model, options.method, options.arch, out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters of {options.arch} -> {out}")
    return 0
