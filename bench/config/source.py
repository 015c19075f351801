"""YAML files as trees that remember where every value came from.

Stricter than YAML 1.1 where that bites: only ``true`` and ``false`` are booleans (``no`` and ``off`` are
words), ``1e-3`` is a number, a key that stands twice is an error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import ConfigError
from bench.text import visible

# Bounds on hostile or broken input, each far above what a comparison of 1,000 runs takes.
_MOST_BYTES = 2_000_000
_MOST_NODES = 100_000  # in one file, aliases counted each time
_DEEPEST = 50
_LONGEST_KEY, _LONGEST_TEXT = 500, 2_000  # characters
_TOO_MUCH = "too large or too deeply nested"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True)
class Origin:
    """Where a value was said: a file and line, the command line, a method's stage, or nowhere (default)."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


DEFAULT = Origin("default")


@dataclass
class Node:
    """A value with its origin: a dict of Nodes, a list of Nodes, or a scalar."""

    value: Any
    origin: Origin

    def plain(self) -> Any:
        """The value without origins."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, path: tuple[str | int, ...]) -> Node | None:
        """The node at a path, or None."""
        node = self
        for step in path:
            child: Node | None = None
            if isinstance(node.value, dict):
                child = node.value.get(step)
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                child = node.value[step]
            if child is None:
                return None
            node = child
        return node

    def origin_of(self, path: tuple[str | int, ...]) -> Origin:
        """The origin of the deepest node that exists along a path."""
        for length in range(len(path), -1, -1):
            node = self.find(path[:length])
            if node is not None:
                return node.origin
        return self.origin

    def walk(self, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
        """Every leaf with its path."""
        if isinstance(self.value, dict) and self.value:
            for key, node in self.value.items():
                yield from node.walk((*path, key))
        elif isinstance(self.value, list) and self.value:
            for index, node in enumerate(self.value):
                yield from node.walk((*path, index))
        else:
            yield path, self


# libyaml reads ten times faster; PyYAML's wheels have it.
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Parser):  # type: ignore[misc]
    """SafeLoader with the YAML 1.2 core schema's idea of booleans, numbers and null."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("tag:yaml.org,2002:float",
     r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
     r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+0123456789."),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),
):  # fmt: skip
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def parse_yaml(text: str, source: str) -> Node:
    """Text -> tree. ``source`` is the name used in origins and errors. Raises ConfigError."""
    try:
        _check_size(text, source)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=where) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}", where=source) from None
    if root is None:
        return Node({}, Origin(source, 1))
    return _Builder(source).build(root)


def _check_size(text: str, source: str) -> None:
    """ConfigError at the first node that is one too many or too deep, before any of them is made."""
    count = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        count += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > _MOST_NODES or depth > _DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ConfigError(_TOO_MUCH, where=f"{source}:{line}")


def read_yaml(path: Path, name: str | None = None) -> Node:
    """File -> tree. Raises ConfigError where the file is missing, unreadable, far too large or no mapping."""
    source = name or str(path)
    try:
        text = _read_bytes(path, source).decode("utf-8")
    except FileNotFoundError:
        raise ConfigError("no such file (`bench list configs` shows those that come with depthbench)",
                          where=source) from None  # fmt: skip
    except IsADirectoryError:
        raise ConfigError("is a folder, not a YAML file", where=source) from None
    except UnicodeDecodeError:
        raise ConfigError("not a text file (UTF-8)", where=source) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=source) from None
    tree = parse_yaml(text, source)
    if not isinstance(tree.value, dict):
        raise ConfigError("must hold keys and values (a mapping), such as `name: ...`", where=str(tree.origin))
    return tree


def _read_bytes(path: Path, source: str) -> bytes:
    """The bytes of an ordinary file. Opened without waiting: a named pipe that nobody writes to would hang."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError("is a pipe, socket or device, not a YAML file", where=source)
        if about.st_size > _MOST_BYTES:
            raise ConfigError(f"{about.st_size:,} bytes are too large for a comparison (at most {_MOST_BYTES:,})",
                              where=source)  # fmt: skip
        return file.read(_MOST_BYTES)


class _Builder:
    """YAML's nodes -> ours. ``above``: the collections that are being built, each inside of the one before."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0
        self.above: list[yaml.Node] = []

    def build(self, node: yaml.Node) -> Node:
        origin = Origin(self.source, node.start_mark.line + 1)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            raise ConfigError(f"the tag '{node.tag}' is not allowed here", where=str(origin))
        if isinstance(node, yaml.ScalarNode):
            self._count(origin)
            return Node(self._scalar(node, origin), origin)
        with self._inside(node, origin):
            if isinstance(node, yaml.MappingNode):
                return Node(self._mapping(node), origin)
            return Node([self.build(child) for child in node.value], origin)

    @contextmanager
    def _inside(self, node: yaml.Node, origin: Origin) -> Iterator[None]:
        self._count(origin)
        if any(node is other for other in self.above):
            raise ConfigError("nested in itself: an alias names the section that it stands in", where=str(origin))
        self.above.append(node)
        yield
        self.above.pop()

    def _count(self, origin: Origin) -> None:
        self.count += 1
        if self.count > _MOST_NODES or len(self.above) > _DEEPEST:
            raise ConfigError(_TOO_MUCH, where=str(origin))

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            where = Origin(self.source, key_node.start_mark.line + 1)
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged = {**self._merged(value_node, where), **merged}
                continue
            key = self._key(key_node, where)
            if key in own:
                raise ConfigError(f"the key '{key}' stands twice", where=str(where))
            # A section's line is its key's: that is where a reader looks.
            own[key] = Node(self.build(value_node).value, where)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, where: Origin) -> dict[str, Node]:
        """What ``<<`` brings in; of several sections the first wins."""
        merged: dict[str, Node] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                raise ConfigError("<< takes a mapping", where=str(where))
            with self._inside(source, where):
                merged = {**self._mapping(source), **merged}
        return merged

    def _key(self, node: yaml.Node, where: Origin) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise ConfigError("a key must be a word", where=str(where))
        key = str(node.value)
        if visible(key) != key:
            raise ConfigError(f"a key holds a control character or a line end: '{visible(key)[:60]}'", where=str(where))
        if len(key) > _LONGEST_KEY:
            raise ConfigError(f"a key of {len(key):,} characters is too long", where=str(where))
        return key

    def _scalar(self, node: yaml.Node, origin: Origin) -> Any:
        kind, text = node.tag.rsplit(":", 1)[-1], node.value
        if len(text) > _LONGEST_TEXT:
            raise ConfigError(f"a value of {len(text):,} characters is too long", where=str(origin))
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return text.lower() == "true"
            if kind == "int":
                return int(text.replace("_", ""), 16 if "x" in text else 10)
            if kind == "float":
                cleaned = text.replace("_", "").lower()
                return float(cleaned.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise ConfigError(f"not a number: {text[:60]}", where=str(origin)) from None
        if kind == "str":
            return text
        raise ConfigError(f"the tag '{node.tag}' is not allowed here", where=str(origin))
