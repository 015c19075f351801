"""Policies, data sets and trackers of other packages, found by name through entry points and imported on first use.

Ours are known without entry points and cannot be replaced. Whatever is wrong with a plug-in is one ConfigError, raised
if it is asked for: it stops nobody who does not use it. Methods have ``bench.registry``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bench.errors import ConfigError
from bench.registry import did_you_mean, registered

__all__ = ["DATASETS", "POLICIES", "TRACKERS", "Door"]

POLICIES = "bench.policies"
DATASETS = "bench.datasets"
TRACKERS = "bench.trackers"


@dataclass(frozen=True)
class Door:
    """One group of entry points. noun: 'policy'; where: the key of the file that names one; ours: names of our own."""

    group: str
    noun: str
    where: str
    ours: Collection[str]

    def names(self) -> list[str]:
        """What other packages register, sorted; nothing is imported."""
        return sorted(registered(self.group))

    def load(self, name: str) -> object:
        """What a name stands for. ConfigError in one line if there is none, several packages claim it, or it cannot be
        imported."""
        entries = registered(self.group).get(name, ())
        if not entries:
            known = [*self.ours, *self.names()]
            raise ConfigError(f"unknown {self.noun} '{name}'{did_you_mean(name, known)}", where=self.where)
        if name in self.ours:
            raise self.wrong(name, "depthbench has one of this name; rename it")
        if len(entries) > 1:
            raise self.wrong(name, f"another package registers it too: {entries[1].value}")
        try:
            return entries[0].load()
        except BaseException as error:  # whatever somebody else's module does while it is imported
            if isinstance(error, KeyboardInterrupt):
                raise
            raise self.wrong(name, f"cannot be imported: {in_one_line(error)}") from error

    def wrong(self, name: str, why: str) -> ConfigError:
        """The one line about a plug-in that cannot be used."""
        entry = registered(self.group)[name][0]
        return ConfigError(f"{self.noun} '{name}' ({entry.value}): {why}", where=self.where)


def in_one_line(error: BaseException) -> str:
    """'ValueError: what it says', cut to a length that a line has room for."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].removesuffix(": ")
