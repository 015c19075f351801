"""File + command line -> one checked ``Comparison`` with the origin of every value.

``extends: base.yaml`` starts from another file; ``include: [fragments/*.yaml]`` adds fragments (sorted by
name where a pattern matches several; a pattern may match none). Sections merge key by key, lists replace,
``runs`` merge by name. Precedence: command line > file > included fragments > extended file > defaults.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.config.messages import explain_errors, path_text
from bench.config.schema import Comparison
from bench.config.shipped import find_config
from bench.config.source import Node, Origin, parse_yaml, read_yaml
from bench.errors import ConfigError
from bench.registry import did_you_mean
from bench.text import visible

COMMAND_LINE = Origin("command line")
#: Keys whose text people write for people.
FREE_TEXT = ("title", "label", "group", "skip", "source", "note", "statistic")


@dataclass(frozen=True)
class Loaded:
    """A comparison, the tree it came from (with origins) and the file. whole: the tree with the runs that ``--only``
    left out."""

    comparison: Comparison
    tree: Node
    path: Path
    whole: Node

    def origin(self, *path: str | int) -> Origin:
        return self.tree.origin_of(path)

    def all_runs(self) -> Loaded:
        """The same without ``--only``."""
        if self.tree is self.whole:
            return self
        return Loaded(check_comparison(self.whole), self.whole, self.path, self.whole)

    def only(self, names: Collection[str]) -> Loaded:
        """The same with these runs."""
        runs = self.comparison.runs
        keep = [index for index, run in enumerate(runs) if run.name in names]
        nodes = self.tree.value["runs"]
        tree = Node({**self.tree.value, "runs": Node([nodes.value[index] for index in keep], nodes.origin)},
                    self.tree.origin)  # fmt: skip
        comparison = self.comparison.model_copy(update={"runs": tuple(runs[index] for index in keep)})
        return Loaded(comparison, tree, self.path, self.whole)


def load_config(
    path: str | Path,
    *,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    **overrides: Any,
) -> Loaded:
    """Read, merge and check a comparison file, or the shipped one of this name. Raises ConfigError; imports no torch.

    settings: "path.to.key=value" as after ``--set``; a run is named as ``runs.NAME.key``, all of them as
    ``runs.*.key``. only: keep these runs. overrides: top-level values that are not None, and ``data_root``.
    """
    path = find_config(path)
    tree = _read(path, ())
    for setting in settings:
        _apply_setting(tree, setting)
    for key, value in overrides.items():
        if value is None:
            continue
        target, name = (_section(tree, "data"), "root") if key == "data_root" else (tree, key)
        target.value[name] = _as_node(value, COMMAND_LINE)
    comparison = check_comparison(tree)
    if comparison.ablation:
        from bench.config.expand import expand_ablation  # which reads the options of methods

        expand_ablation(tree, comparison, path)
        comparison = check_comparison(tree)
    loaded = Loaded(comparison, tree, path, tree)
    names = [run.name for run in comparison.runs]
    for name in only:
        if name not in names:
            raise ConfigError(f"--only {name}: no such run{did_you_mean(name, names)}", where=str(path))
    return loaded.only(only) if only else loaded


def check_comparison(tree: Node) -> Comparison:
    """Tree -> Comparison, or one ConfigError with a line per problem. Control characters are written out in text that
    is only shown, in place, and refused everywhere else, as line ends are."""
    for path, node in tree.walk():
        if isinstance(node.value, str) and path[-1] in FREE_TEXT:
            node.value = visible(node.value, keep="\t\n")
        elif isinstance(node.value, str) and visible(node.value) != node.value:
            words = "holds a control character or a line end"
            raise ConfigError(f"{visible(path_text(path, tree))}: {words}: '{visible(node.value)[:60]}'",
                              where=str(node.origin))  # fmt: skip
    try:
        return Comparison.model_validate(tree.plain())
    except ValidationError as error:
        raise explain_errors(error, Comparison, tree) from None


def _read(path: Path, above: tuple[Path, ...]) -> Node:
    real = Path(os.path.realpath(path))
    if real in above:
        raise ConfigError("extends or includes itself", where=str(path))
    tree = read_yaml(path)
    chain = (*above, real)
    base = Node({}, tree.origin)
    for name in _paths(tree, "extends"):
        base = merge(base, _read(_beside(path, name, tree.origin_of(("extends",))), chain))
    own = Node({k: node for k, node in tree.value.items() if k not in ("extends", "include")}, tree.origin)
    first = [*_run_names(base), *_run_names(own)]  # what is included comes after the file's own runs
    for pattern in _paths(tree, "include"):
        for fragment in _matches(path, pattern, tree.origin_of(("include",))):
            base = merge(base, _read(fragment, chain))
    merged = merge(base, own)
    runs = merged.value.get("runs")
    if runs is not None and isinstance(runs.value, list):
        place = {name: index for index, name in enumerate(dict.fromkeys(first))}
        runs.value = sorted(runs.value, key=lambda run: place.get(_run_name(run), len(place)))
    return merged


def _paths(tree: Node, key: str) -> list[str]:
    node = tree.value.get(key)
    if node is None or node.value is None:
        return []
    value = node.plain()
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigError(f"{key}: takes a file or a list of files, not {name!r}", where=str(node.origin))
    return names


def _beside(path: Path, name: str, origin: Origin) -> Path:
    found = path.parent / name
    if not found.is_file():
        raise ConfigError(f"extends: no such file: {name}", where=str(origin))
    return found


def _matches(path: Path, pattern: str, origin: Origin) -> list[Path]:
    if not glob.has_magic(pattern):
        if not (path.parent / pattern).is_file():
            raise ConfigError(f"include: no such file: {pattern}", where=str(origin))
        return [path.parent / pattern]
    found = sorted(glob.glob(pattern, root_dir=path.parent or "."))
    return [path.parent / name for name in found if (path.parent / name).is_file()]


def merge(base: Node, over: Node, *, top: bool = True) -> Node:
    """``over`` on ``base``: sections key by key, ``runs`` by name, everything else replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        if key in merged and top and key == "runs":
            merged[key] = _merge_runs(merged[key], node)
        elif key in merged:
            merged[key] = merge(merged[key], node, top=False)
        else:
            merged[key] = node
    return Node(merged, over.origin if over.value else base.origin)


def _merge_runs(base: Node, over: Node) -> Node:
    if not (isinstance(base.value, list) and isinstance(over.value, list)):
        return over
    runs = list(base.value)
    names = [_run_name(run) for run in runs]
    for run in over.value:
        name = _run_name(run)
        if name is not None and name in names:
            at = names.index(name)
            runs[at] = merge(runs[at], run, top=False)
        else:
            runs.append(run)
    return Node(runs, over.origin)


def _run_names(tree: Node) -> list[str | None]:
    runs = tree.value.get("runs")
    return [_run_name(run) for run in runs.value] if runs is not None and isinstance(runs.value, list) else []


def _run_name(run: Node) -> str | None:
    name = run.value.get("name") if isinstance(run.value, dict) else None
    return name.value if name is not None and isinstance(name.value, str) else None


def _apply_setting(tree: Node, setting: str) -> None:
    where = f"--set {visible(' '.join(setting.split()))}"
    key, equals, text = setting.partition("=")
    if not equals or not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", key.strip()) or visible(key) != key:
        raise ConfigError("takes path.to.key=value", where=where)
    value = parse_yaml(text, where)
    value = _as_node(value.plain() if text.strip() else None, COMMAND_LINE)
    steps = key.strip().split(".")
    if steps[0] != "runs":
        set_value(tree, steps, value, where)
        return
    runs = tree.value.get("runs")
    if runs is None or not isinstance(runs.value, list):
        raise ConfigError("the file has no runs", where=where)
    for run, rest in _select_runs(runs.value, steps[1:], where):
        set_value(run, rest, value, where)


def _select_runs(runs: list[Node], steps: list[str], where: str) -> Iterable[tuple[Node, list[str]]]:
    if steps and steps[0] == "*":
        return [(run, steps[1:]) for run in runs]
    names = {_run_name(run): run for run in runs}
    for length in range(len(steps), 0, -1):  # a run's name may hold dots
        name = ".".join(steps[:length])
        if name in names:
            return [(names[name], steps[length:])]
    asked = steps[0] if steps else ""
    raise ConfigError(f"no run '{asked}'{did_you_mean(asked, [n for n in names if n])}", where=where)


def set_value(node: Node, steps: list[str], value: Node, where: str) -> None:
    """Put a value at a path below a section, which is made where it is missing. ConfigError naming ``where``."""
    if not steps:
        raise ConfigError("names a whole section; name a key in it", where=where)
    for step in steps[:-1]:
        if not isinstance(node.value, dict):
            raise ConfigError(f"'{step}' is no section", where=where)
        node = _section(node, step, value.origin)
    if not isinstance(node.value, dict):
        raise ConfigError(f"'{steps[-1]}' is no key of a section", where=where)
    node.value[steps[-1]] = value


def _section(node: Node, key: str, origin: Origin = COMMAND_LINE) -> Node:
    child = node.value.get(key)
    if child is None or child.value is None or not isinstance(child.value, dict):
        child = Node({}, origin)
        node.value[key] = child
    return child


def _as_node(value: Any, origin: Origin) -> Node:
    if isinstance(value, dict):
        return Node({str(k): _as_node(v, origin) for k, v in value.items()}, origin)
    if isinstance(value, (list, tuple)):
        return Node([_as_node(v, origin) for v in value], origin)
    return Node(value, origin)
