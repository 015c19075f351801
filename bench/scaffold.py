"""What `bench new` writes: a package with one method, policy, data set or tracker, to be changed into one's own."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

import yaml

from bench.doors import DATASETS, POLICIES, TRACKERS
from bench.errors import ConfigError
from bench.files import write_text_atomic
from bench.registry import METHODS, method_class, method_config, method_names

__all__ = ["KINDS", "write_package"]

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$package"
version = "0.1.0"
dependencies = ["depthbench"]

[project.entry-points."$group"]
$name = "$name:$object"

# below src, so that a folder which is called like the module does not hide it
[tool.setuptools]
package-dir = {"" = "src"}
py-modules = ["$name"]
"""

README = """\
# $name

A $noun for depthbench. `src/$name.py` is all of it; `$name.yaml` is a comparison that runs offline in a minute.

`pip install -e .`, then `$look`, `bench run $name.yaml` and `pytest`.
"""

METHOD = '''\
"""A network that may answer after its first half. Put your own in its place; `bench test $name` checks it."""

from pydantic import Field
from torch import nn

from bench.config.schema import MethodConfig
from bench.method import Method


class ${object}Config(MethodConfig):
    """A small network with two exits."""

    width: int = Field(16, ge=1, description="Channels of the first half; the second has twice as many.")


class $object(Method[${object}Config]):
    capabilities = frozenset({"exits"})

    def build(self, stage):
        width, classes = self.config.width, self.data.num_classes
        net = nn.Module()
        net.first, net.early = _half(3, width), _classifier(width, classes)
        net.second, net.late = _half(width, 2 * width), _classifier(2 * width, classes)
        return net

    def walk(self, net, images):
        x = net.first(images)
        x = net.second(x[(yield net.early(x))])  # only the images that go on
        yield net.late(x)


def _half(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _classifier(inputs, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
'''

POLICY = '''\
"""Leave at the first exit whose two largest probabilities differ enough. Put your own rule in its place."""

from bench.evaluate.policies import Choice, Policy, exit_order


class $object(Policy):
    name = "$name"
    help = "leave at the first exit whose margin is at least the setting"
    requires = frozenset({"exits"})
    words, setting_words = "exits, $name", "$name, margin of {}"
    rank, dashes = 5, (3, 1)

    def __init__(self, margin):
        self.setting = margin

    @classmethod
    def members(cls, signals, macs):
        """One for each point of the curve."""
        return [cls(margin) for margin in (0.1, 0.2, 0.4, 0.6, 0.8)]

    def apply(self, signals):
        order = exit_order(signals)
        leaves = signals.margin[order] >= self.setting  # [exits, images]
        leaves[-1] = True
        return Choice.of_point(order[leaves.argmax(axis=0)], len(order))
'''

DATASET = '''\
"""Stripes that lie or stand, drawn on the fly. Read your own images in their place, and say what they are."""

import numpy as np

from bench.data import DatasetInfo


def open_$name(folder):
    """Training and test images, the same ones each time. folder: where `files` lie, None without `needs_root`."""
    # here, so that `bench list datasets` stays quick
    from bench.data.sources import ArraySource

    return tuple(ArraySource(f"$name {part}", *_draw(count, seed), ("lying", "standing"))
                 for part, count, seed in (("train", 512, 0), ("test", 256, 1)))


def _draw(count, seed):
    """Images uint8 [N, 3, 32, 32], labels int64 [N]."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    stripes = np.where(np.arange(32) // 4 % 2, 160, 96)[:, None] + np.zeros((32, 32), int)
    images = np.stack([stripes.T if label else stripes for label in labels])[:, None]
    return (images + draw.integers(-60, 60, (count, 3, 32, 32))).astype(np.uint8), labels


$object = DatasetInfo(
    name="$name", description="Stripes that lie or stand, 32x32.", num_classes=2, image_size=32,
    small=True, one_size=True, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), hflip_prob=0.5,
    train_count=512, test_count=256, licence="none", layout="drawn on the fly", needs_root=False, open=open_$name,
)
'''

TRACKER = '''\
"""A file of JSON lines for each run. Tell your own program in its place."""

import json

from bench.track import Tracker


class $object(Tracker):
    name = "$name"
    help = "a file of JSON lines for each run, in trackers/$name of the results folder"

    def open(self, run):
        run.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(run.folder / f"{run.name}.jsonl", "a" if run.continued else "w")
        self._write(run=run.run, seed=run.seed, key=run.key)

    def log(self, stage, step, metrics):
        self._write(stage=stage, step=step, **metrics)

    def finish(self, rows):
        self._write(rows=[{name: row[name] for name in ("policy", "point", "top1", "macs")} for row in rows])

    def close(self, status):
        self._write(status=status)
        self._file.close()

    def _write(self, **entry):
        print(json.dumps(entry), file=self._file, flush=True)
'''

TEST_METHOD = '''\
from bench.testing import check_method
from $name import $object


def test_it_does_what_the_harness_relies_on():
    assert check_method($object, "$name") == []
'''

TEST_OTHERS = '''\
from pathlib import Path

from bench.cli import main
from bench.evaluate.columns import read_rows

FILE = Path(__file__).with_name("$name.yaml")


def test_a_comparison_with_it(tmp_path):
    assert main(["run", str(FILE), "--out", str(tmp_path), "--in-process", "--quiet", "--no-report"]) == 0
    (path,) = tmp_path.glob("runs/*/rows.csv")
    rows = read_rows(path)
    assert $claim
'''


@dataclass(frozen=True)
class Kind:
    """group: of entry points. noun: in sentences. module: the template of what is in it. look: the command that shows
    it. suffix, upper: how the object is called. claim: what the test says of the rows of a comparison with it."""

    group: str
    noun: str
    module: str
    look: str
    names: Callable[[], Collection[str]]
    config: Callable[[str], dict[str, Any]]
    upper: bool = False
    claim: str = ""


def write_package(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a package in a new or empty folder. Returns its files. Raises ConfigError, and then nothing is written."""
    what = KINDS[kind]
    _check_name(what, name)
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise ConfigError(f"{folder} exists already; nothing was written (--to names another folder)")
    values = {
        "name": name, "package": name.replace("_", "-"), "group": what.group, "noun": what.noun,
        "object": _object_name(what, name),
    }  # fmt: skip
    values |= {key: Template(text).substitute(values) for key, text in (("look", what.look), ("claim", what.claim))}
    config = yaml.safe_dump({"name": name, **what.config(name)}, sort_keys=False, default_flow_style=None, width=100)
    files = {
        "pyproject.toml": PYPROJECT, "README.md": README, f"src/{name}.py": what.module,
        f"test_{name}.py": TEST_METHOD if kind == "method" else TEST_OTHERS,
    }  # fmt: skip
    texts = {file: Template(text).substitute(values) for file, text in files.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}") from None
    for file, text in {**texts, f"{name}.yaml": config}.items():
        write_text_atomic(folder / file, text)
    return [folder / file for file in (*texts, f"{name}.yaml")]


def _check_name(what: Kind, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"'{name}' cannot be the name of a Python module: letters, digits and _, a letter first")
    if name in what.names():
        raise ConfigError(f"there is a {what.noun} '{name}' already; take another name")
    imported = re.search(rf"^from .* import .*\b{_object_name(what, name)}\b", what.module, flags=re.M)
    if imported or _is_module(name):
        raise ConfigError(f"'{name}' is taken by a Python module or class; take another name")


def _is_module(name: str) -> bool:
    """Whether `import NAME` finds something. (A folder of that name where we stand is nothing yet.)"""
    try:
        found = find_spec(name)
    except (ImportError, ValueError):
        return True
    return found is not None and found.origin is not None


def _object_name(what: Kind, name: str) -> str:
    return name.upper() if what.upper else "".join(part[:1].upper() + part[1:] for part in name.split("_"))


# ---- a comparison with it ----------------------------------------------------------------------------
def _on_clothes(**rest: Any) -> dict[str, Any]:
    """On images that come with depthbench."""
    data = {"name": "fashion_mnist_mini", "val_size": 128, "train_subset": 320, "test_subset": 256}
    return {"data": data, "device": "cpu", "recipe": {"epochs": 1, "batch_size": 64, "lr": 0.05}, **rest}


def _method(name: str) -> dict[str, Any]:
    return _on_clothes(runs=[{"name": name, "method": name, "options": {"width": 16}}])


def _policy(name: str) -> dict[str, Any]:
    return _on_clothes(evaluate={"policies": [name]}, runs=[_small_run({"exits"})])


def _dataset(name: str) -> dict[str, Any]:
    return {**_on_clothes(), "data": {"name": name, "val_size": 128}, "runs": [_small_run(set())]}


def _tracker(name: str) -> dict[str, Any]:
    return _on_clothes(trackers=[name], runs=[_small_run(set())])


def _small_run(capabilities: set[str]) -> dict[str, Any]:
    """A short run of a method that is installed with depthbench. capabilities: all that it has."""
    for name in method_names():
        try:
            found = method_class(name).capabilities == capabilities
            config = method_config(name).small()
        except ConfigError:  # a broken plug-in
            continue
        if found:
            stages = {stage.name: {"epochs": 1} for stage in config.stages()}
            options = config.model_dump(mode="json", exclude_unset=True)
            return {"name": "small", "method": name, "options": options, "stages": stages}
    raise ConfigError("no method is installed that such a comparison can be made of")


def _policies() -> Collection[str]:
    # this and the next ones import what only they need
    from bench.evaluate.policies import policy_names

    return policy_names()


def _datasets() -> Collection[str]:
    from bench.data.catalog import DATASETS as OURS
    from bench.data.catalog import DOOR

    return [*OURS, *DOOR.names()]


def _trackers() -> Collection[str]:
    from bench.track import tracker_names

    return tracker_names()


KINDS = {
    "method": Kind(METHODS, "method", METHOD, "bench test $name", method_names, _method),
    "policy": Kind(POLICIES, "policy", POLICY, "bench list policies", _policies, _policy,
                   claim='"$name" in {row["policy"] for row in rows}'),
    "dataset": Kind(DATASETS, "data set", DATASET, "bench data $name", _datasets, _dataset, upper=True,
                    claim='{row["dataset"] for row in rows} == {"$name"}'),
    "tracker": Kind(TRACKERS, "tracker", TRACKER, "bench list trackers", _trackers, _tracker,
                    claim='(tmp_path / "trackers/$name").is_dir() and rows'),
}  # fmt: skip
