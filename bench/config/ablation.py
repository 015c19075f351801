"""What a file says of an ablation: axes, their levels, and how levels are combined."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from bench.config.base import Strict

Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=40)]

#: What an axis may change in a run: a path that starts with one of these.
CHANGEABLE = ("method", "options", "recipe", "stages", "data", "weights", "arch", "evaluate_only")


def is_short(axis: Any) -> bool:
    """Whether an axis is written as ``{key: path, values: [...]}``."""
    return isinstance(axis, dict) and set(axis) == {"key", "values"}


def level_name(value: Any) -> str:
    """The name of a level that is given by its value alone: true, 0.1, batch, 1+2+3 for a list.

    Raises ValueError for a section, which needs a name of its own.
    """
    if isinstance(value, dict):
        raise ValueError("a section has no name; name the levels: {level: {path: section}}")
    if isinstance(value, (list, tuple)):
        return "+".join(level_name(part) for part in value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _long_form(axis: Any) -> Any:
    if not is_short(axis):
        return axis
    key, values = axis["key"], axis["values"]
    if not isinstance(key, str) or not isinstance(values, (list, tuple)):
        raise ValueError("the short form of an axis is {key: path, values: [...]}")
    levels = {level_name(value): {key: value} for value in values}
    if len(levels) != len(values):
        raise ValueError("a value stands twice")
    return levels


_PATHS = {"type": "object", "description": "Path in the run -> value, as after --set."}
Axis = Annotated[
    dict[Plain, dict[str, Any]],
    BeforeValidator(_long_form),
    WithJsonSchema({"anyOf": [
        {"type": "object", "additionalProperties": _PATHS, "minProperties": 2},
        {"type": "object", "required": ["key", "values"], "additionalProperties": False,
         "properties": {"key": {"type": "string"}, "values": {"type": "array"}}},
    ]}),
]  # fmt: skip


class Ablation(Strict):
    """Runs that are varied along axes. The first level of every axis together is the base."""

    design: Literal["grid", "one_at_a_time"] = Field(
        "grid", description="grid: every combination of levels; one_at_a_time: the base, and each other level alone.")
    runs: tuple[str, ...] = Field((), description="Runs that are varied; default: all of the file.")
    axes: dict[Plain, Axis] = Field(
        min_length=1, description="Axis -> level -> what the level changes in the run, the base first; or, for short, "
        "axis -> {key: path, values: [...]}.")

    @field_validator("runs", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("axes")
    @classmethod
    def _levels_differ(cls, value: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
        for axis, levels in value.items():
            if len(levels) < 2:
                raise ValueError(f"axis '{axis}' needs at least two levels, the base first")
            names = list(levels)
            for number, name in enumerate(names):
                for other in names[:number]:
                    if levels[name] == levels[other]:
                        raise ValueError(f"levels '{other}' and '{name}' of axis '{axis}' say the same")
        return value


def as_sections(value: Any) -> Any:
    """One section stands for a list of one."""
    if isinstance(value, dict):
        return (value,)
    return tuple(value) if isinstance(value, list) else value
