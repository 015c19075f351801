"""Policies of other packages: what they are is checked once, and whatever goes wrong in one later is one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from bench.doors import in_one_line
from bench.errors import BenchError, RunError
from bench.evaluate.policies.base import NOTHING, VALIDATION, Choice, Kind, Policy
from bench.evaluate.record import Signals

__all__ = ["guard_policy"]

_HOOKS = ("members", "fit", "apply", "point_name")


def guard_policy(found: object, name: str) -> type[Policy]:
    """The class as it is to be used: with hooks that raise RunErrors only, and answers that fit the record.

    Raises ValueError, in words, if it is not a policy of that name.
    """
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ValueError("is not a class derived from bench.evaluate.policies.Policy")
    if left := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"does not define {', '.join(left)}")
    if getattr(found, "name", None) != name:
        raise ValueError(f"its name is {getattr(found, 'name', None)!r}, not that of its entry point")
    _check_facts(found)
    return type(found.__name__, (found,), {
        **{hook: _guarded(found, hook) for hook in _HOOKS}, "name": name, "words": found.words,
        "setting_words": found.setting_words, "__module__": found.__module__,
    })  # fmt: skip


def _check_facts(found: type[Policy]) -> None:
    if not isinstance(getattr(found, "help", None), str):
        raise ValueError("help must be a line for users")
    if found.kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {found.kind!r}")
    if found.chosen_on not in (NOTHING, VALIDATION):
        raise ValueError(f"chosen_on must be '{NOTHING}' or '{VALIDATION}', not {found.chosen_on!r}")
    lengths = found.dashes
    if not isinstance(lengths, tuple) or len(lengths) % 2 or any(not isinstance(x, (int, float)) for x in lengths):
        raise ValueError(f"dashes must be a tuple of lengths, dash and gap in turn, not {lengths!r}")
    try:
        found.setting_words.format("1")
    except (IndexError, KeyError, ValueError, AttributeError):
        raise ValueError(f"setting_words must have {{}} for the setting, not {found.setting_words!r}") from None


def _guarded(found: type[Policy], hook: str) -> Any:
    own: Callable[..., Any] = getattr(found, hook)

    def call(*arguments: Any) -> Any:
        bound = inspect.getattr_static(found, hook)
        run = bound.__func__ if isinstance(bound, classmethod) else own
        try:
            answer = run(*arguments)
            return _checked(hook, answer, arguments)
        except BenchError:
            raise
        except Exception as error:
            raise RunError(f"policy '{found.name}': {hook} raised {in_one_line(error)}") from error

    return classmethod(call) if hook == "members" else call


def _checked(hook: str, answer: Any, arguments: tuple[Any, ...]) -> Any:
    """An answer that fits the record."""
    own = arguments[0]
    if hook == "members":
        made = list(answer)
        for policy in made:
            if not isinstance(policy, own):  # made by its name and not by cls: it is given the guards here
                policy.__class__ = own
        return made
    if hook == "apply":
        _check_choice(answer, arguments[1], own.name)
    return answer


def _check_choice(choice: Any, signals: Signals, name: str) -> None:
    images, points = signals.n, len(signals.points)
    if not isinstance(choice, Choice):
        raise RunError(f"policy '{name}': apply returned {type(choice).__name__}, not bench.evaluate.policies.Choice")
    point, paid = np.asarray(choice.point), np.asarray(choice.paid)
    if point.shape != (images,) or not np.issubdtype(point.dtype, np.integer):
        raise RunError(f"policy '{name}': apply must choose one of the points, an integer, for each of {images} images")
    if images and not (point.min() >= 0 and point.max() < points):
        raise RunError(f"policy '{name}': apply chose a point that is not one of 0 to {points - 1}")
    if paid.shape != (images, points) or paid.dtype != bool:
        raise RunError(f"policy '{name}': paid must be truth values [images, points] = [{images}, {points}]")
    if not np.take_along_axis(paid, point[:, None], axis=1).all():
        raise RunError(f"policy '{name}': an image gets the answer of a point that it does not pay for")
