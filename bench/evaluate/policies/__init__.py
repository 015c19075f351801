"""Policies: rules that pick an operating point for every image from the signals of a decision record."""

from __future__ import annotations

from bench.evaluate.policies.base import Choice, Policy, Risk, exit_order
from bench.evaluate.policies.catalogue import (
    check_policies,
    default_policies,
    known_policy,
    lacks_logits,
    make_policies,
    policy_class,
    policy_names,
)

__all__ = [
    "Choice",
    "Policy",
    "Risk",
    "check_policies",
    "default_policies",
    "exit_order",
    "known_policy",
    "lacks_logits",
    "make_policies",
    "policy_class",
    "policy_names",
]
