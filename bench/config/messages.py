"""pydantic's findings as lines a person can act on: file, line, key, what was expected, did you mean."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.config.base import AtKey
from bench.config.source import Node
from bench.errors import ConfigError
from bench.registry import did_you_mean

_KINDS = {
    "int_type": "a whole number", "int_from_float": "a whole number", "int_parsing": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "string_type": "text", "bool_type": "true or false",
    "dict_type": "a section of keys", "model_type": "a section of keys", "model_attributes_type": "a section of keys",
    "tuple_type": "a list", "list_type": "a list", "finite_number": "a finite number", "none_required": "null",
}  # fmt: skip


def explain_errors(
    error: ValidationError, model: type[BaseModel], tree: Node, prefix: tuple[str | int, ...] = ()
) -> ConfigError:
    """One ConfigError with one line per problem. ``prefix`` is where ``model`` stands in the tree."""
    grouped: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    found = error.errors(include_url=False)
    for item in found:
        if item["type"] == "too_short" and any(_is_below(other["loc"], item["loc"]) for other in found):
            continue  # pydantic counts an entry that is wrong as missing; its own line says what is wrong
        grouped.setdefault(_real_path(item, tree, prefix), []).append(item)
    lines = [_line(path, items, model, tree, prefix) for path, items in grouped.items()]
    return ConfigError("\n".join(lines))


def _is_below(loc: tuple[str | int, ...], above: tuple[str | int, ...]) -> bool:
    return len(loc) > len(above) and loc[: len(above)] == above


def _real_path(
    item: ErrorDetails, tree: Node, prefix: tuple[str | int, ...]
) -> tuple[str | int, ...]:
    """pydantic's location without the steps that name the branch of a union."""
    path: tuple[str | int, ...] = ()
    node: Node | None = tree.find(prefix)
    for index, step in enumerate(item["loc"]):
        child = node.find((step,)) if node is not None else None
        last = index == len(item["loc"]) - 1
        if child is not None or (last and item["type"] == "missing"):
            path, node = (*path, step), child
        elif node is None or not isinstance(node.value, (dict, list)):
            break
    return path


def _line(
    path: tuple[str | int, ...], items: list[ErrorDetails], model: type[BaseModel], tree: Node,
    prefix: tuple[str | int, ...],
) -> str:  # fmt: skip
    item = items[0]
    full = (*prefix, *path)
    problem = item.get("ctx", {}).get("error")
    where = tree.origin_of((*full, *problem.path) if isinstance(problem, AtKey) else full)
    key = path_text(full, tree)
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        section = path_text(full[:-1], tree)
        text = f"unknown key '{path[-1]}'" + (f" in {section}" if section else "")
        return f"{where}: {text}{did_you_mean(str(path[-1]), known)}"
    if item["type"] == "missing":
        section = path_text(full[:-1], tree)
        return f"{where}: {'in ' + section + ' ' if section else ''}the key '{path[-1]}' is missing"
    messages = list(dict.fromkeys(_expected(one) for one in items))
    return f"{where}: {key}: {' or '.join(messages)}" if key else f"{where}: {' or '.join(messages)}"


def _expected(item: ErrorDetails) -> str:
    kind, given = item["type"], item.get("input")
    context = item.get("ctx", {})
    if kind in _KINDS:
        return f"expected {_KINDS[kind]}, not {_show(given)}"
    if kind == "literal_error":
        options = _options(context.get("expected", ""))
        hint = did_you_mean(given, options) if isinstance(given, str) else ""
        hint = hint if "did you mean" in hint else ""
        return f"expected {context.get('expected')}, not {_show(given)}{hint}"
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"greater_than": "greater than", "greater_than_equal": "at least",
                 "less_than": "less than", "less_than_equal": "at most"}  # fmt: skip
        bound = next(iter(context.values()))
        return f"must be {words[kind]} {bound}, not {_show(given)}"
    if kind == "too_short":
        return f"needs at least {context.get('min_length')} entries"
    if kind == "string_pattern_mismatch":
        return f"{_show(given)} is no plain name (letters, digits, and . _ + = - after the first)"
    return f"{item['msg'][0].lower()}{item['msg'][1:]}, not {_show(given)}"


def _options(expected: str) -> list[str]:
    return [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list, tuple)):
        return "a section" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def path_text(path: tuple[str | int, ...], tree: Node) -> str:
    """runs.resnet20.options.depth: runs by their names, other entries of lists by their place."""
    words: list[str] = []
    for index, step in enumerate(path):
        if isinstance(step, int):
            node = tree.find(path[: index + 1])
            name = node.find(("name",)) if node is not None and isinstance(node.value, dict) else None
            words.append(str(name.value) if name is not None else f"[{step}]")
        else:
            words.append(str(step))
    return ".".join(words).replace(".[", "[")


def _fields_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    current: Any = model
    for step in path:
        if isinstance(step, int):
            continue
        info = current.model_fields.get(step) if _is_model(current) else None
        if info is None:
            return []
        current = model_in(info.annotation)
    return list(current.model_fields) if _is_model(current) else []


def model_in(annotation: Any) -> Any:
    """The model inside ``Model | None``, ``tuple[Model, ...]`` and the like."""
    if _is_model(annotation):
        return annotation
    for part in get_args(annotation):
        found = model_in(part)
        if found is not None:
            return found
    return None


def _is_model(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseModel)
