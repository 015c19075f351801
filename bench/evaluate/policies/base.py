"""What a policy is, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from bench.errors import RunError
from bench.evaluate.record import Outcomes, Signals

P = TypeVar("P", bound="Policy")

Kind = Literal["points", "steps", "curve"]

VALIDATION = "validation"
NOTHING = "nothing"


@dataclass(frozen=True)
class Choice:
    """What a policy does with every image.

    point: int64 [N], the operating point whose answer counts. paid: bool [N, P], the points whose units ran:
    the answering one alone for points and exits (an exit's counts hold the earlier exits already), every
    network that was asked for a cascade. logp: log-probabilities of the classes, float32 [N, C], of a policy that
    does not answer with those of the point; else None. same_class: whether the class is that of the point even then.
    """

    point: np.ndarray
    paid: np.ndarray
    logp: np.ndarray | None = None
    same_class: bool = True

    @classmethod
    def of_point(cls, point: np.ndarray, points: int) -> Choice:
        """The answering point is the only one that is paid for."""
        return cls(point, point[:, None] == np.arange(points))

    def counts(self, signals: Signals) -> np.ndarray:
        """How often each unit ran, int64 [N, U]: the sum over the points that were paid for."""
        total = np.zeros((signals.n, len(signals.units)), dtype=np.int64)
        for point in range(len(signals.points)):
            rows = self.paid[:, point]
            if rows.any():
                total[rows] += signals.counts_of(point)[rows]
        return total

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Values [P, N] at the answering point of each image, [N]."""
        return np.take_along_axis(values, self.point[None], axis=0)[0]

    def confidence(self, signals: Signals) -> np.ndarray:
        """Largest probability of each answer, [N]."""
        return self.gather(signals.confidence) if self.logp is None else np.exp(self.logp.max(axis=1))

    def hit(self, outcomes: Outcomes) -> np.ndarray:
        """Whether each answer is right, bool [N]."""
        return self.gather(outcomes.hit) if self.same_class else self._rank(outcomes.label) < 1

    def hit5(self, outcomes: Outcomes) -> np.ndarray:
        """Whether the label is among the first five of each answer, bool [N]."""
        return self.gather(outcomes.hit5) if self.same_class else self._rank(outcomes.label) < 5

    def label_logp(self, outcomes: Outcomes) -> np.ndarray:
        """Log-probability of the label, [N], nats."""
        if self.logp is None:
            return self.gather(outcomes.logp)
        return np.take_along_axis(self.logp, outcomes.label[:, None].astype(np.int64), axis=1)[:, 0]

    def _rank(self, label: np.ndarray) -> np.ndarray:
        """How many classes come before the label; equal ones in the order of the classes."""
        assert self.logp is not None
        own = np.take_along_axis(self.logp, label[:, None].astype(np.int64), axis=1)
        earlier = np.arange(self.logp.shape[1]) < label[:, None]
        return ((self.logp > own) | ((self.logp == own) & earlier)).sum(axis=1)

    def spent(self, per_point: np.ndarray) -> np.ndarray:
        """A cost of each point, [P] or [P, N], summed over what was paid for: [N]."""
        if per_point.ndim == 1:
            per_point = per_point[:, None]
        return np.where(self.paid, per_point.T, 0).sum(axis=1)


@dataclass(frozen=True)
class Risk:
    """What `evaluate:` asks of policies that make a promise. targets: largest risks, shares of the images. delta: how
    probable it may be that a promise with a probability is broken."""

    targets: tuple[float, ...] = (0.01, 0.02, 0.05)
    delta: float = 0.1


#: If nothing is asked for.
DEFAULT_RISK = Risk()


@dataclass(frozen=True)
class Promise:
    """A risk that stays below ``target``: with probability 1 - ``delta`` over validation parts, or, if that is None,
    on average over them."""

    target: float
    delta: float | None
    realised: Callable[[Choice, Signals, Outcomes], float]


class Policy(ABC):
    """A rule with at most one free parameter, ``setting``; one object is one point of the results table.

    ``fit`` sees validation data only, ``apply`` sees the test signals only: labels of the test set are in
    neither. ``thresholds`` holds whatever ``fit`` found.
    """

    #: what rows, files and `evaluate.policies` call it
    name: ClassVar[str]
    #: capabilities of the method without which it makes no sense
    requires: ClassVar[frozenset[str]] = frozenset()
    #: which split chose anything: "validation" or "nothing"
    chosen_on: ClassVar[str] = NOTHING
    #: whether it reads the logits of all classes
    needs_logits: ClassVar[bool] = False
    #: whether each answer is that of the point as the network gave it
    own_answers: ClassVar[bool] = True
    #: one line for users
    help: ClassVar[str]

    #: how figures draw its rows: "points" are marks, "steps" are marks that a line joins (each holds the work of those
    #: before it), "curve" is a line, one for each run: that of the lowest ``rank`` among the policies that the run has
    kind: ClassVar[Kind] = "curve"
    rank: ClassVar[int] = 100
    #: lengths of dashes and gaps, in line widths; a solid line if empty
    dashes: ClassVar[tuple[float, ...]] = ()
    #: its name in legends (default: ``name``), and a phrase with {} in the place of the setting (default: "name {}")
    words: ClassVar[str] = ""
    setting_words: ClassVar[str] = ""

    def __init_subclass__(cls, **more: Any) -> None:
        """Words belong to a name: a policy derived from another one does not inherit them."""
        super().__init_subclass__(**more)
        if "name" in vars(cls):
            cls.words = vars(cls).get("words") or cls.name
            cls.setting_words = vars(cls).get("setting_words") or f"{cls.name} {{}}"

    setting: float | None = None
    thresholds: np.ndarray = np.empty(0)
    #: the risk that it promises to keep, if any
    promise: Promise | None = None

    @classmethod
    @abstractmethod
    def members(cls: type[P], signals: Signals, macs: np.ndarray) -> Sequence[P]:
        """One object per operating point. signals, macs: those of the validation split where there is one (of
        the test split for policies that choose nothing: names and costs of points are the same in both).
        macs: mean MACs of each point, [P]. Empty where the policy has nothing to decide."""

    @classmethod
    def members_for(cls: type[P], signals: Signals, macs: np.ndarray, risk: Risk) -> Sequence[P]:
        """As ``members``; policies that make a promise have one object per target."""
        return cls.members(signals, macs)

    def fit(self, signals: Signals, outcomes: Outcomes) -> None:
        """Find thresholds on the validation split. Policies that choose nothing ignore it."""
        return None

    @abstractmethod
    def apply(self, signals: Signals) -> Choice:
        """Decide for every image of a split."""

    def point_name(self, signals: Signals) -> str:
        """The operating point that all images run, or '' where it depends on the image."""
        return ""


def exit_order(signals: Signals) -> np.ndarray:
    """The exits in the order in which a network reaches them, as indices of points.

    A later exit has run everything that an earlier one has: counts nest, which is what sorts them (the
    default point may stand first). Raises RunError where they do not nest.
    """
    if not signals.same_for_all:
        raise RunError("an exit must run the same units for every image; counts of exits are [P, U]")
    order = np.argsort(signals.counts.astype(np.int64).sum(axis=1), kind="stable")
    nested = signals.counts[order]
    if (nested[1:] < nested[:-1]).any() or (nested[1:] == nested[:-1]).all(axis=1).any():
        raise RunError("exits must nest: a later one runs every unit of an earlier one, and more")
    return order


def first_true(go: np.ndarray) -> np.ndarray:
    """For each image the first exit that takes it, [N]; go: bool [K, N], the last row taken as true."""
    go = go.copy()
    go[-1] = True
    return go.argmax(axis=0)
