"""Methods are found by one entry each: their options, which name the class, or the class itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import ClassVar

import pytest
from torch import nn

from bench import registry
from bench.config.json_schema import comparison_schema
from bench.config.schema import MethodConfig
from bench.errors import ConfigError
from bench.method import Method, RunStage


class Named(MethodConfig):
    """Options that name their class."""

    method_class: ClassVar[str] = "theirs:WithNamed"


class Plain(MethodConfig):
    """Options of a class that is registered itself."""


class Astray(MethodConfig):
    """Options that name somebody else's class."""

    method_class: ClassVar[str] = "theirs:WithNamed"


class Broken(MethodConfig):
    """Options whose class is not there."""

    method_class: ClassVar[str] = "theirs:Nothing"


class WithNamed(Method[Named]):
    def build(self, stage: RunStage) -> nn.Module:
        return nn.Identity()


class WithPlain(Method[Plain]):
    def build(self, stage: RunStage) -> nn.Module:
        return nn.Identity()


class Unfinished(Method[Plain]):
    pass


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    module = ModuleType("theirs")
    vars(module).update({cls.__name__: cls for cls in (Named, Plain, Astray, Broken, WithNamed, WithPlain, Unfinished)})
    monkeypatch.setitem(sys.modules, "theirs", module)

    def put(**groups: list[tuple[str, str]]) -> None:
        found = {f"bench.{group}": [EntryPoint(name, value, f"bench.{group}") for name, value in entries]
                 for group, entries in groups.items()}  # fmt: skip
        monkeypatch.setattr(registry, "entry_points", lambda group: found.get(group, []))
        registry.registered.cache_clear()

    yield put
    registry.registered.cache_clear()


@pytest.mark.parametrize(("value", "config", "cls"), [
    ("theirs:Named", Named, WithNamed),
    ("theirs:WithNamed", Named, WithNamed),
    ("theirs:WithPlain", Plain, WithPlain),
])  # fmt: skip
def test_one_entry_names_the_options_or_the_class(register, value, config, cls) -> None:
    register(methods=[("mine", value)])
    assert registry.method_names() == ["mine"]
    assert registry.method_config("mine") is config
    assert registry.method_class("mine") is cls


@pytest.mark.parametrize(("value", "words"), [
    ("theirs:Plain", "method 'mine': Plain does not name the method's class; write method_class: ClassVar"),
    ("theirs:Astray", "method 'mine': Astray names the class theirs:WithNamed, whose Config is not Astray"),
    ("theirs:Broken", "method 'mine' (theirs:Nothing) cannot be imported: AttributeError"),
    ("theirs:Unfinished", "method 'mine' (theirs:Unfinished) does not define build"),
    ("builtins:dict", "method 'mine' is registered as <class 'dict'>, which is neither"),
    ("nowhere.at_all:X", "method 'mine' (nowhere.at_all:X) cannot be imported: ModuleNotFoundError"),
])  # fmt: skip
def test_a_wrong_entry_is_one_line(register, value: str, words: str) -> None:
    register(methods=[("mine", value)])
    with pytest.raises(ConfigError) as caught:
        registry.method_class("mine")
    assert words in str(caught.value)


def test_two_packages_with_one_name_stop_only_its_users(register) -> None:
    register(methods=[("mine", "theirs:Named"), ("mine", "theirs:WithPlain"), ("sound", "theirs:Named")])
    assert registry.method_names() == ["mine", "sound"]
    for look in (registry.method_config, registry.method_class):
        with pytest.raises(ConfigError) as caught:
            look("mine")
        assert str(caught.value) == "method 'mine' (theirs:Named): another package registers it too: theirs:WithPlain"
    assert registry.method_class("sound") is WithNamed


def test_one_object_that_is_registered_twice_is_one(register) -> None:
    register(methods=[("mine", "theirs:Named"), ("mine", "theirs:Named")])
    assert registry.method_class("mine") is WithNamed


def test_the_schema_leaves_out_what_cannot_be_loaded(register) -> None:
    register(methods=[("mine", "theirs:Named"), ("mine", "theirs:WithPlain"), ("sound", "theirs:Named")])
    assert comparison_schema()["$defs"]["Run"]["properties"]["method"]["examples"] == ["sound"]
