"""Whether a method looks at its options."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.config.schema import MethodConfig, Recipe
from bench.method import Method
from bench.testing.subject import DATA, Subject, make_batch, make_images
from bench.train.step import TrainStep

#: Source files of a package that are looked at.
MOST_FILES = 500


def check_options_matter(subject: Subject) -> None:
    """Every option is read by some hook, or its name is at least found elsewhere in the package's sources."""
    config, read = subject.method.config, set[str]()
    with subject.calling("Config"):
        method = type(subject.method)(_watched(config, read), DATA)
    _use(method)
    unread = [name for name in type(config).model_fields if name not in read]
    texts = [path.read_text("utf-8", "replace") for path in sources(type(subject.method))] if unread else []
    for name in unread:
        if sum(len(re.findall(rf"\b{re.escape(name)}\b", text)) for text in texts) < 2:  # one is its declaration
            subject.fail("Config", f"option '{name}' changes nothing: no hook reads it")


def sources(cls: type) -> list[Path]:
    """The Python files of the package that a class is from, in order; of a single module that file."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    top = getattr(sys.modules.get(cls.__module__.partition(".")[0]), "__file__", None)
    if top is not None and Path(top).name == "__init__.py":
        found = sorted(Path(top).parent.rglob("*.py"))
        if len(found) <= MOST_FILES:
            return found
    return [Path(file)] if file is not None else []


def _watched(config: MethodConfig, read: set[str]) -> MethodConfig:
    """The same options; whoever reads one leaves its name in ``read``."""
    fields = set(type(config).model_fields)

    def look(self: Any, name: str) -> Any:
        if name in fields:
            read.add(name)
        elif name.startswith("model_dump"):
            read.update(fields)
        return super(watched, self).__getattribute__(name)

    watched: Any = type(type(config).__name__, (type(config),), {"__getattribute__": look, "__module__": __name__})
    made: MethodConfig = watched.model_construct(set(config.model_fields_set), **dict(config))
    read.clear()
    return made


def _use(method: Method[Any]) -> None:
    """Call every hook once. What fails here has been named by another check."""
    method.backbone()
    built: dict[str, nn.Module] = {}
    for planned in method.stages():
        stage = planned.resolve(Recipe())
        model = built[stage.name] = method.build(stage)
        method.prepare(model, stage, built.get(stage.start_from or ""))
        step = TrainStep(method, model, stage)
        step.train()
        step(*make_batch(soft=True))
        model.eval()
        with torch.no_grad():
            method.units(model)
            method.record(model, make_images())
            for point in method.points(model)[:2]:
                method.execute(model, make_images(), point)
