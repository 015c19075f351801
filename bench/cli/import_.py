"""bench import"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.errors import ConfigError
from bench.registry import did_you_mean, method_names

NAME = "import"
HELP = "turn published weights into weights that runs can name (weights: FILE)"
EXAMPLES = (
    "bench import resnet cifar10_resnet20 resnet20.th -o weights/resnet20.pt",
    "bench import resnet resnet50 resnet50-0676ba61.pth",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="a method of `bench list methods`")
    parser.add_argument("arch", metavar="ARCH", help="the published architecture; 'list' shows what there is")
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="the published file")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="where to write (default: beside FILE)")


def main(options: argparse.Namespace) -> int:
    if options.method not in method_names():
        raise ConfigError(f"unknown method '{options.method}'{did_you_mean(options.method, method_names())}")
    if options.arch != "list" and options.file is None:
        raise ConfigError("name the FILE that holds the published weights")
    if options.file is not None and not options.file.is_file():
        raise ConfigError("no such file", where=str(options.file))
    from bench.registry import method_class

    cls = method_class(options.method)
    archs = cls.archs()
    if options.arch == "list":
        print("\n".join(archs) if archs else f"{options.method} knows no published weights")
        return 0
    if options.arch not in archs:
        raise ConfigError(f"{options.method} knows no '{options.arch}'{did_you_mean(options.arch, archs)}")
    from bench.api import import_official, save_official
    from bench.train.checkpoint import read_weights

    state, about = read_weights(options.file)
    if about is not None:
        raise ConfigError("holds our own format already; name it as `weights:`", where=str(options.file))
    method, model = import_official(options.method, options.arch, state)
    out = options.output or options.file.with_name(f"{options.method}-{options.arch}.pt")
    save_official(method, model, options.method, options.arch, out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters of {options.arch} -> {out}")
    return 0
