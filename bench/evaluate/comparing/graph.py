"""Which comparisons are decided: the graphical procedure of Bretz, Maurer, Brannath and Posch (2009) over chains.

A chain is one contender's questions in the order in which they were asked beforehand. All chains begin with the same
weight w, their sum 1. The current question of a chain is decided if p <= alpha w; its weight then passes to the next
question of the chain, and from the last one in equal parts to the chains that are not at their end. The chance of even
one false decision is at most alpha, however the tests depend on each other. With one question in each chain it is
Holm's procedure, with one chain the fixed-sequence test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What became of a question. weight: the share of alpha that it was tested at, 0 if it was not reached. adjusted:
    its p-value adjusted for the whole graph, at most alpha if it is decided."""

    decided: bool
    weight: float
    adjusted: float

    @property
    def reached(self) -> bool:
        return self.weight > 0


def decide(chains: Sequence[Sequence[float]], alpha: float) -> list[list[Decision]]:
    """chains: p-values in the order in which they are asked, none empty. Returns a decision for each.

    At every step the chain with the smallest p/w goes on; what is decided does not depend on this order.
    """
    weights = [1 / len(chains) for _ in chains]
    found: list[list[Decision]] = [[] for _ in chains]
    open_chains = list(range(len(chains)))
    adjusted, going = 0.0, True
    while open_chains:
        at = min(open_chains, key=lambda c: _ratio(chains[c][len(found[c])], weights[c]))
        adjusted = max(adjusted, min(1.0, _ratio(chains[at][len(found[at])], weights[at])))
        if going and adjusted > alpha:  # nothing further is decided; every current question keeps its weight
            going = False
            tested = {c: (len(found[c]), weights[c]) for c in open_chains}
        if going:
            weight = weights[at]
        else:
            place, own = tested[at]
            weight = own if place == len(found[at]) else 0.0
        found[at].append(Decision(going, weight, adjusted))
        if len(found[at]) == len(chains[at]):
            open_chains.remove(at)
            for c in open_chains:
                weights[c] += weights[at] / len(open_chains)
    return found


def _ratio(p: float, weight: float) -> float:
    return p / weight if weight > 0 else math.inf
