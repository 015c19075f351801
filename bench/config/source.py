"""YAML files as trees that remember where every value came from.

Stricter than YAML 1.1 where that bites: only ``true`` and ``false`` are booleans (``no`` and ``off`` are
words), ``1e-3`` is a number, a key that stands twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import ConfigError

_LARGEST = 100_000  # nodes in one file, aliases counted each time: a bound on hostile or broken input
_DEEPEST = 50
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


class _Loader(yaml.SafeLoader):
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
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=where) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}", where=source) from None
    if root is None:
        return Node({}, Origin(source, 1))
    return _Builder(source).build(root, 0)


def read_yaml(path: Path, name: str | None = None) -> Node:
    """File -> tree. Raises ConfigError where the file is missing, unreadable or no mapping."""
    source = name or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such file", where=source) from None
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


class _Builder:
    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0

    def build(self, node: yaml.Node, depth: int) -> Node:
        origin = Origin(self.source, node.start_mark.line + 1)
        self.count += 1
        if self.count > _LARGEST or depth > _DEEPEST:
            raise ConfigError("too large or too deeply nested", where=str(origin))
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            raise ConfigError(f"the tag '{node.tag}' is not allowed here", where=str(origin))
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, depth), origin)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.build(child, depth + 1) for child in node.value], origin)
        return Node(self._scalar(node, origin), origin)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            where = f"{self.source}:{key_node.start_mark.line + 1}"
            if key_node.tag == "tag:yaml.org,2002:merge":
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in sources:
                    if not isinstance(source, yaml.MappingNode):
                        raise ConfigError("<< takes a mapping", where=where)
                    merged = {**self._mapping(source, depth + 1), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a word", where=where)
            key = key_node.value
            if key in own:
                raise ConfigError(f"the key '{key}' stands twice", where=where)
            child = self.build(value_node, depth + 1)
            # A section's line is its key's: that is where a reader looks.
            own[key] = Node(child.value, Origin(self.source, key_node.start_mark.line + 1))
        return {**merged, **own}

    def _scalar(self, node: yaml.Node, origin: Origin) -> Any:
        kind, text = node.tag.rsplit(":", 1)[-1], node.value
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
            raise ConfigError(f"not a number: {text}", where=str(origin)) from None
        if kind == "str":
            return text
        raise ConfigError(f"the tag '{node.tag}' is not allowed here", where=str(origin))
