"""bench list"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.load import load_config
from bench.config.shipped import SHIPPED, shipped_names
from bench.errors import ConfigError
from bench.registry import did_you_mean, method_config, method_names
from bench.track import tracker_class, tracker_names

if TYPE_CHECKING:
    from bench.data.catalog import DatasetInfo

NAME = "list"
HELP = "list methods (with their options), networks by name, policies, data sets, trackers or comparison files"
EXAMPLES = ("bench list methods", "bench list methods --options", "bench list models torchvision/resnet",
            "bench list policies", "bench list datasets", "bench list trackers", "bench list configs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["methods", "models", "policies", "datasets", "trackers", "configs"])
    parser.add_argument("pattern", nargs="?", default="", help="models: only METHOD/NAME with this in it; * and ? "
                        "stand for anything")
    parser.add_argument("--options", action="store_true", help="methods: show every option")
    parser.add_argument("--folder", type=Path, help="configs: list the files of this folder, not the shipped ones")


def main(options: argparse.Namespace) -> int:
    lists = {"methods": _methods, "models": _models, "policies": _policies, "datasets": _datasets,
             "trackers": _trackers, "configs": _configs}  # fmt: skip
    lists[options.what](options)
    return 0


def _methods(options: argparse.Namespace) -> None:
    for name in method_names():
        try:
            config = method_config(name)
        except ConfigError as error:  # a broken plug-in must not hide the others
            print(f"{name}: {error}")
            continue
        doc = (config.__doc__ or "").strip().splitlines()
        print(f"{name}: {doc[0] if doc else ''}")
        if options.options:
            for key, info in config.model_fields.items():
                default = "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)}"
                print(f"    {key}: {info.description or ''} ({default})")


def _models(options: argparse.Namespace) -> None:
    """METHOD/NAME of every network that a method builds by its name."""
    found, problems = [], []
    for method in method_names():
        try:
            found += [f"{method}/{name}" for name in method_config(method).model_names()]
        except ConfigError as error:  # a package that is not installed must not hide the others
            problems.append(f"{method}: {error}")
    named = [name for name in found if fnmatchcase(name, f"*{options.pattern}*")]
    if not named and options.pattern:
        raise ConfigError(f"no network is called like '{options.pattern}'{did_you_mean(options.pattern, found)}")
    print("\n".join(named))
    for problem in problems:
        print(problem, file=sys.stderr)


def _policies(options: argparse.Namespace) -> None:
    # the other lists need no numpy
    from bench.evaluate.policies import policy_class, policy_names

    for name in policy_names():
        try:
            policy = policy_class(name)
        except ConfigError as error:  # a broken plug-in must not hide the others
            print(f"{name}: {error}")
            continue
        needs = f"needs {', '.join(sorted(policy.requires))}; " if policy.requires else ""
        print(f"{name}: {policy.help} ({needs}chosen on: {policy.chosen_on})")


def _datasets(options: argparse.Namespace) -> None:
    # the other lists need no data sets
    from bench.data.catalog import DATASETS, DOOR, dataset_info

    for info in DATASETS.values():
        _dataset(info)
    for name in DOOR.names():
        try:
            if name in DATASETS:
                DOOR.load(name)
            _dataset(dataset_info(name))
        except ConfigError as error:
            print(f"{name}: {error}")


def _dataset(info: DatasetInfo) -> None:
    classes = f"{info.num_classes} classes" if info.num_classes else "any number of classes"
    print(f"{info.name}: {info.description} ({classes})")


def _trackers(options: argparse.Namespace) -> None:
    for name in tracker_names():
        try:
            print(f"{name}: {tracker_class(name).help}")
        except ConfigError as error:  # a broken plug-in must not hide the others
            print(f"{name}: {error}")


def _configs(options: argparse.Namespace) -> None:
    """Whole comparisons by what `bench run` takes: a shipped one by its name, one of a folder by its path."""
    if options.folder is not None and not options.folder.is_dir():
        raise ConfigError(f"no folder '{options.folder}'")
    found = shipped_names() if options.folder is None else sorted(options.folder.rglob("*.yaml"))
    for path in found:
        try:
            comparison = load_config(SHIPPED / f"{path}.yaml" if options.folder is None else path).comparison
        except ConfigError:  # a fragment, to be included by others
            continue
        print(f"{path}: {comparison.title or comparison.name} ({len(comparison.runs)} runs, {comparison.data.name})")
